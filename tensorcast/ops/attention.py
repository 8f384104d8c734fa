"""Fused attention in its several forms, the KV cache, and the indexer of sparse attention.

FLOP and bytes count the (query, key) pairs that a kernel computes: causality, windows, chunks and top-k selection are
attributes here, never shapes, because they clamp.
"""

from __future__ import annotations

import numpy as np

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator


def attended_pairs(q, kv, causal=True, window=0, chunk=0, topk=0, shards=1):
    """(query, key) pairs of one sequence: `q` new tokens at the end of `kv` tokens.

    `window`: each query sees that many latest keys, itself included; not causal: as many ahead, too. `chunk`: keys of
    its own chunk only.
    `topk`: at most that many keys. 0 switches each off. Not causal: every query sees every key of its window.
    `shards`: keys are dealt out to so many ranks one by one, and the pairs are those of the rank that has most.
    """
    q, kv = np.asarray(q, dtype=float), np.asarray(kv, dtype=float)
    if not causal and shards > 1:
        return q * np.ceil((np.minimum(kv, window) if window else kv) / shards)
    if not causal:
        ahead = _clipped_sum(q - 1, window - 1) if window > 1 else 0 * q
        return _clipped_sum(kv, window) - _clipped_sum(kv - q, window) + ahead if window else q * kv
    limit = min((x for x in (window, topk) if x), default=0)
    if chunk:
        return _chunk_sum(kv, chunk, limit, shards) - _chunk_sum(kv - q, chunk, limit, shards)
    return _clipped_sum(kv, limit, shards) - _clipped_sum(kv - q, limit, shards)


def _clipped_sum(n, limit, shards=1):
    """Σ ⌈min(i, limit) / shards⌉ for i = 1 … n; limit 0 = none."""
    if not limit:
        return _ceil_sum(n, shards)
    low = np.minimum(n, limit)
    return _ceil_sum(low, shards) + (n - low) * np.ceil(limit / shards)


def _ceil_sum(n, shards):
    """Σ ⌈i / shards⌉ for i = 1 … n."""
    if shards == 1:
        return n * (n + 1) / 2
    rounds = np.floor(n / shards)
    return (rounds + 1) * (n - rounds * shards / 2)


def _chunk_sum(n, chunk, limit, shards):
    full = np.floor(n / chunk)
    return full * _clipped_sum(np.float64(chunk), limit, shards) + _clipped_sum(n - full * chunk, limit, shards)


def visible_keys(q, kv, causal=True, window=0, chunk=0, topk=0, shards=1):
    """Keys of one sequence that at least one of its `q` queries reads (an upper bound for top-k selection).

    `shards`: of the rank that has most of them, where they are dealt out to so many.
    """
    q, kv = np.asarray(q, dtype=float), np.asarray(kv, dtype=float)
    if not causal:
        chunk, topk = 0, 0
    first = np.zeros_like(kv - q)  # position of the first key that the first query sees
    if window:
        first = np.maximum(first, kv - q - window + 1)
    if chunk:
        first = np.maximum(first, np.floor((kv - q) / chunk) * chunk)
    seen = kv - first
    seen = np.minimum(seen, topk * q) if topk else seen
    return np.ceil(seen / shards) if shards > 1 else seen


@operator(
    "attention(Tensor q, Tensor k, Tensor v, bool causal, int window, int chunk, int topk, str kv_format, str math,"
    " str phase, str kernel, int shards=1) -> Tensor",
    family="attention",
)
class Attention:
    """Fused softmax(q·kᵀ)·v without the score matrix in memory: q [b, heads, s, d], k and v [b, kv_heads, kv, d].

    `shards`: this rank has one in so many of the keys and values; k and v stand for all of them.
    """

    def meta(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel, shards=1):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]))

    def dims(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel, shards=1):
        return {
            "b": q.shape[0],
            "q": q.shape[2],
            "kv": k.shape[2],
            "heads": q.shape[1],
            "kv_heads": k.shape[1],
            "d": q.shape[3],
            "dv": v.shape[3],
            "attrs": {"out_format": dtype_name(q)},
        }

    def work(d, a):
        return _attention_work(d, a, kv_elements=d["kv_heads"] * (d["d"] + d["dv"]))


