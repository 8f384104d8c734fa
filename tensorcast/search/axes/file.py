"""YAML files of spaces: `1:8` is a text here, not a number to the base of 60, and a key stands once."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from tensorcast.errors import InputError


class _Loader(yaml.SafeLoader):
    """Safe, and without the readings of YAML 1.1 that nobody means: 1:30 as 90, 010 as 8, no as false."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name and form

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key, yaml.ScalarNode) else True:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"-?(0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+][0-9]+)", "-0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"({_pattern})$", re.ASCII), list(_first))


def content(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The mappings of options that the file holds, names with `_` for `-`; InputError."""
    name = Path(path).name
    try:
        found = yaml.load(Path(path).expanduser().read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--space {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" (line {line + 1})" if line is not None else ""
        raise InputError(f"{name}: is not YAML{where}: {getattr(error, 'problem', None) or error}") from None
    parts = found if isinstance(found, list) else [found]
    if not parts or not all(
        isinstance(part, dict) and part and all(isinstance(key, str) for key in part) for part in parts
    ):
        raise InputError(f"{name}: a space is a mapping such as `tp: [1, 2]`, or a list of such mappings")
    return [_names(name, part) for part in parts]


def _names(file: str, part: dict[str, Any]) -> dict[str, Any]:
    """Options under Python's spelling; one that has no value is an error."""
    out: dict[str, Any] = {}
    for key, value in part.items():
        name = key.removeprefix("--").replace("-", "_")
        if value is None:
            raise InputError(f"{file}: {key} has no value; give one, or leave the line out")
        if name in out:
            raise InputError(f"{file}: {key} is given twice; give it once")
        out[name] = value
    return out
