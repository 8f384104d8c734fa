"""Mixture of experts: routing, exchange of tokens between ranks, and the grouped expert products.

Routing is taken as uniform: every expert is equally likely for every token. `tokens` are those of this rank; ranks
times `dp` groups of them meet at the experts.
"""

from __future__ import annotations

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator


def routed_pairs(tokens, top_k, groups, ep):
    """(token, expert) pairs one rank computes when `groups` ranks' tokens are spread over `ep` expert ranks."""
    return tokens * groups * top_k / ep


def active_experts(tokens, top_k, experts, groups, ep):
    """Expected number of this rank's experts that at least one token chose, with independent uniform routing."""
    return experts / ep * (1 - (1 - top_k / experts) ** (tokens * groups))


@operator("moe_route(Tensor logits, int top_k) -> (Tensor, Tensor)", family="topk")
class MoeRoute:
    """Scores, top-k experts of each token, and their normalised weights: logits [tokens, experts]."""

    def meta(logits, top_k):
        out = (logits.shape[0], top_k)
        return logits.new_empty(out), logits.new_empty(out)

    def dims(logits, top_k):
        return {"tokens": logits.shape[0], "experts": logits.shape[-1], "attrs": {"format": dtype_name(logits)}}

    def work(d, a):
        scores = d["tokens"] * d["experts"]
        return Work(
            vector_flops=8 * scores,  # score function, bias, selection passes, normalisation
            read_bytes=scores * item_bytes(a["format"]),
            write_bytes=d["tokens"] * a["top_k"] * (4 + 4),  # fp32 weight and int32 index
        )


@operator(
    "moe_experts(Tensor x, Tensor w13, Tensor w2, int top_k, int experts, bool gated, str weight_format,"
    " str act_format, str math, float scale_overhead, bool dequantize, str scheme, int groups, int ep) -> Tensor",
    family="grouped_gemm",
)
class MoeExperts:
    """The routed experts of this rank: permute, w13 product, activation, w2 product, weighted sum back.

    x [tokens, hidden] of one of `groups` ranks; w13 [local experts, (2)·inter, hidden], w2 [local experts, hidden,
    inter]; `scale_overhead` is the bytes of scales per byte of weight.
    """

    def meta(x, *_):
        return x.new_empty(x.shape)

    def dims(x, w13, w2, **_):
        per_expert = w13.numel() // w13.shape[0] + w2.numel() // w2.shape[0]
        inter = w2.numel() // w2.shape[0] // x.shape[-1]
        return {
            "tokens": x.numel() // x.shape[-1],
            "hidden": x.shape[-1],
            "inter": inter,
            "attrs": {"weights_per_expert": per_expert, "out_format": dtype_name(x)},
        }

    def work(d, a):
        pairs = routed_pairs(d["tokens"], a["top_k"], a["groups"], a["ep"])
        active = active_experts(d["tokens"], a["top_k"], a["experts"], a["groups"], a["ep"])
        act, out = item_bytes(a["act_format"]), item_bytes(a["out_format"])
        weights = active * a["weights_per_expert"] * item_bytes(a["weight_format"]) * (1 + a["scale_overhead"])
        width = (2 if a["gated"] else 1) * d["inter"]
        # Per pair: permute (and quantise), w13, activation (and quantise), w2, weighted sum over a token's experts.
        inside = d["hidden"] * act + width * out + d["inter"] * act + d["hidden"] * out
        return Work(
            matrix_flops=2 * pairs * d["hidden"] * (width + d["inter"]),
            vector_flops=pairs * (6 * d["inter"] + 2 * d["hidden"])
            + active * a["weights_per_expert"] * a["dequantize"],
            read_bytes=weights + pairs * (d["hidden"] * out + inside),
            write_bytes=pairs * (inside + d["hidden"] * out / a["top_k"]),
            workspace_bytes=pairs * (d["hidden"] * act + width * out + d["inter"] * act),
        )


def exchange_bytes(d, a):
    """Send buffer of one rank: its share of the tokens, once for every expert (and `copies` ranks an expert).

    A token does not travel twice to the same place: with fewer places than top_k it is sent to each of them.
    """
    places = a["size"] // a["copies"]
    pairs = d["tokens"] / a["slices"] * min(a["top_k"], places) * a["copies"]
    return pairs * d["hidden"] * item_bytes(a["wire_format"])


class _Exchange:
    """Tokens [tokens, hidden] between the ranks that hold them and the ranks of their experts."""

    def __init_subclass__(cls) -> None:
        attrs = {"collective": cls.collective}
        cls.dims = staticmethod(
            lambda x, **_: {
                "tokens": x.numel() // x.shape[-1],
                "hidden": x.shape[-1],
                "attrs": {"format": dtype_name(x), **attrs},
            }
        )

    def meta(x, *_):
        return x.new_empty(x.shape)

    def work(d, a):
        nbytes = exchange_bytes(d, a)
        remote = (a["size"] - 1) / a["size"]
        return Work(comm_bytes=nbytes * remote, read_bytes=nbytes, write_bytes=nbytes)


@operator(
    "moe_dispatch(Tensor x, int top_k, int copies, int slices, int size, int stride, str wire_format) -> Tensor",
    family="collective",
)
class MoeDispatch(_Exchange):
    """Send tokens to the ranks of their experts. The tokens are shared by `slices` ranks, each sends its part; an
    expert lives on `copies` ranks; uniform routing keeps 1/size of the pairs local."""

    collective = "dispatch"


@operator(
    "moe_combine(Tensor x, int top_k, int copies, int slices, int size, int stride, str wire_format) -> Tensor",
    family="collective",
)
class MoeCombine(_Exchange):
    """Bring the experts' results back to the tokens' own ranks and add them up there."""

    collective = "combine"
