"""Operators limited by memory: norms, activations, copies, gathers, quantisation.

    T = t0 + √( (B/(BW em) · (1 - h + h/rl2))² + (c √(B/BW))² )        h = 1/(1 + r³), r = loop bytes / cache bytes

B bytes moved, BW memory bandwidth (B/s); the second term is the slow start of a stream, c in √s. Valid for any B > 0.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.time import Time

_BLOCK = 16384  # calls evaluated at once: they stay in the processor's cache


def stream_time(call: Call, p, hw) -> Time:
    """p: t0 (s), em (share of the bandwidth), rl2 (how much faster the cache is), c (√s)."""
    nbytes = np.asarray(call.work.read_bytes + call.work.write_bytes, dtype=float)
    looped = None if call.loop_bytes is None or not hw.l2_bytes else np.asarray(call.loop_bytes, dtype=float)
    if looped is not None:
        nbytes, looped = np.broadcast_arrays(nbytes, looped)
    memory, body = np.empty(nbytes.shape), np.empty(nbytes.shape)
    flat = nbytes.reshape(-1), None if looped is None else looped.reshape(-1), memory.reshape(-1), body.reshape(-1)
    for at in range(0, nbytes.size, _BLOCK):
        part = slice(at, at + _BLOCK)
        b, again = flat[0][part], None if looped is None else flat[1][part]
        flat[2][part], flat[3][part] = _stream(b, again, p, hw)
    vector = call.work.vector_flops / hw.vector_peak(call.vector)
    return Time(overhead=p["t0"], vector=vector, memory=memory[()], body=body[()])


def _stream(nbytes: np.ndarray, looped: np.ndarray | None, p, hw) -> tuple[np.ndarray, np.ndarray]:
    """(seconds at the bandwidth, with the slow start too); `looped`: bytes touched before the same are read again."""
    memory = nbytes * (1 / (hw.memory_bw * p["em"]))
    if looped is not None:
        fill = looped * (1 / hw.l2_bytes)
        memory = memory - memory * (1 - 1 / p["rl2"]) / (1 + fill * fill * fill)
    return memory, np.sqrt(memory * memory + nbytes * (p["c"] ** 2 / hw.memory_bw))
