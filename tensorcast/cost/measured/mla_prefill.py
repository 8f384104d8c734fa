"""mla_prefill: dtype, batch, q_len, kv_len, heads; kv_dtype, kv_lora, rope_dim, qk_nope and v_dim where they differ
from a 16-bit cache of 512 + 64 and heads of 128 + 64 and 128. Keys and values are expanded: an attention of wide keys.
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
)
from tensorcast.cost.tables import ours, sizes
from tensorcast.ops.base import Work, item_bytes

WIDTHS = {"kv_lora": 512, "rope_dim": 64, "qk_nope": 128, "v_dim": 128}
KERNELS = (
    ("trtllm:*", "trtllm"),
    ("sglang:trtllm_mla", "trtllm_gen"),
    ("sglang:flash_attention", "fa3_sglang"),
    ("vllm:*flash_attn_mla", "fa3"),
    ("vllm:*flashmla", "flashmla"),
    ("vllm:*triton*", "triton"),
)


def _widths(frame):
    return [
        sizes(frame, name)[0] if name in frame.columns else np.full(len(frame), float(width))
        for name, width in WIDTHS.items()
    ]


def _call(frame, group, hw) -> Call:
    b, q, kv, heads = sizes(frame, "batch", "q_len", "kv_len", "heads")
    rank, rope, nope, v = _widths(frame)
    cache, math = item_bytes(cache_format(group)), ours(group["dtype"])
    k = nope + rope
    tokens = 2 * b * heads * (k + v)  # of one token, 16 bits: queries and result, keys and values
    work = Work(
        matrix_flops=2 * b * heads * (k + v) * windowed_pairs(q, kv, np.zeros_like(q)),
        read_bytes=2 * b * heads * q * k + tokens * kv,
        write_bytes=2 * b * heads * q * v,
    )
    shape = {"b": b, "q": q, "kv": kv, "heads": heads, "kv_heads": heads, "d": k, "dv": v}
    shape |= {"causal": True, "window": 0, "chunk": 0, "topk": 0, "cast": cache < item_bytes(math)}
    shape |= {"eager": eager(group) or group.get("backend") == "vllm"}
    written = 0.0
    if group.get("backend"):
        written = b * q * (rank + rope) * (2 + cache)
        shape |= {"cache_bytes": written, "cache_row": rank + rope, "cache_heads": 1}
    return Call(work, shape, math=math, loop_bytes=reread_bytes(group, work.read_bytes + work.write_bytes + written))


_COLUMNS = ("dtype", "batch", "q_len", "kv_len", "heads")
TABLES = {
    "mla_prefill": AttentionTable("mla_prefill", _COLUMNS, "mla_prefill", cache_format, _call, "flash", KERNELS),
}
