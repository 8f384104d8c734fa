"""Registers our operators with torch, once per process, so that a dispatch mode sees one call for each."""

from __future__ import annotations

import torch

from tensorcast.errors import InputError
from tensorcast.ops import OPERATORS, operator_named
from tensorcast.ops.base import Operator

_LIBRARY = torch.library.Library("tensorcast", "DEF")
_defined: dict[str, Operator] = {}
_own: dict[str, torch.library.Library] = {}  # operators of user code, each in a library that can be taken back


def define_operators() -> None:
    """Define every operator that has a meta function. Calling it again adds what was registered since."""
    operator_named("linear")
    for entry in OPERATORS.entries():
        op = entry.value
        if op.meta is None or _defined.get(op.name) is op:
            continue
        known = _defined.get(op.name)
        if known is None or known.schema != op.schema:
            _define(op, own=entry.origin != "builtin")
        _defined[op.name] = op


def _define(op: Operator, own: bool) -> None:
    if op.name in _defined and op.name not in _own:
        raise InputError(f"operator {op.name!r} keeps its schema when it is replaced: {_defined[op.name].schema}")
    if op.name in _own:
        _own.pop(op.name)._destroy()
    library = torch.library.Library("tensorcast", "FRAGMENT") if own else _LIBRARY
    try:
        library.define(op.schema)
    except RuntimeError as reason:
        why = " ".join(str(reason).split())
        raise InputError(f"operator {op.schema!r}: torch does not take this schema: {why[:200]}") from None
    library.impl(op.name, lambda *args: _defined[op.name].meta(*args), "Meta")
    if own:
        _own[op.name] = library


define_operators()
call = torch.ops.tensorcast
