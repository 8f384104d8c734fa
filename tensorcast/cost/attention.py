"""Attention over keys and values, and over latents; prefill and decode have coefficients of their own."""

from __future__ import annotations

from tensorcast.cost.roofline import roofline
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def attention_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """Fused attention; dims b, q, kv, heads, kv_heads, d, dv (kv_heads 1 for latents).

    Softmax runs beside the products; what it slows them down is inside their measured efficiency.
    """
    products = Work(work.matrix_flops, 0, work.read_bytes, work.write_bytes)
    return roofline(products, coefficient, hw, matrix_peak=hw.peak(attrs["math"]))
