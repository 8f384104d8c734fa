"""attention_prefill: dtype, kv_dtype, batch, q_len, kv_len, heads, kv_heads, head_dim, window (0 = none).
attention_encoder: dtype, batch, seq, heads, head_dim; every query sees every key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.tables import Table, ours, sizes
from tensorcast.ops.base import Work, item_bytes

KERNELS = (
    ("vllm:*flash_attn_fa3", "fa3"),
    ("vllm:*trtllmprefill", "trtllm_gen"),
    ("vllm:*flash_attn", "fa2"),
    ("vllm:*flash_attn_fa4", "fa4"),
    ("vllm:*trtllmdecode", "trtllm_gen_decode"),
    ("vllm:*triton*", "triton"),
    ("sglang:*_v3", "fa3_sglang"),
    ("sglang:*_v4", "fa4_sglang"),
    ("trtllm:*flashinfer", "trtllm_flashinfer"),
    ("trtllm:*", "trtllm"),
)
NARROW = "_fp8"  # added to the name of a kernel that multiplies in fp8


@dataclass(frozen=True)
class AttentionTable(Table):
    """A table whose kernels multiply in 16 bits or in fp8, whatever the format of the cache."""

    def kernel(self, group):
        name = super().kernel(group)
        return name + NARROW if name and ours(group.get("dtype", "")) == "fp8" else name


def cache_format(group) -> str:
    """The format that coefficients are kept under: that of the keys and values; both 16-bit formats are one."""
    fmt = ours(group.get("kv_dtype") or group["dtype"])
    return "bf16" if fmt == "fp16" else fmt


def reread_bytes(group, nbytes):
    """Bytes a benchmark loop touches before it reads its operands again; None where the cache is cold."""
    return nbytes if group.get("backend") or group.get("cache_state") == "warm_L2" else None


def writes_cache(group) -> bool:
    """Whether the rows time the writing of the cache too: engines' do, torch's own function has no cache."""
    return group.get("backend") not in (None, "", "torch")


def eager(group) -> bool:
    """Whether the host launched the kernels one by one, instead of replaying a captured graph."""
    return "eager" in group.get("phase", "")


def windowed_pairs(q, kv, window):
    """(query, key) pairs of one causal sequence; `window` 0 = none, one value a row."""
    limit = np.where(window > 0, window, kv)

    def up_to(n):
        low = np.minimum(n, limit)
        return low * (low + 1) / 2 + (n - low) * limit

    return up_to(kv) - up_to(kv - q)


def _prefill(frame, group, hw) -> Call:
    names = ("batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
    b, q, kv, heads, kv_heads, d = sizes(frame, *names)
    window = sizes(frame, "window")[0] if "window" in frame.columns else np.zeros_like(b)
    cache, math = item_bytes(cache_format(group)), ours(group["dtype"])
    first = np.where(window > 0, np.maximum(kv - q - window + 1, 0), 0)
    tokens = 2 * b * heads * q * d  # of the queries and of the result, 16 bits
    work = Work(
        matrix_flops=4 * b * heads * d * windowed_pairs(q, kv, window),
        read_bytes=tokens + 2 * b * kv_heads * (kv - first) * d * cache,
        write_bytes=tokens,
    )
    shape = {"b": b, "q": q, "kv": kv, "heads": heads, "kv_heads": kv_heads, "d": d, "dv": d}
    shape |= {"causal": True, "window": window, "chunk": 0, "topk": 0, "cast": cache < item_bytes(math)}
    shape |= {"eager": eager(group)}
    written = 0.0
    if writes_cache(group):
        written = 2 * b * kv_heads * q * d * (2 + cache)
        shape |= {"cache_bytes": written, "cache_row": kv_heads * d, "cache_heads": kv_heads}
    return Call(work, shape, math=math, loop_bytes=reread_bytes(group, work.read_bytes + work.write_bytes + written))


def _encoder(frame, group, hw) -> Call:
    b, s, heads, d = sizes(frame, "batch", "seq", "heads", "head_dim")
    tokens = 2 * b * heads * s * d
    work = Work(matrix_flops=4 * b * heads * d * s * s, read_bytes=3 * tokens, write_bytes=tokens)
    shape = {"b": b, "q": s, "kv": s, "heads": heads, "kv_heads": heads, "d": d, "dv": d}
    shape |= {"causal": False, "window": 0, "chunk": 0, "topk": 0, "cast": False, "eager": eager(group)}
    return Call(work, shape, math=ours(group["dtype"]), loop_bytes=reread_bytes(group, 4 * tokens))


_PREFILL = ("dtype", "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")
_ENCODER = ("dtype", "batch", "seq", "heads", "head_dim")


def _table(name: str, columns, call) -> AttentionTable:
    return AttentionTable(name, columns, name, cache_format, call, "flash", KERNELS)


TABLES = {
    "attention_prefill": _table("attention_prefill", _PREFILL, _prefill),
    "attention_encoder": _table("attention_encoder", _ENCODER, _encoder),
}
