"""Operators limited by memory or by the vector units, each kind with coefficients of its own."""

from __future__ import annotations

from collections.abc import Callable

from tensorcast.cost.roofline import roofline
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work

FAMILIES = ("elementwise", "norm", "activation", "rotary", "gather", "copy", "quantize", "softmax", "topk")


def memory_time(family: str) -> Callable[..., Time]:
    """The pricing function of one memory-bound family."""

    def price(dims, work: Work, attrs, hw) -> Time:
        return roofline(work, hw.coefficient(family, attrs.get("to_format", "any")), hw, vector_format=attrs.get("format", "fp32"))

    return price


def scan_time(dims, work: Work, attrs, hw) -> Time:
    """Linear attention and state-space scans; single-token steps are vector work on the state."""
    return roofline(work, hw.coefficient("scan"), hw, matrix_peak=hw.peak(attrs["math"]))
