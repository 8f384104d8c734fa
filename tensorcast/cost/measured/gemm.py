"""gemm: device, dtype, m, n, k. bmm: device, op, dtype, bmm (batch), m, n, k."""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.tables import Table, ours, sizes
from tensorcast.ops.base import Work

# dtype of the table → (format of the matrix engine, bytes an element of A and of B, whether A's quantisation is timed)
PRODUCTS = {
    "bf16": ("bf16", 2, 2, False),
    "fp16": ("fp16", 2, 2, False),
    "fp8": ("fp8", 1, 1, True),
    "fp8_block": ("fp8", 1, 1, True),
    "fp8_static": ("fp8", 1, 1, True),
    "nvfp4": ("nvfp4", 0.5625, 0.5625, True),
    "int8": ("int8", 1, 1, True),
    "int8_wo": ("bf16", 2, 1, False),
    "int4_wo": ("bf16", 2, 0.5, False),
}


def _call(frame, group, hw) -> Call:
    math, ba, bb, quantized = PRODUCTS[ours(group["dtype"])]
    m, n, k = sizes(frame, "m", "n", "k")
    b = sizes(frame, "bmm")[0] if "bmm" in frame.columns else np.ones_like(m)
    x, w, y = b * m * k * ba, b * k * n * bb, b * m * n * 2
    work = Work(matrix_flops=2 * b * m * n * k, read_bytes=x + w, write_bytes=y)
    shape = {"b": b, "m": m, "n": n, "k": k, "ba": ba, "bb": bb, "bc": 2, "quantized": quantized}
    return Call(work, shape, math=math, vector="fp16", loop_bytes=_loop_bytes(group, hw, x, w, y))


def _loop_bytes(group, hw, x, w, y):
    """Bytes each source's benchmark loop touches before it reads the same operands again; None where L2 is flushed."""
    if group.get("cache_state") == "warm_L2" or "op" in group:  # batched products repeat on the same operands
        return w + x + y
    match group.get("backend", ""):
        case "trtllm":  # as many copies of the weights as fill the cache, five at most
            return np.clip(np.ceil((hw.l2_bytes or 0) / w), 1, 5) * w + x + y
        case "sglang":  # six copies of everything, the activation before and after quantisation
            return 6 * (w + 2 * x + y)
        case "vllm":  # six copies of the weights
            return 6 * w + x + y
    return None


KERNELS = (
    ("trtllm:torch_flow", "cublas"),
    ("trtllm:trt_flow*weight_only*", "trtllm_weight_only"),
    ("trtllm:trt_flow*smooth_quant*", "trtllm_smooth_quant"),
    ("*deepgemm*", "deepgemm"),
    ("*cutedsl*", "cutedsl"),
    ("sglang:sglang_sgl_kernel_fp8*", "cutlass"),
)
BATCHED = (("trtllm:*", "trtllm"), ("*torch_bmm*", "cublas"), ("sglang:*fp8*", "sgl_kernel"))


def _format(group) -> str:
    return ours(group["dtype"])


TABLES = {
    "gemm": Table("gemm", ("dtype", "m", "n", "k"), "gemm", _format, _call, "tiles", KERNELS),
    "bmm": Table("bmm", ("dtype", "bmm", "m", "n", "k"), "bmm", _format, _call, "tiles", BATCHED),
}
