"""t0 + max(FLOP / (peak · efficiency), bytes / (bandwidth · efficiency)): three figures per family and device.

The efficiencies and t0 come from the hardware profile, with their provenance. No call is faster than its bound: the
efficiencies are at most 1.
"""

from __future__ import annotations

from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def roofline(work: Work, coefficient, hw, *, matrix_peak: float | None = None, vector_format: str = "fp32") -> Time:
    """Time of `work` on `hw` with one Coefficient; `matrix_peak` in FLOP/s where the work has matrix FLOP."""
    vector_share = coefficient.compute if matrix_peak is None else 1.0
    return Time(
        overhead=coefficient.t0,
        matrix=work.matrix_flops / (matrix_peak * coefficient.compute) if matrix_peak else 0.0,
        vector=work.vector_flops / (hw.vector_peak(vector_format) * vector_share),
        memory=(work.read_bytes + work.write_bytes) / (hw.memory_bw * coefficient.bandwidth),
    )
