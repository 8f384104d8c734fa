"""Module-level functions of foreign model code, replaced while that model runs and put back afterwards."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class GlobalPatch:
    """Functions whose name matches `pattern`; `make(original, module_name)` gives the replacement."""

    pattern: re.Pattern
    make: Callable[[Callable, str], Callable]


def code_modules(module: nn.Module) -> list[str]:
    """Names of the Python modules that define the classes of `module`'s parts, torch's own left out."""
    names = {type(m).__module__ for m in module.modules()}
    return sorted(n for n in names if not n.startswith(("torch.", "tensorcast.")))


@contextmanager
def patched(module: nn.Module, patches: list[GlobalPatch]) -> Iterator[None]:
    """While inside, the functions that `patches` name are replaced in the code of `module`."""
    undo: list[tuple[dict, str, Callable]] = []
    for name in code_modules(module):
        space = vars(sys.modules[name])
        for key, value in list(space.items()):
            patch = next((p for p in patches if callable(value) and p.pattern.search(key)), None)
            if patch is not None:
                undo.append((space, key, value))
                space[key] = patch.make(value, name)
    try:
        yield
    finally:
        for space, key, value in undo:
            space[key] = value