@operator(
    "biased_attention(Tensor q, Tensor k, Tensor v, Tensor bias, bool causal, int window, int chunk, int topk,"
    " str kv_format, str math, str phase, str kernel) -> Tensor",
    family="attention",
)
class BiasedAttention:
    """attention with a term [1 or b, heads, s, kv] that is read and added to the scores: relative positions."""

    def meta(q, k, v, *_):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]))

    def dims(q, k, v, bias, causal, window, chunk, topk, kv_format, math, phase, kernel):
        plain = Attention.dims(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel)
        return plain | {"bias": bias.numel() * bias.element_size()}

    def work(d, a):
        rule = (a["causal"], a["window"], a["chunk"], a["topk"])
        added = d["b"] * d["heads"] * attended_pairs(d["q"], d["kv"], *rule)
        return Attention.work(d, a) + Work(vector_flops=added, read_bytes=d["bias"])


@operator(
    "joined_attention(Tensor q, Tensor k, Tensor v, int ahead, bool causal, int window, int chunk, int topk,"
    " str kv_format, str math, str phase, str kernel) -> Tensor",
    family="attention",
)
class JoinedAttention:
    """attention in which tokens of an image see those behind them, too: `ahead` more pairs a sequence and head."""

    def meta(q, k, v, *_):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]))

    def dims(q, k, v, ahead, causal, window, chunk, topk, kv_format, math, phase, kernel):
        return Attention.dims(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel)

    def work(d, a):
        pairs = d["b"] * d["heads"] * a["ahead"]
        return Attention.work(d, a) + Work(matrix_flops=2 * pairs * (d["d"] + d["dv"]), vector_flops=5 * pairs)


@operator(
    "paged_attention(Tensor q, Tensor k, Tensor v, bool causal, int window, int chunk, int topk, str kv_format,"
    " str math, str phase, str kernel, int block, int shards=1) -> Tensor",
    family="attention",
)
class PagedAttention:
    """attention over keys and values that lie in blocks of `block` tokens: whole blocks are read, and their numbers."""

    def meta(q, k, v, *_):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]))

    def dims(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel, block, shards=1):
        return Attention.dims(q, k, v, causal, window, chunk, topk, kv_format, math, phase, kernel)

    def work(d, a):
        seen = visible_keys(d["q"], d["kv"], a["causal"], a["window"], a["chunk"], a["topk"], a.get("shards", 1))
        blocks = np.ceil(seen / a["block"])
        token = d["kv_heads"] * (d["d"] + d["dv"]) * item_bytes(a["kv_format"])
        return Attention.work(d, a) + Work(read_bytes=d["b"] * ((blocks * a["block"] - seen) * token + 4 * blocks))


@operator(
    "block_sparse_attention(Tensor q, Tensor k, Tensor v, str kv_format, str math, int block, int kept) -> Tensor",
    family="attention",
)
class BlockSparseAttention:
    """Attention in which every block of `block` queries sees `kept` blocks of keys, some other ones each.

    `kv` counts the keys that one query sees, `keys` all there are: every one is seen by some query.
    """

    def meta(q, k, v, *_):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], v.shape[-1]))

    def dims(q, k, v, kv_format, math, block, kept):
        sizes = Attention.dims(q, k, v, False, 0, 0, 0, kv_format, math, "prefill", "")
        rule = {"causal": False, "window": 0, "chunk": 0, "topk": 0, "phase": "prefill", "kernel": "flash"}
        seen, keys = min(kept * block, k.shape[2]), k.shape[2]
        return {**sizes, "kv": seen, "keys": keys, "attrs": {**sizes["attrs"], **rule}}

    def work(d, a):
        unseen = d["b"] * (d["keys"] - d["kv"]) * d["kv_heads"] * (d["d"] + d["dv"]) * item_bytes(a["kv_format"])
        blocks = np.ceil(d["q"] / a["block"]) * a["kept"]  # their numbers, one list a head
        return Attention.work(d, a) + Work(read_bytes=unseen + 4 * d["b"] * d["heads"] * blocks)


