"""attention_decode: dtype, batch, kv_len, heads, kv_heads, head_dim; q_len, kv_dtype and window (0 = none) where they
differ from 1, dtype and 0. `kv_len` counts the new tokens.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.measured.attention import (
    AttentionTable,
    cache_format,
    eager,
    reread_bytes,
    windowed_pairs,
    writes_cache,
)
from tensorcast.cost.tables import ours, sizes
from tensorcast.ops.base import Work, item_bytes

KERNELS = (
    ("vllm:*trtllmdecode", "trtllm_gen"),
    ("vllm:*flash_attn_fa3", "fa3"),
    ("vllm:*flash_attn_fa4", "fa4"),
    ("vllm:*flash_attn", "fa2"),
    ("vllm:*triton*", "triton"),
    ("trtllm:*flashinfer", "trtllm_flashinfer"),
    ("trtllm:*", "trtllm"),
)


def column(frame, name: str, default: float) -> np.ndarray:
    """A column as floats, or its default where the table lacks it."""
    return sizes(frame, name)[0] if name in frame.columns else np.full(len(frame), float(default))


def _call(frame, group, hw) -> Call:
    b, kv, heads, kv_heads, d = sizes(frame, "batch", "kv_len", "heads", "kv_heads", "head_dim")
    q, window = np.minimum(column(frame, "q_len", 1), kv), column(frame, "window", 0)
    keys = np.where(window > 0, np.minimum(kv, window + q - 1), kv)
    io = 4 * b * heads * q * d  # of the queries and of the result, 16 bits
    cache = 2 * b * kv_heads * keys * d * item_bytes(cache_format(group))
    work = Work(
        matrix_flops=4 * b * heads * d * windowed_pairs(q, kv, window), read_bytes=io / 2 + cache, write_bytes=io / 2
    )
    shape = {"b": b, "q": q, "kv": kv, "heads": heads, "kv_heads": kv_heads, "d": d, "dv": d}
    shape |= {"keys": keys, "topk": 0, "cache": cache, "io": io}
    # The tables of NPUs name no backend; their loops wrote over the cache between calls.
    flushed = hw.kind == "npu" and not group.get("backend")
    shape |= {"appended": writes_cache(group), "eager": eager(group), "flushed": flushed}
    return Call(work, shape, math=ours(group["dtype"]), loop_bytes=reread_bytes(group, cache))


_COLUMNS = ("dtype", "batch", "kv_len", "heads", "kv_heads", "head_dim")
TABLES = {
    "attention_decode": AttentionTable(
        "attention_decode", _COLUMNS, "attention_decode", cache_format, _call, "splitkv", KERNELS
    ),
}
