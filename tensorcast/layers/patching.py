"""Module-level functions of foreign model code, replaced while that model runs and put back afterwards."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
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


@dataclass(frozen=True)
class Replacement:
    """One function of foreign code and what stands in for it."""

    space: dict = field(repr=False)
    name: str
    original: Callable
    stand_in: Callable


def replacements(module: nn.Module, patches: list[GlobalPatch]) -> list[Replacement]:
    """The functions that `patches` name in the code of `module`."""
    found = []
    for name in code_modules(module):
        space = vars(sys.modules[name])
        for key, value in space.items():
            patch = next((p for p in patches if callable(value) and p.pattern.search(key)), None)
            if patch is not None:
                found.append(Replacement(space, key, value, patch.make(value, name)))
    return found


def without_autocast() -> Replacement:
    """`torch.autocast` knows no meta device: code that switches it off, or asks for fp32 of fp32, runs as it stands."""
    original = torch.autocast

    def autocast(device_type, dtype=None, enabled=True, cache_enabled=None):
        if device_type == "meta" and (not enabled or dtype is torch.float32):
            return nullcontext()
        return original(device_type, dtype, enabled, cache_enabled)

    return Replacement(vars(torch), "autocast", original, autocast)


@contextmanager
def patched(functions: list[Replacement]) -> Iterator[None]:
    """While inside, each function is replaced."""
    for function in functions:
        function.space[function.name] = function.stand_in
    try:
        yield
    finally:
        for function in functions:
            function.space[function.name] = function.original
