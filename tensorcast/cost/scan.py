"""Linear attention, state-space layers and their short convolution.

A scan carries a state along every chain: one chain a sequence and value head (b · heads of them), one step a chunk of C
tokens, or a token where a kernel is recurrent. What chunks do for themselves runs on all cores together; the state is
passed on step by step, `held` chains at once on a core:

    work  = FLOP / (V · ec)
    mem   = (bytes streamed / em + bytes of states / es) / BW · (1 - h + h/rl2)
    waves = chains / (cores · held) ;  W = max(1, waves + al (⌈waves⌉ - waves))
    T     = t0 + rows · row + ‖work, mem‖₃ + max(W · steps - 1, 0) · lat    several kernels; a first step is in t0
    T     = t0 + rows · row + ‖work, mem, W · steps · lat‖₃                 fused = 1: one kernel

with ‖x, y‖₃ = (x³ + y³)^(1/3), V the fp32 rate of the vector units (FLOP/s), BW the memory bandwidth (B/s), h the
weight of the last-level cache (0 in real inference) and rows = min(tokens of a sequence, C): inside of a chunk a
triangular system is solved row by row, all chunks side by side. `ec` exceeds 1 where matrix units do the products:
these kernels wait for loads, exponentials and each other, so the vector rate, which goes with cores × clock, measures
them better than the matrix peak. `em` counts each input and output once, so it is small where kernels of one scan pass
tensors to each other through memory. A convolution is a scan of no steps with rows = min(tokens, 8). Seconds, bytes.
Valid for any size ≥ 1; fitted for 1 to 2 million tokens, 2 to 96 heads of 128 × 128. Source: own model, after the
chunked form of the gated delta rule (arXiv 2412.06464) and of Mamba-2 (arXiv 2405.21060).
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work, item_bytes

CONV_ROWS = 8  # tokens that a core's part of a convolution goes through one by one


def scan_format(attrs) -> str:
    """The format that an operator's coefficients are kept under: its rule, with `_step` where tokens go one by one."""
    return f"{attrs['rule']}_step" if attrs.get("recurrent") else attrs["rule"]


def scan_call(dims, work: Work, attrs) -> Call:
    """The call of a `gated_delta_rule`, `mamba2_scan` or `causal_conv1d` row."""
    if attrs["rule"] == "conv":
        rows = dims["sequences"] * dims["channels"]
        states = 2 * rows * attrs["kernel_size"] * item_bytes(attrs["format"])
        return convolution(work, dims["elements"] / rows, states=states)
    states = dims["b"] * dims["heads"] * dims["dk"] * dims["dv"] * item_bytes(attrs["state_format"])
    return scan(
        work,
        dims["b"] * dims["heads"],
        dims["s"],
        chunk=1 if attrs["recurrent"] else attrs["chunk"],
        states=states * 2,
        math="" if attrs["recurrent"] else attrs["math"],
    )


def scan(work: Work, chains, tokens, *, chunk, states, math="", loop_bytes=None) -> Call:
    """A call of `chains` chains of `tokens` tokens; `states`: bytes of states read and written, part of the work's."""
    flops = np.asarray(work.matrix_flops + work.vector_flops, dtype=float)
    tokens, chunk = np.asarray(tokens, dtype=float), np.asarray(chunk, dtype=float)
    rows = np.where(chunk > 1, np.minimum(tokens, chunk), 0.0)
    sizes = {"flops": flops, "chains": chains, "steps": np.ceil(tokens / chunk), "rows": rows, "states": states}
    return Call(work, sizes, math=math, loop_bytes=loop_bytes)


def convolution(work: Work, tokens, *, states, flops=None, loop_bytes=None) -> Call:
    """A depthwise convolution. flops: what a kernel computes that fills up its blocks; those of the work by default."""
    flops = work.vector_flops if flops is None else flops
    sizes = {"flops": flops, "chains": 0.0, "steps": 0.0, "rows": np.minimum(tokens, CONV_ROWS), "states": states}
    return Call(work, sizes, loop_bytes=loop_bytes)


def scan_time(call: Call, p, hw) -> Time:
    """Seconds of the scans of a call; see the module's docstring. sizes: flops (of the whole call), chains, steps,
    rows, states (bytes)."""
    s = call.sizes
    cached = call.hit(hw)
    streamed = call.work.read_bytes + call.work.write_bytes - s["states"]
    memory = (streamed / p["em"] + s["states"] / p["es"]) / hw.memory_bw * (1 - cached + cached / p["rl2"])
    work = s["flops"] / (hw.vector_peak("fp32") * p["ec"])
    waves = s["chains"] / (hw.cores * p["held"])
    waves = np.maximum(1.0, waves + p["al"] * (np.ceil(waves) - waves))
    steps, rows = waves * s["steps"], s["rows"] * p["row"]
    chain = (steps if p["fused"] else np.maximum(steps - 1, 0.0)) * p["lat"]
    body = soft_max(work, memory, chain) if p["fused"] else soft_max(work, memory) + chain
    return Time(p["t0"], **{"matrix" if call.math else "vector": work + chain + rows}, memory=memory, body=body + rows)
