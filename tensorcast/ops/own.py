"""Operators of user code: what they cost, and torch operators made of a schema and a meta function.

    @tc.op("mylib::fast_norm(Tensor x, Tensor w, float eps) -> Tensor")
    def fast_norm(x, w, eps): return torch.empty_like(x)

    @tc.register_op_cost("mylib::fast_norm")
    def _(call): return tc.Cost(vector_flops=5 * call.args[0].numel(), read=call.read_bytes, write=call.write_bytes)

`register_op_cost` also describes operators that somebody else defined: custom operators of a model's own code, of an
extension, of torch. The figures are taken at the sizes of a trace; where they are polynomials of batch, new tokens and
context, the table holds everywhere, and where not, it is traced anew at every point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from tensorcast.catalog import Catalog
from tensorcast.errors import InputError, KernelError
from tensorcast.ops.base import OPERATORS, OpCall, Operator, Work, dtype_name

FAMILY = "own"  # priced by tensorcast.cost.own
OURS = ("tensorcast", "aten", "prims", "prim")  # namespaces that nobody else defines operators in


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one call of an operator takes. FLOP (a multiply-add is two) and bytes.

    `math`: format the matrix engine works in; None = that of the first floating-point tensor.
    """

    matrix_flops: float = 0
    vector_flops: float = 0
    read: float = 0
    write: float = 0
    workspace: float = 0
    math: str | None = None

    def __post_init__(self) -> None:
        for name in FIGURES:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise InputError(f"Cost: {name} must be a number of at least 0, not {value!r}")
        if self.math is not None:
            from tensorcast.formats import format_named

            format_named(self.math)


FIGURES = tuple(f.name for f in fields(Cost) if f.name != "math")


@dataclass(frozen=True)
class _Definition:
    """A torch operator that `op` defined."""

    schema: str
    meta: Callable


_DEFINED: Catalog[_Definition] = Catalog("torch operator", how="")
_LIBRARIES: dict[str, Any] = {}  # what keeps each definition alive in torch


def op(schema: str, *, replace: bool = False) -> Callable[[Callable], Any]:
    """Decorator: define the torch operator `namespace::name(…) -> …`, whose result on meta the function gives.

    The function's name becomes the operator, ready to be called. It costs what `register_op_cost` says.
    """
    if not isinstance(schema, str) or "::" not in schema.partition("(")[0]:
        raise InputError(f"op {schema!r}: expected namespace::name(arguments) -> results, as torch writes schemas")
    name = schema.partition("(")[0].strip()
    namespace, _, bare = name.partition("::")
    if namespace in OURS:
        raise InputError(f"op {name!r}: namespace {namespace!r} is taken; use one of your own")

    def define(meta: Callable) -> Any:
        import torch

        if not callable(meta):
            raise InputError(f"op {name!r}: decorate the function that gives its result on meta, not {meta!r}")
        if name not in _LIBRARIES and hasattr(getattr(torch.ops, namespace), bare):
            raise InputError(f"op {name!r}: other code has defined it; give its cost with register_op_cost({name!r})")
        _DEFINED.register(name, _Definition(schema, meta), replace=replace)
        if name in _LIBRARIES:
            _LIBRARIES.pop(name)._destroy()
        library = torch.library.Library(namespace, "FRAGMENT")
        try:
            library.define(schema.partition("::")[2])
            library.impl(bare, meta, "Meta")
        except RuntimeError as reason:
            library._destroy()
            why = " ".join(str(reason).split())
            raise InputError(f"op {schema!r}: torch does not take this schema: {why[:200]}") from None
        _LIBRARIES[name] = library
        return getattr(getattr(torch.ops, namespace), bare)

    return define


def register_op_cost(operator: Any, *, replace: bool = False) -> Callable[[Callable], Callable]:
    """Decorator: the function `(call: OpCall) -> Cost` says what a call of `operator` takes.

    `operator`: `torch.ops.mylib.fast_norm`, one of its overloads (they share a cost), or its name "mylib::fast_norm".
    """
    name, schema = _name_of(operator)
    if name.startswith("tensorcast::"):
        bare = name.partition("::")[2]
        raise InputError(f"{name} carries its own work; describe it anew with @operator({bare!r}…, replace=True)")

    def register(cost: Callable[[OpCall], Cost]) -> Callable[[OpCall], Cost]:
        if not callable(cost):
            raise InputError(f"the cost of {name} must be a function of the call, not {cost!r}")
        summary = (cost.__doc__ or "").strip().split("\n")[0]
        entry = Operator(name, schema, FAMILY, None, _measure(name, cost), _work, summary)
        OPERATORS.register(name, entry, replace=replace)
        return cost

    return register


def _name_of(operator: Any) -> tuple[str, str]:
    """(namespace::name, schema) of an operator in any of its forms."""
    if isinstance(operator, str):
        name = operator.strip()
        if name.count("::") == 1 and all(part.isidentifier() for part in name.split("::")):
            return name, f"{name}(…)"
        raise InputError(f"operator {operator!r}: expected namespace::name, without overload and arguments")
    found = getattr(operator, "_opoverload", operator)  # what torch.library.custom_op returns
    schema = getattr(found, "_schema", None)
    name = schema.name if schema is not None else getattr(found, "_qualified_op_name", None)
    if not isinstance(name, str):
        raise InputError(f"operator {operator!r}: expected torch.ops.namespace.name, or its name as a text")
    return name, str(schema) if schema is not None else f"{name}(…)"


def _measure(name: str, cost: Callable[[OpCall], Cost]) -> Callable[[OpCall], dict[str, Any]]:
    """`dims` of the operator: the figures of one call."""
    where = (
        f"cost of operator {name} ({cost.__code__.co_filename}:{cost.__code__.co_firstlineno})"
        if hasattr(cost, "__code__")
        else f"cost of operator {name}"
    )

    def dims(call: OpCall) -> dict[str, Any]:
        try:
            found = cost(call)
        except Exception as reason:
            raise KernelError(f"{where}: {type(reason).__name__}: {' '.join(str(reason).split())}") from reason
        if not isinstance(found, Cost):
            raise KernelError(f"{where}: returned {found!r:.80}, not a Cost")
        fmt = next((dtype_name(t) for t in (*call.inputs, *call.outputs) if t.is_floating_point()), "fp32")
        return {**{f: getattr(found, f) for f in FIGURES}, "attrs": {"math": found.math or fmt, "format": fmt}}

    return dims


def _work(d, a) -> Work:
    return Work(d["matrix_flops"], d["vector_flops"], d["read"], d["write"], 0, d["workspace"])
