"""Operators: what a model does, said once for shapes, bytes and FLOP. No torch import here or below.

`operator_named(name)` gives the object behind a table row; `list_ops()` is what `tensorcast list ops` prints.
"""

from __future__ import annotations

import importlib
from functools import cache

from tensorcast.ops.backward import backward_operator
from tensorcast.ops.base import OPERATORS, Operator, Work

_FAMILIES = (
    "linear",
    "attention",
    "memory",
    "moe",
    "experts",
    "scan",
    "compressed",
    "collective",
    "sharded",
    "aten",
    "training",
)


def operator_named(name: str) -> Operator:
    """The operator object called `name` in an OpTable (`linear`, `aten::add`).

    `NAME_backward` is the gradient of operator NAME.
    A name with a namespace that nobody described gets the operator that is costed by its bytes alone.
    """
    _load()
    found = OPERATORS.find(name) or backward_operator(name)
    if found is None and "::" in name:
        from tensorcast.ops.aten import UNDESCRIBED

        return UNDESCRIBED
    return found if found is not None else OPERATORS.get(name)


def own_operators() -> frozenset[str]:
    """Names of the operators that user code describes."""
    return frozenset(entry.key for entry in OPERATORS.entries() if entry.origin != "builtin")


def list_ops() -> list[dict]:
    """One dict per operator: name, family, schema, description, origin."""
    _load()
    rows = []
    for entry in OPERATORS.entries():
        op = entry.value
        row = {"name": entry.key, "family": op.family, "schema": op.schema, "description": op.summary}
        rows.append({**row, "origin": entry.origin})
    return rows


@cache
def _load() -> None:
    for family in _FAMILIES:
        importlib.import_module(f"tensorcast.ops.{family}")


__all__ = ["OPERATORS", "Operator", "Work", "list_ops", "operator_named"]
