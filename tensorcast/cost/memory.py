"""Operators limited by memory: norms, activations, copies, gathers, quantisation.

    T = t0 + √( (B/(BW em) · (1 - h + h/rl2))² + (c √(B/BW))² )        h = 1/(1 + r³), r = loop bytes / cache bytes

B bytes moved, BW memory bandwidth (B/s); the second term is the slow start of a stream, c in √s. Valid for any B > 0.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.time import Time


def stream_time(call: Call, p, hw) -> Time:
    """p: t0 (s), em (share of the bandwidth), rl2 (how much faster the cache is), c (√s)."""
    nbytes = np.asarray(call.work.read_bytes + call.work.write_bytes, dtype=float)
    cached = call.hit(hw, sharpness=3)
    memory = nbytes / (hw.memory_bw * p["em"]) * (1 - cached + cached / p["rl2"])
    return Time(
        overhead=p["t0"],
        vector=call.work.vector_flops / hw.vector_peak(call.vector),
        memory=memory,
        body=np.sqrt(memory * memory + p["c"] ** 2 * nbytes / hw.memory_bw),
    )
