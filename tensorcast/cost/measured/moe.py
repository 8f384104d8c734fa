"""moe: device, dtype, tokens (before dispatch), hidden, inter, topk, experts, moe_tp, moe_ep, distribution, gated.

Tables of other origin state `ep` and `tp` for the degrees and no distribution: their tokens choose experts at random,
all equally likely. The measured rank is the busiest.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np

from tensorcast.cost import routing
from tensorcast.cost.call import Call
from tensorcast.cost.moe import HEIGHTS, experts_sizes
from tensorcast.cost.tables import Table, ours, sizes
from tensorcast.ops.base import Work

# dtype of the table → (format of the matrix engine, bytes a weight with its scales, bytes an activation)
EXPERTS = {
    "bf16": ("bf16", 2.0, 2.0),
    "fp16": ("fp16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "nvfp4": ("nvfp4", 0.5625, 0.5625),
    "int4_wo": ("bf16", 0.53125, 2.0),
    "w4a16_mxfp4": ("bf16", 0.53125, 2.0),
    "w4a8_mxfp4_mxfp8": ("fp8", 0.53125, 1.03125),
}
POWER = "power_law_"
SILENT = ("sglang:*flashinfer*", "vllm:*experts*")  # benchmarks whose column `gated` is not to be believed


def _column(frame, names, default=1.0) -> np.ndarray:
    """The first of the columns the table has; `default` where it has none or a row does not state it."""
    for name in names:
        if name in frame.columns:
            values = sizes(frame, name)[0]
            return np.where(values >= 1, values, default)
    return np.full(len(frame), default)


def _load(frame, tokens, top_k, experts, ep) -> routing.Load:
    if "distribution" not in frame.columns:
        return routing.uniform(tokens, top_k, experts, ep, HEIGHTS)
    told = frame["distribution"].fillna("balanced").astype(str)
    load = routing.balanced(tokens, top_k, experts, ep, HEIGHTS)
    for name in told[told.str.startswith(POWER)].unique():
        here = (told == name).to_numpy()
        alpha = float(name.removeprefix(POWER))
        skewed = routing.power_law(tokens[here], top_k[here], experts[here], ep[here], HEIGHTS, alpha)
        load.pairs[here], load.active[here], load.tiles[:, here] = skewed.pairs, skewed.active, skewed.tiles
    return load


def _gated(frame, group, inter, top_k) -> np.ndarray:
    """Which rows multiply by a gate. Some benchmarks run layers without one by their shape and do not say so."""
    told = frame["gated"].fillna(True).to_numpy(dtype=bool) if "gated" in frame.columns else np.ones(len(frame), bool)
    if any(fnmatchcase(f"{group.get('backend')}:{group.get('kernel')}", pattern) for pattern in SILENT):
        told = told & (top_k != 22) & (inter != 1856)
    return told


def _call(frame, group, hw) -> Call:
    math, weight, act = EXPERTS[ours(group["dtype"])]
    tokens, hidden, inter, top_k, experts = sizes(frame, "tokens", "hidden", "inter", "topk", "experts")
    ep, tp = _column(frame, ("moe_ep", "ep")), _column(frame, ("moe_tp", "tp"))
    gated = _gated(frame, group, inter, top_k)
    up, inter = inter / tp * np.where(gated, 2.0, 1.0), inter / tp
    load = _load(frame, tokens, top_k, experts, ep)
    weights, kept = load.active * hidden * (up + inter) * weight, np.minimum(tokens, load.pairs) * hidden * 2
    work = Work(matrix_flops=2 * load.pairs * hidden * (up + inter), read_bytes=weights + kept, write_bytes=kept)
    shape = experts_sizes(load, tokens, hidden, inter, up, (weight, act, 2.0))
    shape |= {"mean": tokens * top_k / experts, "local": experts / ep, "listed": tokens * top_k}
    return Call(work, shape, math=math, vector="fp16", loop_bytes=weights + 2 * kept)


KERNELS = (
    ("sglang:*flashinfer_trtllm*", "flashinfer"),
    ("trtllm:moe_torch_flow", "cutlass"),
    ("trtllm:*cutlass*", "cutlass"),
    ("trtllm:*deepgemm*", "deepgemm"),
    ("trtllm:*nongated*", "cutlass_nongated"),
    ("trtllm:*min_latency*", "min_latency"),
    ("sglang:*fused_moe_triton*", "triton"),
    ("sglang:*marlin*", "marlin"),
    ("sglang:*flashinfer_cutlass*", "sglang_cutlass"),
    ("vllm:*flashinfer_cutlass*", "vllm_cutlass"),
    ("vllm:*nvfp4expertsmodular", "vllm_flashinfer"),
    ("vllm:*flashinfer*modular*", "vllm_flashinfer_modular"),
    ("vllm:*flashinfer*", "vllm_flashinfer"),
    ("vllm:*marlin*", "vllm_marlin"),
    ("vllm:*", "vllm_triton"),
)
"""Which kernels are kept apart; of a format the first one measured is what a machine runs unless told otherwise."""


def _format(group) -> str:
    return {"w4a16_mxfp4": "mxfp4", "w4a8_mxfp4_mxfp8": "mxfp4_mxfp8"}.get(group["dtype"], ours(group["dtype"]))


TABLES = {
    "moe": Table(
        "moe",
        ("dtype", "tokens", "hidden", "inter", "topk", "experts"),
        "grouped_gemm",
        _format,
        _call,
        "experts",
        KERNELS,
    )
}
