"""Other ways to run routed experts: one product pair an expert, and the exchange of tokens beside the products.

Sizes and attributes are those of `moe_experts`; routing is uniform, every expert with work has the mean load.
"""

from __future__ import annotations

from tensorcast.ops.base import Part, Parts, dtype_name, item_bytes, operator, pieces
from tensorcast.ops.moe import MoeExperts, active_experts, routed_pairs

_EXPERTS = (
    "Tensor x, Tensor w13, Tensor w2, int top_k, int experts, bool gated, str weight_format, str act_format, str math,"
    " float scale_overhead, bool dequantize, str scheme, int groups, int ep"
)


@operator(f"moe_experts_loop({_EXPERTS}, bool fused) -> Tensor", family="composed")
class MoeExpertsLoop:
    """The routed experts one after the other, each as ordinary products.

    `fused`: tokens are permuted and summed once for all experts, and act(gate)·up is one kernel. Otherwise every expert
    gathers its tokens, runs each operation as a kernel of its own and adds its results to the tokens.
    """

    def meta(x, *_):
        return x.new_empty(x.shape)

    def dims(x, w13, w2, fused, **named):
        dims = MoeExperts.dims(x, w13, w2, **named)
        return {**dims, "attrs": {**dims["attrs"], "format": dtype_name(x)}}

    def parts(d, a):
        pairs = routed_pairs(d["tokens"], a["top_k"], a["groups"], a["ep"])
        active = active_experts(d["tokens"], a["top_k"], a["experts"], a["groups"], a["ep"])
        rows, hidden, inter = pairs / active, d["hidden"], d["inter"]
        width = (2 if a["gated"] else 1) * inter
        size = item_bytes(a["out_format"])

        def moved(op, elements, reads, writes, count):
            return Part(op, {"elements": elements, "read": reads * size, "write": writes * size}, {}, count)

        up = (*_product(a, rows, width, hidden, active), *_activation(a, rows * inter, moved, active))
        down = _product(a, rows, hidden, inter, active)
        if a["fused"]:
            gathered, tokens = pairs * hidden, d["tokens"] * a["groups"] * hidden
            first = moved("aten::index_select", gathered, gathered, gathered, 1)
            return Parts((first, *up, *down, moved("aten::index_add", gathered, gathered, tokens, 1)))
        mine = rows * hidden
        weigh = moved("aten::mul", mine, mine, mine, active)
        add = moved("aten::index_add", mine, 2 * mine, mine, active)  # reads what was added up so far
        return Parts((moved("aten::index_select", mine, mine, mine, active), *up, *down, weigh, add))


def _product(a, m, n, k, count) -> tuple[Part, ...]:
    """The product of one expert, and the quantisation of its input where the scheme has one."""
    names = ("weight_format", "act_format", "math", "dequantize", "scheme", "out_format")
    scales = n * k * item_bytes(a["weight_format"]) * a["scale_overhead"]
    attrs = {**{name: a[name] for name in names}, "scale_bytes": scales, "bias": False}
    linear = Part("linear", {"m": m, "n": n, "k": k}, attrs, count)
    if a["act_format"] == a["out_format"]:
        return (linear,)
    how = {"to_format": a["act_format"], "in_format": a["out_format"], "group": 0, "dynamic": True}
    how |= {"math": a["math"], "scheme": a["scheme"], "weight_format": a["weight_format"]}
    return Part("quantize", {"rows": m, "columns": k}, how, count), linear


def _activation(a, elements, moved, count) -> tuple[Part, ...]:
    """act(gate)·up, or act(up) where there is no gate."""
    if a["fused"] and a["gated"]:
        return (Part("swiglu", {"elements": elements}, {"format": a["format"]}, count),)
    act = moved("aten::silu", elements, elements, elements, count)
    return (act, moved("aten::mul", elements, 2 * elements, elements, count)) if a["gated"] else (act,)


@operator(
    f"moe_exchanged_experts({_EXPERTS}, int copies, int slices, int size, int stride, str dispatch_format,"
    " str combine_format) -> Tensor",
    family="composed",
)
class MoeExchangedExperts:
    """moe_dispatch, moe_experts and moe_combine as one kernel: pieces of the tokens travel beside the products."""

    def meta(x, *_):
        return x.new_empty(x.shape)

    def dims(x, w13, w2, copies, slices, size, stride, dispatch_format, combine_format, **named):
        return MoeExperts.dims(x, w13, w2, **named)

    def parts(d, a):
        tokens = {"tokens": d["tokens"], "hidden": d["hidden"]}
        links = tuple(
            Part(f"moe_{way}", tokens, {**a, "collective": way, "wire_format": a[f"{way}_format"]})
            for way in ("dispatch", "combine")
        )
        return Parts((Part("moe_experts", d, a),), links, pieces(d["tokens"]))


@operator("expert_linear(Tensor x, Tensor w, int top_k, str weight_format, str math) -> Tensor", family="composed")
class ExpertLinear:
    """One product of routed experts alone: y[p, n] = x[p, k] · w[expert of p, n, k]ᵀ for every (token, expert) pair p.

    One product after the other, for each expert that a token chose; `top_k` pairs come from one token.
    """

    def meta(x, w, top_k, weight_format, math):
        return x.new_empty((x.shape[0], w.shape[1]))

    def dims(x, w, top_k, weight_format, math):
        experts, n, k = w.shape
        return {"pairs": x.shape[0], "n": n, "k": k, "attrs": {"experts": experts, "out_format": dtype_name(x)}}

    def parts(d, a):
        active = active_experts(d["pairs"] / a["top_k"], a["top_k"], a["experts"], 1, 1)
        formats = {"act_format": a["out_format"], "dequantize": False, "scheme": ""}
        return Parts(_product({**a, **formats, "scale_overhead": 0.0}, d["pairs"] / active, d["n"], d["k"], active))