@operator(
    "mla_attention(Tensor q, Tensor q_rope, Tensor latent, Tensor rope, bool causal, int window, int topk,"
    " str kv_format, str math, str phase, str kernel, int shards=1) -> Tensor",
    family="mla",
)
class MlaAttention:
    """Absorbed multi-head latent attention: every head reads the one latent [b, 1, kv, rank] and rope key.

    Queries come in the same two parts, [b, heads, s, rank] and their rotated part; the latents are the values too.
    `shards` as in attention.
    """

    def meta(q, q_rope, latent, rope, causal, window, topk, kv_format, math, phase, kernel, shards=1):
        return q.new_empty((q.shape[0], q.shape[1], q.shape[2], latent.shape[-1]))

    def dims(q, q_rope, latent, rope, causal, window, topk, kv_format, math, phase, kernel, shards=1):
        rank = latent.shape[-1]
        return {
            "b": q.shape[0],
            "q": q.shape[2],
            "kv": latent.shape[2],
            "heads": q.shape[1],
            "kv_heads": 1,
            "d": rank + rope.shape[-1],
            "dv": rank,
            "attrs": {"out_format": dtype_name(q), "chunk": 0},
        }

    def work(d, a):
        return _attention_work(d, a, kv_elements=d["d"])  # the values are part of the keys


def _attention_work(d, a, kv_elements):
    rule = (a["causal"], a["window"], a["chunk"], a["topk"], a.get("shards", 1))
    pairs = d["b"] * d["heads"] * attended_pairs(d["q"], d["kv"], *rule)
    out = item_bytes(a["out_format"])
    queries = d["b"] * d["heads"] * d["q"]
    return Work(
        matrix_flops=2 * pairs * (d["d"] + d["dv"]),
        vector_flops=5 * pairs,  # scale, running maximum, subtract, exponential, sum
        read_bytes=queries * d["d"] * out
        + d["b"] * visible_keys(d["q"], d["kv"], *rule) * kv_elements * item_bytes(a["kv_format"]),
        write_bytes=queries * d["dv"] * out,
    )


@operator(
    "kv_append(Tensor k, Tensor v, int past, str kv_format, int window, int shards=1) -> (Tensor, Tensor)",
    family="copy",
)
class KvAppend:
    """Write new keys and values [b, heads, s, d] into the cache; the results stand for the cache, past included.

    `shards`: of every sequence, this rank keeps one token in so many.
    """

    def meta(k, v, past, kv_format, window, shards=1):
        def grown(t):
            return t.new_empty((*t.shape[:-2], past + t.shape[-2], t.shape[-1]))

        return grown(k), grown(v)

    def dims(k, v, past, kv_format, window, shards=1):  # past: no attribute, see Operator.describe
        sizes = {"elements": k.numel() + v.numel(), "past": past, "attrs": {"in_format": dtype_name(k)}}
        return sizes | ({"tokens": k.shape[-2]} if shards > 1 else {})

    def work(d, a):
        elements = d["elements"]
        if a.get("shards", 1) > 1:
            elements = elements / d["tokens"] * np.ceil(d["tokens"] / a["shards"])
        return Work(
            vector_flops=elements * (a["in_format"] != a["kv_format"]),
            read_bytes=elements * item_bytes(a["in_format"]),
            write_bytes=elements * item_bytes(a["kv_format"]),
        )


