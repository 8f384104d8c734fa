"""One table row → its time: the operator gives the work, its family the call, the machine the seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorcast.cost import attention, gemm
from tensorcast.cost.call import Call
from tensorcast.cost.collective import collective_time
from tensorcast.cost.formulas import FUNCTIONS
from tensorcast.cost.time import Time
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work, item_bytes
from tensorcast.ops.moe import exchange_bytes

MEMORY_BOUND = ("elementwise", "norm", "activation", "rotary", "gather", "copy", "softmax", "topk")


@dataclass(frozen=True)
class Family:
    """How one family of operators is priced.

    `key(attrs)` names the figures in the hardware profile: (family, format). `call(dims, work, attrs)` is what their
    formula is asked.
    """

    key: Callable[[Mapping[str, Any]], tuple[str, str]]
    call: Callable[..., Call]


def _by_name(family: str, fmt: Callable[[Mapping[str, Any]], str]):
    return lambda attrs: (family, fmt(attrs))


def _stream(dims, work: Work, attrs) -> Call:
    return Call(work, vector=attrs.get("format", "fp32"))


def _matrix(dims, work: Work, attrs) -> Call:
    return Call(work, dims, math=attrs["math"])


FAMILIES: Mapping[str, Family] = {
    "gemm": Family(_by_name("gemm", gemm.product_format), gemm.product_call),
    "bmm": Family(_by_name("bmm", gemm.product_format), gemm.product_call),
    "grouped_gemm": Family(_by_name("grouped_gemm", gemm.product_format), _matrix),
    "attention": Family(lambda a: (f"attention_{a['phase']}", a["kv_format"]), attention.attention_call),
    "mla": Family(lambda a: (f"mla_{a['phase']}", a["kv_format"]), attention.attention_call),
    "scan": Family(lambda a: ("scan", a["math"]), _matrix),
    "quantize": Family(
        lambda a: ("quantize", a["to_format"]), lambda dims, work, attrs: Call(work, vector=attrs["in_format"])
    ),
    **{name: Family(_by_name(name, lambda a: "any"), _stream) for name in MEMORY_BOUND},
}


def time_of(call: Call, coefficient, hw) -> Time:
    """Seconds of a call with one kernel's coefficients, never below its physical bound."""
    return FUNCTIONS[coefficient.formula](call, coefficient, hw).at_least(call.floor(hw))


def coefficient_key(row) -> tuple[str, str] | None:
    """(coefficient family, format) that a table row is priced with; None for collectives."""
    family = operator_named(row.op).family
    return FAMILIES[family].key(row.attrs) if family != "collective" else None


def price(row, dims, hw) -> tuple[Work, Time]:
    """Work and time of one call of a table row at the sizes `dims` (arrays, one element per configuration)."""
    op = operator_named(row.op)
    work = op.work(dims, row.attrs)
    if op.family == "collective":
        return work, _communication_time(dims, row.attrs, hw)
    family = FAMILIES[op.family]
    time = time_of(family.call(dims, work, row.attrs), hw.coefficient(*family.key(row.attrs)), hw)
    if op.family == "quantize" and "quantize" in hw.coefficient("gemm", gemm.product_format(row.attrs)).includes:
        # The product's own figures include this launch: only the bytes are left to count.
        time = replace(time, overhead=0.0, body=time.seconds - time.overhead)
    return work, time


def _communication_time(dims, attrs, hw) -> Time:
    """A collective over `size` ranks, `stride` apart."""
    nbytes = exchange_bytes(dims, attrs) if "wire_format" in attrs else dims["elements"] * item_bytes(attrs["format"])
    return Time(communication=collective_time(attrs["collective"], nbytes, attrs["size"], attrs["stride"], hw))
