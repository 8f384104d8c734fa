"""What `tensorcast check TARGET` names: a model, a file of user code, or a machine. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tensorcast.content import path_of
from tensorcast.errors import UnknownNameError
from tensorcast.hardware import load
from tensorcast.models.entries import find_entry

MODEL_KEYS = ("model_type", "architectures", "_class_name")
"""One of these is in the configuration of every published model; a graph has none."""


@dataclass(frozen=True)
class Target:
    """`text` is a reference of that kind: for `simulate --model`, `--custom` or `--hw`."""

    kind: Literal["model", "code", "hardware"]
    text: str


def target_of(text: str) -> Target:
    """By what the file is; a name is a model's first, then a machine's. A name of neither counts as a model's."""
    path = path_of(text, "target")
    if path.suffix.lower() in (".yaml", ".yml"):
        return Target("hardware", text)
    if path.suffix == ".py" or (path / "__init__.py").is_file():
        return Target("code", text)
    if path.suffix == ".json" and path.is_file():
        return Target("model" if _is_configuration(path) else "code", text)
    if not path.exists() and find_entry(text) is None and _is_machine(text):
        return Target("hardware", text)
    return Target("model", text)


def _is_configuration(path: Path) -> bool:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return True  # resolving it as one says what is wrong
    return isinstance(content, dict) and any(key in content for key in MODEL_KEYS)


def _is_machine(name: str) -> bool:
    try:
        load.resolve(name)
    except UnknownNameError:
        return False
    return True
