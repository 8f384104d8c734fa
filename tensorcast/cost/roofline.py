"""t0 + max(FLOP / (peak · efficiency), bytes / (bandwidth · efficiency)): three figures per family and device.

For kernels nobody measured closely; validity: any size, within a factor of two on small calls.
"""

from __future__ import annotations

from tensorcast.cost.call import Call
from tensorcast.cost.time import Time


def roofline_time(call: Call, p, hw) -> Time:
    """p: t0 (s), compute and bandwidth (shares of the peak and of the memory bandwidth)."""
    work, peak = call.work, hw.peak(call.math) if call.math else 0.0
    vector_share = 1.0 if peak else p["compute"]
    return Time(
        overhead=p["t0"],
        matrix=work.matrix_flops / (peak * p["compute"]) if peak else 0.0,
        vector=work.vector_flops / (hw.vector_peak(call.vector) * vector_share),
        memory=(work.read_bytes + work.write_bytes) / (hw.memory_bw * p["bandwidth"]),
    )
