"""One table row → its time: the operator gives the work, its family the seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorcast.cost import attention, gemm, memory
from tensorcast.cost.collective import collective_time
from tensorcast.cost.time import Time
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work, item_bytes
from tensorcast.ops.moe import exchange_bytes


def communication_time(dims, work: Work, attrs, hw) -> Time:
    """A collective over `size` ranks, `stride` apart."""
    if "wire_format" in attrs:
        op, nbytes = attrs["collective"], exchange_bytes(dims, attrs)
    else:
        op, nbytes = attrs["collective"], dims["elements"] * item_bytes(attrs["format"])
    return Time(communication=collective_time(op, nbytes, attrs["size"], attrs["stride"], hw))


PRICES: Mapping[str, Callable[..., Time]] = {
    "gemm": gemm.gemm_time,
    "bmm": gemm.bmm_time,
    "grouped_gemm": gemm.grouped_gemm_time,
    "attention": attention.attention_time,
    "mla": attention.mla_time,
    "scan": memory.scan_time,
    "collective": communication_time,
    **{family: memory.memory_time(family) for family in memory.FAMILIES},
}


def price(row, dims, hw) -> tuple[Work, Time]:
    """Work and time of one call of a table row at the sizes `dims` (arrays, one element per configuration)."""
    op = operator_named(row.op) if row.op != "aten::?" else _unknown()
    work = op.work(dims, row.attrs)
    return work, PRICES[op.family](dims, work, row.attrs, hw)


def _unknown():
    from tensorcast.ops.aten import UNKNOWN

    return UNKNOWN
