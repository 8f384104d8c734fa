"""Attention over keys and values, and over latents; prefill and decode have formulas of their own."""

from __future__ import annotations

from tensorcast.cost.call import Call
from tensorcast.cost.roofline import roofline_time
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def attention_call(dims, work: Work, attrs) -> Call:
    """The call of an attention row. Softmax runs beside the products; what it slows them down is in their figures."""
    products = Work(work.matrix_flops, 0, work.read_bytes, work.write_bytes)
    return Call(products, dict(dims), math=attrs["math"])


def flash_time(call: Call, p, hw) -> Time:
    return roofline_time(call, p, hw)


def splitkv_time(call: Call, p, hw) -> Time:
    return roofline_time(call, p, hw)