@operator("index_append(Tensor k, int past, str kv_format) -> Tensor", family="copy")
class IndexAppend:
    """Write the new keys [b, s, d] of a sparse-attention indexer into its cache."""

    def meta(k, past, kv_format):
        return k.new_empty((*k.shape[:-2], past + k.shape[-2], k.shape[-1]))

    def dims(k, past, kv_format):
        return {"elements": k.numel(), "past": past, "attrs": {"in_format": dtype_name(k)}}

    work = KvAppend.work


@operator(
    "index_scores(Tensor q, Tensor weights, Tensor k, int picks, str kv_format, str math) -> Tensor", family="attention"
)
class IndexScores:
    """Scores of a sparse-attention indexer and their top-k: q [b, s, heads, d] against k [b, kv, d], one weight a head.

    Every key is scored, of which each query picks `picks`. The scores [b, s, kv] stay in memory as fp32 (they are the
    workspace) and are read once for the selection.
    """

    def meta(q, weights, k, picks, kv_format, math):
        return q.new_empty((q.shape[0], q.shape[1], picks), dtype=_int32(q))

    def dims(q, weights, k, picks, kv_format, math):
        return {
            "b": q.shape[0],
            "q": q.shape[1],
            "heads": q.shape[2],
            "d": q.shape[3],
            "kv": k.shape[1],
            "attrs": {"in_format": dtype_name(q), "phase": "prefill", "kernel": "flash"},
        }

    def work(d, a):
        pairs = d["b"] * attended_pairs(d["q"], d["kv"])
        scores = 4 * d["b"] * d["q"] * d["kv"]
        return Work(
            matrix_flops=2 * pairs * d["heads"] * d["d"],
            vector_flops=3 * pairs * d["heads"] + 2 * pairs,
            read_bytes=d["b"] * d["q"] * d["heads"] * d["d"] * item_bytes(a["in_format"])
            + d["b"] * d["kv"] * d["d"] * item_bytes(a["kv_format"])
            + scores,
            write_bytes=scores + 4 * d["b"] * d["q"] * np.minimum(d["kv"], a["picks"]),
            workspace_bytes=scores,
        )


def _int32(tensor):
    """torch.int32 without importing torch: the dtype object lives beside the tensor's own."""
    import sys

    return sys.modules[type(tensor.dtype).__module__].int32


@operator(
    "block_scores(Tensor q, Tensor k, int block, int blocks, str kv_format, str math) -> Tensor", family="attention"
)
class BlockScores:
    """Largest score in every block of keys, and the best `blocks` blocks of each query and head.

    q [b, heads, s, d], k [b, 1, kv, d] → block numbers [b, heads, s, blocks]. Scores stay on chip; those of blocks are
    written as fp32 (they are the workspace) and read once for the selection.
    """

    def meta(q, k, block, blocks, kv_format, math):
        return q.new_empty((*q.shape[:3], blocks), dtype=_int32(q))

    def dims(q, k, block, blocks, kv_format, math):
        sizes = {"b": q.shape[0], "heads": q.shape[1], "q": q.shape[2], "d": q.shape[3], "kv": k.shape[2]}
        return sizes | {"attrs": {"in_format": dtype_name(q), "phase": "prefill", "kernel": "flash"}}

    def work(d, a):
        pairs = d["b"] * d["heads"] * attended_pairs(d["q"], d["kv"])
        rows, count = d["b"] * d["heads"] * d["q"], np.ceil(d["kv"] / a["block"])
        scores = 4 * rows * count
        return Work(
            matrix_flops=2 * pairs * d["d"],
            vector_flops=pairs + rows * count,
            read_bytes=rows * d["d"] * item_bytes(a["in_format"])
            + d["b"] * d["kv"] * d["d"] * item_bytes(a["kv_format"])
            + scores,
            write_bytes=scores + 4 * rows * np.minimum(count, a["blocks"]),
            workspace_bytes=scores,
        )
