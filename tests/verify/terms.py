"""What transformers' own code multiplies where it does not run what a machine runs: an exact term for each operator.

The counter sees the stock code, ours a production kernel of the same operator. For the operators below the two differ
in ways that follow from shapes alone; everything else has to agree as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from tensorcast.layers.experts import experts_weights
from tensorcast.layers.moe import is_router
from tensorcast.ops import operator_named
from tensorcast.trace.tracer import Call
from tests.verify import stock


@dataclass(frozen=True)
class Term:
    """`theirs(dims, attrs)`: matrix FLOPs of the stock code for one call of an operator. `formula`: the same in words,
    with b sequences, s tokens, n chunks of C tokens, h heads with states [dk, dv]."""

    formula: str
    theirs: Callable[[Mapping, Mapping], float]


def _chunks(d, a) -> int:
    return -(-d["s"] // a["chunk"])


def _ours(op, d, a) -> float:
    return float(operator_named(op).work(d, a).matrix_flops)


def _convolution(d, a):
    tokens = d["elements"] // (d["sequences"] * d["channels"])
    outputs = tokens + a["kernel_size"] - 1 if tokens > 1 else 2  # the state holds `taps` tokens, a new one makes two
    return 2 * d["sequences"] * d["channels"] * outputs * a["kernel_size"]


def _selective_scan(d, a):
    return 2 * d["b"] * d["heads"] * d["dk"] * d["s"]


def _delta_rule(d, a):
    if a["recurrent"]:
        return 0
    c, dk, dv = a["chunk"], d["dk"], d["dv"]
    products = 6 * c * dk * dv + 2 * c * c * (dk + 2 * dv if a["rule"] == "kda" else 2 * dk + dv)
    return d["b"] * d["heads"] * _chunks(d, a) * products


def _mamba2(d, a):
    state = 2 * d["b"] * d["heads"] * d["dk"] * d["dv"]
    if a["recurrent"]:
        return state * d["s"]
    return _ours("mamba2_scan", d, a) + state * (_chunks(d, a) + 1) ** 2


def _decay(d, a):
    heads, s, c, dk, dv = d["b"] * d["heads"], d["s"], a["chunk"], d["dk"], d["dv"]
    whole, rest = (0, s) if a["recurrent"] else divmod(s, c)
    products = whole * (2 * c * c * (dk + dv) + 4 * c * dk * dv)
    if a["recurrent"] or a["sums"]:
        products += rest * 4 * dk * dv
    else:
        products += 2 * rest * rest * (dk + dv) + 4 * rest * dk * dv
    return heads * (products + 2 * s * dk * a["sums"])


def _scores(d, a):
    return 2 * d["b"] * d["q"] * d["kv"] * d["heads"] * (d["d"] + 1)


def _compressed(d, a):
    keys = d["kv"] if d["q"] > 1 else min(d["kv"], a["window"])
    entries = d["kv"] // a["rate"] if a["rate"] else 0
    return 4 * d["b"] * d["heads"] * d["q"] * (keys + entries) * d["d"]


def _compressed_scores(d, a):
    return 2 * d["b"] * d["q"] * (d["kv"] // a["rate"]) * d["heads"] * d["d"]


def _expand(d, a):
    return 2 * d["tokens"] * d["streams"] ** 2 * d["hidden"]


TERMS = {
    "causal_conv1d": Term(
        "a convolution with s + taps - 1 results (a step of decoding: 2, or sums in place of one),"
        " 2·b·channels·taps each; ours is vector work",
        _convolution,
    ),
    "selective_scan": Term(
        "token by token, each state read by a product with C, 2·b·s·channels·state; ours is vector work inside of one"
        " kernel",
        _selective_scan,
    ),
    "gated_delta_rule": Term(
        "without the triangular solve, which is no product there: 2·b·h·n·C²·(dk + dv) less; per-channel decays (KDA)"
        " also make q·kᵀ and k·kᵀ elementwise, 4·b·h·n·C²·dk less; a step of decoding is elementwise",
        _delta_rule,
    ),
    "mamba2_scan": Term(
        "states are passed on by one product over all pairs of chunks, 2·b·h·(n + 1)²·state·dv more; a step of decoding"
        " reads its state by a product, 2·b·h·state·dv",
        _mamba2,
    ),
    "decay_attention": Term(
        "the last chunk as short as it is (with `sums`: token by token, 4·dk·dv each), ours whole; with `sums` also"
        " their product with the queries, 2·b·h·s·dk·sums; a step of decoding by two products, 4·b·h·dk·dv",
        _decay,
    ),
    "index_scores": Term(
        "all pairs, and the weights of the heads as one more column: 2·b·q·kv·heads·(d + 1); ours causal pairs,"
        " 2·pairs·heads·d",
        _scores,
    ),
    "compressed_attention": Term(
        "all pairs with tokens and entries, 4·b·heads·q·(kv + entries)·d; ours window and complete entries",
        _compressed,
    ),
    "compressed_scores": Term(
        "all pairs with entries, 2·b·q·entries·heads·d; ours complete entries", _compressed_scores
    ),
    "hyper_expand": Term(
        "streams mixed by a product, 2·tokens·streams²·hidden; ours is vector work inside of one kernel", _expand
    ),
}  # fmt: skip
EVERY_EXPERT = "every token with every expert where the code is handed no routing; ours the top_k chosen"
ROTARY = "angles of positions as an outer product; ours are read from a table or computed inside of the rotation"


def terms(calls: Iterable[Call], module: nn.Module, counts: Mapping[str, Mapping[str, int]]) -> Counter[str]:
    """Matrix FLOPs that the stock code runs beyond ours, operator by operator; negative where it runs less."""
    found: Counter[str] = Counter()
    convolves = any("convolution" in op for op in counts["Global"])
    for c in calls:
        if c.op in TERMS and (convolves or c.op != "causal_conv1d"):
            theirs, ours = TERMS[c.op].theirs(c.dims, c.attrs), _ours(c.op, c.dims, c.attrs)
            found[c.op] += (theirs - ours) * len(c.layers or [0])
    for path, part in module.named_modules():
        if stock.ROTARY.search(type(part).__name__):
            found["rotary"] += sum(counts.get(path, {}).values())
        elif stock.runs_every_expert(part):
            flops, experts = stock.own_flops(counts, path, part), experts_weights(part)[0].shape[0]
            parent = module.get_submodule(path.rpartition(".")[0])
            top_k = next(m.top_k for m in parent.children() if is_router(m))
            assert flops % experts == 0
            found["moe_experts"] += flops - flops // experts * top_k
    return Counter({name: flops for name, flops in found.items() if flops})
