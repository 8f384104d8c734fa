"""Dispatch and combine of expert parallelism inside one node, by kernels that write into each other's memory.

    T = t0 + te E + tb row + ‖ wire / (link · e), (wire / bs + tokens row / bl + tt tokens) / sms ‖₃

with ‖x, y‖₃ = (x³ + y³)^(1/3), wire the bytes a rank sends to the others, link its bandwidth into the group (B/s), E
the experts, tokens those of the rank, row the bytes of a token and sms the cores that the kernel runs on: each sends
`bs` B/s, handles `bl` B/s of its own tokens and needs `tt` seconds to start a token; `te` and `tb` are what an expert
and a byte of a token add to the latency of a round. A low-latency kernel sends a token to each of its experts and gives
every core the same number of experts; a normal kernel sends it once to every rank that has one of them and takes the
cores it is given. Seconds, bytes. Valid for one node; fitted for 8 ranks, 1 to 131072 tokens, hidden sizes of 2048 to
7168. Source: own model.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.time import Time


def exchange_time(call: Call, p, hw) -> Time:
    """sizes: wire (bytes), link (B/s), tokens, row (bytes), experts, sms; see the module's docstring."""
    s = call.sizes
    wire, tokens = np.asarray(s["wire"], dtype=float), np.asarray(s["tokens"], dtype=float)
    link = wire / (s["link"] * p["e"])
    cores = (wire / p["bs"] + tokens * s["row"] / p["bl"] + p["tt"] * tokens) / s["sms"]
    overhead = p["t0"] + p["te"] * s["experts"] + p["tb"] * s["row"]
    return Time(overhead, communication=link, body=soft_max(link, cores))


def ranks_reached(top_k, ranks):
    """Expected number of ranks that hold at least one of a token's experts, where any is as likely as another."""
    return ranks * (1 - (1 - 1 / ranks) ** top_k)


def cores_of(experts, cores):
    """Cores a low-latency kernel runs on: each takes the same number of experts, as few as there are cores for."""
    return np.ceil(experts / np.ceil(experts / cores))
