"""Attention over a compressed cache: the latest tokens as they are, older ones as one entry for every `rate` of them.

A query at position p (from 0) sees the last `window` tokens, itself included, and the ⌊(p + 1) / rate⌋ entries whose
tokens have all been seen; with `topk` at most that many of them, chosen for every query. Keys are their own values: one
vector a token, shared by all heads. `rate` 0: no entries. Sizes are stated in tokens, where they are polynomials of the
workload; how many keys a kernel meets is worked out from them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorcast.ops.attention import attended_pairs, visible_keys
from tensorcast.ops.base import OPERATORS, Operator, Part, Parts, Work, dtype_name, item_bytes, operator


def entry_pairs(q, kv, rate, topk=0):
    """(query, entry) pairs of one sequence: Σ min(⌊t / rate⌋, topk) over the last `q` of the tokens t = 1 … kv."""
    q, kv = np.asarray(q, dtype=float), np.asarray(kv, dtype=float)
    if not rate:
        return 0.0 * (q + kv)
    return _staircase(kv, rate, topk) - _staircase(kv - q, rate, topk)


def _staircase(n, rate, topk):
    """Σ min(⌊t / rate⌋, topk), t = 1 … n; topk 0 = no limit."""
    rising = np.minimum(n, topk * rate - 1) if topk else n
    full = np.floor(rising / rate)
    below = rate * full * (full - 1) / 2 + full * (rising - rate * full + 1)
    return below + (n - rising) * topk


def visible_entries(q, kv, rate, topk=0):
    """Entries of one sequence that at least one of its `q` queries reads (an upper bound for top-k selection)."""
    q, kv = np.asarray(q, dtype=float), np.asarray(kv, dtype=float)
    seen = np.floor(kv / rate) if rate else 0.0 * kv
    return np.minimum(seen, topk * q) if topk else seen + 0.0 * q


@operator("compress_tokens(Tensor kv, Tensor gate, int width, int rate, str kv_format) -> Tensor", family="elementwise")
class CompressTokens:
    """One entry [width] for every `rate` tokens: the mean of kv weighted by softmax(gate + bias), element by element.

    kv and gate are [b, s, series · width]; with two series every token weighs in on two entries. Norm and rotation of
    the entries are inside. Tokens of an entry that is not complete wait in a buffer, at most `rate` of them: written
    once, read once. Of a step with fewer tokens this is the mean over steps. The result holds nothing.
    """

    def meta(kv, gate, width, rate, kv_format):
        return kv.new_empty((kv.shape[0], 0))

    def dims(kv, gate, width, rate, kv_format):
        return {"b": kv.shape[0], "s": kv.shape[1], "channels": kv.shape[2], "attrs": {"format": dtype_name(kv)}}

    def work(d, a):
        size, elements = item_bytes(a["format"]), d["b"] * d["s"] * d["channels"]
        waiting = 2 * d["b"] * np.minimum(d["s"], a["rate"]) * d["channels"] * size  # of kv and of gate
        entries = d["b"] * d["s"] / a["rate"] * a["width"]
        bias = a["rate"] * d["channels"] * 4
        return Work(
            vector_flops=11 * elements + 7 * entries,  # bias 1, softmax 8, weighting 2; norm 4, rotation 3
            read_bytes=2 * elements * size + waiting + bias,
            write_bytes=entries * item_bytes(a["kv_format"]) + waiting,
        )


@operator(
    "compressed_attention(Tensor q, Tensor kv, int window, int rate, int topk, str kv_format, str math, str phase)"
    " -> Tensor",
    family="composed",
)
class CompressedAttention:
    """Attention with a sink a head: q [b, heads, s, d] over `window` of the tokens kv [b, 1, tokens, d] and entries."""

    def meta(q, kv, window, rate, topk, kv_format, math, phase):
        return q.new_empty((q.shape[0], q.shape[2], q.shape[1], q.shape[3]))

    def dims(q, kv, window, rate, topk, kv_format, math, phase):
        b, heads, s, d = q.shape
        return {"b": b, "q": s, "kv": kv.shape[2], "heads": heads, "d": d, "attrs": {"out_format": dtype_name(q)}}

    def parts(d, a):
        return Parts((_one_kernel("chosen_attention", {**d, "kv_heads": 1, "dv": d["d"]}, a, _attention_pairs(d, a)),))


@operator(
    "compressed_scores(Tensor q, Tensor weights, int kv, int rate, int topk, str kv_format, str math) -> Tensor",
    family="composed",
)
class CompressedScores:
    """Scores of an indexer and their top-k: q [b, s, heads, d] against the entries of `kv` tokens."""

    def meta(q, weights, kv, rate, topk, kv_format, math):
        return q.new_empty((q.shape[0], 0))

    def dims(q, weights, kv, rate, topk, kv_format, math):
        b, s, heads, d = q.shape
        attrs = {"in_format": dtype_name(q), "phase": "prefill", "kernel": "flash"}
        return {"b": b, "q": s, "kv": kv, "heads": heads, "d": d, "attrs": attrs}

    def parts(d, a):
        return Parts((_one_kernel("entry_scores", d, a, d["b"] * entry_pairs(d["q"], d["kv"], a["rate"])),))


def _attention_pairs(d, a):
    """(query, key) pairs of one head: window and entries."""
    return d["b"] * (
        attended_pairs(d["q"], d["kv"], True, a["window"]) + entry_pairs(d["q"], d["kv"], a["rate"], a["topk"])
    )


def _one_kernel(op: str, d, a, pairs) -> Part:
    """The kernel: every query has keys of its own, as many as queries have in the mean."""
    keys = np.maximum(1.0, pairs / (d["b"] * d["q"]))
    limits = {name: a.get(name, 0) for name in ("window", "rate", "topk")}
    return Part(op, d, {**a, "limits": limits, "causal": True, "window": 0, "chunk": 0, "topk": keys})


def _attention_work(d, a) -> Work:
    rule: Mapping[str, int] = a["limits"]
    pairs, out = d["heads"] * _attention_pairs(d, rule), item_bytes(a["out_format"])
    queries = d["b"] * d["heads"] * d["q"] * d["d"] * out
    seen = visible_keys(d["q"], d["kv"], True, rule["window"])
    seen = seen + visible_entries(d["q"], d["kv"], rule["rate"], rule["topk"])
    return Work(
        matrix_flops=4 * pairs * d["d"],
        vector_flops=5 * pairs,
        read_bytes=queries + d["b"] * seen * d["d"] * item_bytes(a["kv_format"]),
        write_bytes=queries,
    )


def _scores_work(d, a) -> Work:
    rule: Mapping[str, int] = a["limits"]
    pairs = d["b"] * entry_pairs(d["q"], d["kv"], rule["rate"])
    entries = visible_entries(d["q"], d["kv"], rule["rate"])
    scores = 4 * d["b"] * d["q"] * entries
    return Work(
        matrix_flops=2 * pairs * d["heads"] * d["d"],
        vector_flops=3 * pairs * d["heads"] + 2 * pairs,
        read_bytes=d["b"] * d["q"] * d["heads"] * d["d"] * item_bytes(a["in_format"])
        + d["b"] * entries * d["d"] * item_bytes(a["kv_format"])
        + scores,
        write_bytes=scores + 4 * d["b"] * d["q"] * np.minimum(entries, rule["topk"]),
        workspace_bytes=scores,
    )


# What the operators above run: the same figures, the keys of a query counted in the mean.
for _name, _family, _work in (
    ("chosen_attention", "mla", _attention_work),
    ("entry_scores", "attention", _scores_work),
):
    OPERATORS.register(_name, Operator(_name, f"{_name}(…)", _family, None, lambda **_: {}, _work, "part of a kernel"))


@operator(
    "hyper_collapse(Tensor streams, Tensor mix, int iterations) -> (Tensor, Tensor, Tensor)", family="elementwise"
)
class HyperCollapse:
    """Hyper-connections in front of a block: streams [b, s, n, hidden] to one, weighted by mix [b, s, n · (n + 2)].

    Two of its parts are sigmoids, the third a softmax [n, n] whose rows and columns are divided by their sums in turn,
    `iterations` times. Results: weights behind the block [b, s, n] and mixing [b, s, n, n], both fp32, and one stream
    [b, s, hidden].
    """

    def meta(streams, mix, iterations):
        b, s, n, hidden = streams.shape
        return mix.new_empty((b, s, n)), mix.new_empty((b, s, n, n)), streams.new_empty((b, s, hidden))

    def dims(streams, mix, iterations):
        b, s, n, hidden = streams.shape
        return {"tokens": b * s, "hidden": hidden, "streams": n, "attrs": {"format": dtype_name(streams)}}

    def work(d, a):
        n, size = d["streams"], item_bytes(a["format"])
        weights = n * (n + 2)
        flops = 8 * weights + (2 * a["iterations"] - 1) * 2 * n * n
        return Work(
            vector_flops=d["tokens"] * (2 * n * d["hidden"] + flops),
            read_bytes=d["tokens"] * (n * d["hidden"] * size + 4 * weights),
            write_bytes=d["tokens"] * (d["hidden"] * size + 4 * (n + n * n)),
        )


@operator("hyper_expand(Tensor streams, Tensor y, Tensor post, Tensor comb) -> Tensor", family="elementwise")
class HyperExpand:
    """Hyper-connections behind a block: combᵀ · streams + post · y, streams [b, s, n, hidden], y [b, s, hidden]."""

    def meta(streams, y, post, comb):
        return streams.new_empty(streams.shape)

    def dims(streams, y, post, comb):
        b, s, n, hidden = streams.shape
        return {"tokens": b * s, "hidden": hidden, "streams": n, "attrs": {"format": dtype_name(streams)}}

    def work(d, a):
        n, size = d["streams"], item_bytes(a["format"])
        return Work(
            vector_flops=d["tokens"] * d["hidden"] * 2 * n * (n + 1),
            read_bytes=d["tokens"] * ((n + 1) * d["hidden"] * size + 4 * (n + n * n)),
            write_bytes=d["tokens"] * n * d["hidden"] * size,
        )
