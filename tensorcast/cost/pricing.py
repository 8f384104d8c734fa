"""One table row → its time: the operator gives the work, its family the seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensorcast.cost import attention, gemm, memory
from tensorcast.cost.collective import collective_time
from tensorcast.cost.time import Time
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work, item_bytes
from tensorcast.ops.moe import exchange_bytes

MEMORY_BOUND = ("elementwise", "norm", "activation", "rotary", "gather", "copy", "softmax", "topk")


@dataclass(frozen=True)
class Family:
    """How one family of operators is priced.

    `key(attrs)` names the figures in the hardware profile: (family, format); None for collectives, which have
    curves of their own. `time(dims, work, attrs, hw, coefficient)` gives the seconds.
    """

    key: Callable[[Mapping[str, Any]], tuple[str, str] | None]
    time: Callable[..., Time]


def communication_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """A collective over `size` ranks, `stride` apart."""
    nbytes = exchange_bytes(dims, attrs) if "wire_format" in attrs else dims["elements"] * item_bytes(attrs["format"])
    return Time(communication=collective_time(attrs["collective"], nbytes, attrs["size"], attrs["stride"], hw))


def _by_name(family: str, fmt: Callable[[Mapping[str, Any]], str]):
    return lambda attrs: (family, fmt(attrs))


FAMILIES: Mapping[str, Family] = {
    **{
        name: Family(_by_name(name, gemm.product_format), gemm.product_time) for name in ("gemm", "bmm", "grouped_gemm")
    },
    "attention": Family(lambda a: (f"attention_{a['phase']}", a["kv_format"]), attention.attention_time),
    "mla": Family(lambda a: (f"mla_{a['phase']}", a["kv_format"]), attention.attention_time),
    "scan": Family(lambda a: ("scan", a["math"]), memory.scan_time),
    "quantize": Family(lambda a: ("quantize", a["to_format"]), gemm.quantize_time),
    "collective": Family(lambda a: None, communication_time),
    **{name: Family(_by_name(name, lambda a: "any"), memory.memory_time) for name in MEMORY_BOUND},
}


def coefficient_key(row) -> tuple[str, str] | None:
    """(coefficient family, format) that a table row is priced with; None for collectives."""
    return FAMILIES[operator_named(row.op).family].key(row.attrs)


def price(row, dims, hw) -> tuple[Work, Time]:
    """Work and time of one call of a table row at the sizes `dims` (arrays, one element per configuration)."""
    op = operator_named(row.op)
    family, work = FAMILIES[op.family], op.work(dims, row.attrs)
    key = family.key(row.attrs)
    coefficient = hw.coefficient(*key) if key is not None else None
    return work, family.time(dims, work, row.attrs, hw, coefficient)
