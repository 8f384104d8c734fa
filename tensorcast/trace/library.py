"""Registers our operators with torch, once per process, so that a dispatch mode sees one call for each."""

from __future__ import annotations

import torch

from tensorcast.ops import OPERATORS, operator_named

_LIBRARY = torch.library.Library("tensorcast", "DEF")
_defined: set[str] = set()


def define_operators() -> None:
    """Define every operator that has a meta function. Calling it again adds what was registered since."""
    operator_named("linear")
    for entry in OPERATORS.entries():
        op = entry.value
        if op.meta is None or op.name in _defined:
            continue
        _LIBRARY.define(op.schema)
        _LIBRARY.impl(op.name, op.meta, "Meta")
        _defined.add(op.name)


define_operators()
call = torch.ops.tensorcast
