"""One table row → its time: the operator gives the work, its family the call, the machine the seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tensorcast.cost import attention, decode, gemm, moe, scan
from tensorcast.cost.call import Call
from tensorcast.cost.collective import BEST, collective_time
from tensorcast.cost.composed import composed_time
from tensorcast.cost.described import calls_of, talks
from tensorcast.cost.formulas import FUNCTIONS
from tensorcast.cost.imbalance import exchange_factor
from tensorcast.cost.own import own_call, with_products
from tensorcast.cost.time import Time
from tensorcast.errors import HardwareError
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work, item_bytes
from tensorcast.ops.collective import buffer_elements
from tensorcast.ops.moe import exchange_bytes
from tensorcast.ops.sharded import of_rank

INSIDE = "inside"  # work that another kernel does on its way: bytes, but no launch
OWN = "own"  # operators whose cost user code states
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


def _attention(dims, work: Work, attrs) -> Call:
    call = decode.decode_call if attrs["phase"] == "decode" else attention.attention_call
    return call(dims, work, attrs)


FAMILIES: Mapping[str, Family] = {
    "gemm": Family(_by_name("gemm", gemm.product_format), gemm.product_call),
    "bmm": Family(_by_name("bmm", gemm.product_format), gemm.product_call),
    "grouped_gemm": Family(_by_name("grouped_gemm", moe.experts_format), moe.experts_call),
    "attention": Family(attention.attention_key, _attention),
    "mla": Family(lambda a: (f"mla_{a['phase']}", a["kv_format"]), _attention),
    "scan": Family(_by_name("scan", scan.scan_format), scan.scan_call),
    "quantize": Family(
        lambda a: ("quantize", a["to_format"]), lambda dims, work, attrs: Call(work, vector=attrs["in_format"])
    ),
    **{name: Family(_by_name(name, lambda a: "any"), _stream) for name in MEMORY_BOUND},
    OWN: Family(lambda a: ("elementwise", "any"), own_call),
    INSIDE: Family(lambda a: ("elementwise", "any"), _stream),
}


def time_of(call: Call, coefficient, hw) -> Time:
    """Seconds of a call with one kernel's coefficients, never below its physical bound."""
    return FUNCTIONS[coefficient.formula](call, coefficient, hw).at_least(call.floor(hw))


def coefficient_keys(row) -> list[tuple[str, str, str]]:
    """(coefficient family, format, kernel) of all figures that a table row is priced with; none for collectives.

    A kernel that names no coefficients of the machine is priced with the family's default ones.
    """
    return [_key(operator_named(call.op), call.attrs) for call in calls_of(row) if not talks(call)]


def _key(op, attrs) -> tuple[str, str, str]:
    return (*FAMILIES[op.family].key(attrs), attrs.get("kernel", ""))


def price(row, dims, hw) -> tuple[Work, Time]:
    """Work and time of one call of a table row at the sizes `dims` (arrays, one element per configuration)."""
    op, dims = operator_named(row.op), of_rank(dims, row.attrs)
    try:
        return op.work(dims, row.attrs), _time(op, dims, row.attrs, hw)
    except HardwareError as error:  # a module that keeps a format of its own, whatever the model is run in
        raise HardwareError(f"{row.op} of {row.module}: {error}; choose a machine that computes it") from None


def time_of_row(row, dims, hw) -> Time:
    """The time alone; sizes that are the same in all configurations may be plain numbers."""
    return _time(operator_named(row.op), of_rank(dims, row.attrs), row.attrs, hw)


def _time(op, dims, attrs, hw) -> Time:
    if op.parts is not None:
        found = op.parts(dims, attrs)
        return composed_time(found, lambda part: _time(operator_named(part.op), part.dims, part.attrs, hw))
    if op.family == "collective":
        return _communication_time(dims, attrs, hw)
    family, coefficient = FAMILIES[op.family], hw.coefficient(*_key(op, attrs))
    call = family.call(dims, op.work(dims, attrs), attrs)
    time = time_of(call, coefficient, hw)
    if skew := attrs.get("skew"):  # popular experts: the busiest rank's time
        busiest = moe.experts_call(dims, op.work(dims, attrs), attrs, skew["alpha"])
        time = moe.no_faster(time_of(busiest, coefficient, hw), time)
    if op.family == OWN:
        time = with_products(time, call, hw)
    if op.family == INSIDE:
        time = replace(time, launches=0)
    if op.family == INSIDE or _launched_with_another(op, attrs, hw):
        time = replace(time, overhead=0.0, body=time.seconds - time.overhead)
    return time


# Kernels that some tables time together with another: the coefficients that say so in `includes`.
LAUNCHED_WITH: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "quantize": lambda a: ("gemm", gemm.product_format(a)),
    "kv_append": lambda a: ("attention_decode", a["kv_format"]),
}


def _launched_with_another(op, attrs, hw) -> bool:
    """Whether the launch of this kernel is inside the figures of the one it goes with: only its bytes are left."""
    with_ = LAUNCHED_WITH.get(op.name)
    return with_ is not None and op.family in hw.coefficient(*with_(attrs)).includes


def _communication_time(dims, attrs, hw) -> Time:
    """A collective over `size` ranks, `stride` apart, by the fastest of the libraries that were measured here."""
    if "wire_format" in attrs:
        nbytes = exchange_bytes(dims, attrs) * exchange_factor(dims, attrs)
    else:
        nbytes = buffer_elements(dims, attrs) * item_bytes(attrs["format"])
    seconds = collective_time(attrs["collective"], nbytes, attrs["size"], attrs["stride"], hw, library=BEST)
    return Time(communication=seconds)
