"""mla_decode: dtype, batch, kv_len, heads (of this rank); q_len, kv_dtype, kv_lora and rope_dim where they differ from
1, dtype, 512 and 64. Absorbed attention: every head reads the one latent of a token; the values are part of it.
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
from tensorcast.cost.measured.decode import column
from tensorcast.cost.measured.mla_prefill import KERNELS
from tensorcast.cost.tables import ours, sizes
from tensorcast.ops.base import Work, item_bytes


def _call(frame, group, hw) -> Call:
    b, kv, heads = sizes(frame, "batch", "kv_len", "heads")
    q, rank, rope = (
        column(frame, name, default) for name, default in (("q_len", 1), ("kv_lora", 512), ("rope_dim", 64))
    )
    q = np.minimum(q, kv)
    cache = b * kv * (rank + rope) * item_bytes(cache_format(group))
    queries, results = 2 * b * heads * q * (rank + rope), 2 * b * heads * q * rank  # 16 bits
    work = Work(
        matrix_flops=2 * b * heads * (2 * rank + rope) * windowed_pairs(q, kv, np.zeros_like(q)),
        read_bytes=queries + cache,
        write_bytes=results,
    )
    shape = {"b": b, "q": q, "kv": kv, "heads": heads, "kv_heads": 1, "d": rank + rope, "dv": rank}
    shape |= {"keys": kv, "topk": 0, "cache": cache, "io": queries + results}
    shape |= {"appended": writes_cache(group), "eager": eager(group) or group.get("backend") == "vllm"}
    return Call(work, shape, math=ours(group["dtype"]), loop_bytes=reread_bytes(group, cache))


_COLUMNS = ("dtype", "batch", "kv_len", "heads")
TABLES = {
    "mla_decode": AttentionTable("mla_decode", _COLUMNS, "mla_decode", cache_format, _call, "splitkv", KERNELS),
}
