"""Operators limited by memory or by the vector units, and scans."""

from __future__ import annotations

from tensorcast.cost.roofline import roofline
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def memory_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """Norms, activations, copies, gathers …: bytes over bandwidth, or FLOP over the vector rate."""
    return roofline(work, coefficient, hw, vector_format=attrs.get("format", "fp32"))


def scan_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """Linear attention and state-space scans; single-token steps are vector work on the state."""
    return roofline(work, coefficient, hw, matrix_peak=hw.peak(attrs["math"]))
