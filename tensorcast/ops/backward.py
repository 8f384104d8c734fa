"""Backward passes: what the gradient of an operator takes, and what it needs kept from the forward pass.

`NAME_backward` is the operator that turns the gradient of NAME's results into those of its arguments. It has the sizes
and attributes of the forward row and is told in calls of the operators there are, so that it is priced with the forward
pass's coefficients (an assumption: no backward kernel was measured).

* A product has two: the gradient of its input and that of its weight, each as many FLOP as itself.
* Fused attention computes the scores again from the statistics it kept, and has four more products: per pair
  2·(3d + 2dv) FLOP where the forward pass has 2·(d + dv). Before it, one pass over result and gradient.
* Norms, activations and other operators limited by memory read the gradient and what they kept, and write one gradient
  an input; torch's own read the gradient and write one of every input.
* A sum passes its gradient on; its row stands for the sum of gradients where the branches came apart.
* Scans run forward once more over their chunks and then twice that: three times the forward pass.
* A collective's is its conjugate: all_reduce for the sum behind a row-wise product, because its block begins with a
  column-wise one; reduce_scatter for all_gather; the experts' two exchanges for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any

from tensorcast.ops.aten import CREATION, VIEWS
from tensorcast.ops.base import OPERATORS, Operator, Part, Parts, Work, item_bytes
from tensorcast.ops.moe import routed_pairs

SUFFIX = "_backward"
RESULT = "result"  # in `keeps`: what the operator returned
INPUTS = "inputs"  # every tensor it was given
INDICES = "indices"  # of those the whole numbers


@dataclass(frozen=True)
class Gradient:
    """How an operator is differentiated; with neither `parts` nor `work` no gradient flows.

    keeps: names of the arguments (or RESULT, INPUTS, INDICES) that the backward pass reads. beside(d, a): bytes kept
    beyond those. parts(d, a): the calls it is made of; work(d, a): a kernel of the forward operator's own family.
    """

    keeps: tuple[str, ...] = ()
    beside: Callable[[Mapping, Mapping], Any] = lambda d, a: 0
    parts: Callable[[Mapping, Mapping], Parts] | None = None
    work: Callable[[Mapping, Mapping], Work] | None = None

    @property
    def flows(self) -> bool:
        return self.parts is not None or self.work is not None


NONE = Gradient()


def gradient_of(name: str) -> Gradient | None:
    """The gradient of operator `name`, None where nobody described it."""
    return GRADIENTS.get(name) or GRADIENTS.get(name.removesuffix("_"))


@cache
def backward_operator(name: str) -> Operator | None:
    """The operator `NAME_backward`; None when there is no such thing."""
    forward = name.removesuffix(SUFFIX)
    found = gradient_of(forward)
    if forward == name or found is None or not found.flows:
        return None
    base = OPERATORS.get(forward)
    family = base.family if found.parts is None else "composed"
    work = found.work or (lambda d, a: found.parts(d, a).work())
    summary = f"Gradients of the arguments of {forward}, from those of its results."
    return Operator(name, f"{name}(…)", family, None, base.dims, work, summary, base.arguments, found.parts)


# -- products ----------------------------------------------------------------------------------------------------------


def _linear(d, a) -> Parts:
    m, n, k = d["m"], d["n"], d["k"]
    plain = {**a, "bias": False}
    of_input = Part("linear", {"m": m, "n": k, "k": n}, plain)
    of_weight = Part("linear", {"m": n, "n": k, "k": m}, plain)
    if not a["bias"]:
        return Parts((of_input, of_weight))
    size = item_bytes(a["out_format"])
    of_bias = Part("aten::sum", {"elements": m * n, "read": m * n * size, "write": n * size}, {})
    return Parts((of_input, of_weight, of_bias))


def _linear_all_reduce(d, a) -> Parts:
    ring = {"size": a["size"], "stride": a["stride"], "format": a["out_format"], "collective": "all_reduce"}
    return Parts((*_linear(d, a).device, Part("all_reduce", {"elements": d["m"] * d["n"]}, ring)))


def _bmm(d, a) -> Parts:
    b, m, n, k = d["b"], d["m"], d["n"], d["k"]
    of_x = Part("bmm", {"b": b, "m": m, "n": k, "k": n}, a)
    return Parts((of_x, Part("bmm", {"b": b, "m": k, "n": n, "k": m}, a)))


def _attention(name: str) -> Callable[[Mapping, Mapping], Parts]:
    def parts(d, a) -> Parts:
        out = d["b"] * d["heads"] * d["q"] * d["dv"]
        delta = {"elements": 2 * out, "read": 2 * out * item_bytes(a["out_format"]), "write": 4 * out / d["dv"]}
        ratio = (3 * d["d"] + 2 * d["dv"]) / (d["d"] + d["dv"])
        return Parts((Part("aten::sum", delta, {}), Part(name, d, a, ratio)))

    return parts


def _row_statistics(d, a):
    """One fp32 logarithm of a sum for every query and head."""
    return 4 * d["b"] * d["heads"] * d["q"]


# -- experts -----------------------------------------------------------------------------------------------------------


def _inside_experts(d, a):
    """Bytes that the routed experts keep: permuted tokens, both sides of the activation, results before weighting."""
    pairs = routed_pairs(d["tokens"], a["top_k"], a["groups"], a["ep"])
    width = (2 if a["gated"] else 1) * d["inter"]
    return pairs * (2 * d["hidden"] + width + d["inter"]) * item_bytes(a["out_format"])


def _composed(name: str) -> Callable[[Mapping, Mapping], Parts]:
    """Every part backwards, as often as it ran."""

    def parts(d, a) -> Parts:
        forward = OPERATORS.get(name).parts(d, a)
        device, links = ([_backward_part(part) for part in side] for side in (forward.device, forward.links))
        return Parts(tuple(chain(*device)), tuple(chain(*links)), forward.pieces)

    return parts


def _backward_part(part: Part) -> tuple[Part, ...]:
    found = gradient_of(part.op)
    if found is None or not found.flows:
        return ()
    if found.parts is None:
        return (Part(part.op + SUFFIX, part.dims, part.attrs, part.count),)
    inner = found.parts(part.dims, part.attrs).device
    return tuple(Part(each.op, each.dims, each.attrs, each.count * part.count) for each in inner)


# -- what is limited by memory -----------------------------------------------------------------------------------------


def _times(name: str, count: float) -> Callable[[Mapping, Mapping], Parts]:
    """As `count` forward calls."""
    return lambda d, a: Parts((Part(name, d, a, count),))


def _as(name: str, **changes: Any) -> Callable[[Mapping, Mapping], Parts]:
    """As one call of another operator on the same sizes."""
    return lambda d, a: Parts((Part(name, d, {**a, **changes}),))


def _passes(reads: int, writes: int, flops: int) -> Callable[[Mapping, Mapping], Work]:
    """`reads` and `writes` of every element, `flops` each; weights and row statistics are left out as small."""

    def work(d, a) -> Work:
        elements = d["elements"] if "elements" in d else d["rows"] * d["width"]
        nbytes = elements * item_bytes(a["format"])
        return Work(vector_flops=flops * elements, read_bytes=reads * nbytes, write_bytes=writes * nbytes)

    return work


def _statistics(nbytes: int) -> Callable[[Mapping, Mapping], Any]:
    return lambda d, a: nbytes * d["elements"] / d["width"]


def _aten(name: str, reads_inputs: bool, reads_result: bool) -> Callable[[Mapping, Mapping], Parts]:
    def parts(d, a) -> Parts:
        kept = d["read"] * reads_inputs + d["write"] * reads_result
        return Parts((Part(name, {"elements": d["elements"], "read": d["write"] + kept, "write": d["read"]}, a),))

    return parts


_ATEN = {
    (): """add sub rsub neg copy _to_copy clone cat stack constant_pad_nd pad repeat repeat_interleave roll flip
    contiguous to sum mean cumsum lerp scatter_add index_add index_put upsample_nearest1d upsample_nearest2d
    upsample_nearest3d tril triu""",
    (RESULT,): "exp exp2 sqrt rsqrt reciprocal sigmoid tanh relu _softmax _log_softmax softmax log_softmax",
    (INPUTS,): """mul div abs maximum minimum clamp clamp_min clamp_max where masked_fill addcmul square log log1p sin
    cos pow hardtanh threshold erf silu gelu softplus mish elu leaky_relu amax amin max min prod cumprod logsumexp var
    std norm topk sort native_layer_norm native_group_norm _fused_rms_norm rms_norm masked_scatter scatter""",
    (INDICES,): "index index_select gather embedding",
}
_NO_GRADIENT = """eq ne lt le gt ge logical_not logical_and logical_or logical_xor bitwise_and bitwise_not bitwise_or
bitwise_xor xor sign floor ceil round floor_divide remainder any all isin argmax argmin fill""".split()

GRADIENTS: Mapping[str, Gradient] = {
    "linear": Gradient(("x",), parts=_linear),
    "linear_all_reduce": Gradient(("x",), parts=_linear_all_reduce),
    "bmm": Gradient(("x", "y"), parts=_bmm),
    "attention": Gradient(("q", "k", "v", RESULT), _row_statistics, _attention("attention")),
    "mla_attention": Gradient(("q", "q_rope", "latent", "rope", RESULT), _row_statistics, _attention("mla_attention")),
    "rms_norm": Gradient(("x",), _statistics(4), work=_passes(2, 1, 11)),
    "layer_norm": Gradient(("x",), _statistics(8), work=_passes(2, 1, 14)),
    "gated_rms_norm": Gradient(("x", "gate"), _statistics(4), work=_passes(3, 2, 24)),
    "residual_add": Gradient(work=_passes(1, 0, 1)),
    "rotary": Gradient(parts=_times("rotary", 1)),
    "rotary_lookup": NONE,
    "swiglu": Gradient(("gate", "up"), work=_passes(3, 2, 14)),
    "activation": Gradient(("x",), work=_passes(2, 1, 10)),
    "embedding": Gradient(("ids",), work=_passes(2, 1, 1)),
    "cross_entropy": Gradient(
        beside=lambda d, a: 4 * d["elements"],  # the fp32 logarithms of the probabilities
        work=lambda d, a: Work(
            vector_flops=3 * d["elements"],
            read_bytes=8 * d["elements"],
            write_bytes=(4 + item_bytes(a["format"])) * d["elements"],
        ),
    ),
    "moe_route": Gradient(("logits", RESULT), parts=_times("moe_route", 1)),
    "moe_experts": Gradient(("x",), _inside_experts, _times("moe_experts", 2)),
    "moe_experts_loop": Gradient(("x",), _inside_experts, _composed("moe_experts_loop")),
    "moe_exchanged_experts": Gradient(("x",), _inside_experts, _composed("moe_exchanged_experts")),
    "moe_dispatch": Gradient(parts=_as("moe_combine", collective="combine")),
    "moe_combine": Gradient(parts=_as("moe_dispatch", collective="dispatch")),
    "causal_conv1d": Gradient(("x",), parts=_times("causal_conv1d", 2)),
    "regroup_heads": Gradient(parts=_times("regroup_heads", 1)),
    "delta_gates": Gradient(("beta", "g"), parts=_times("delta_gates", 2)),
    "gated_delta_rule": Gradient(("q", "k", "v", "g"), parts=_times("gated_delta_rule", 3)),
    "mamba2_scan": Gradient(("x", "b_proj", "c_proj", "dt"), parts=_times("mamba2_scan", 3)),
    "selective_scan": Gradient(("x", "b_proj", "c_proj", "dt"), parts=_times("selective_scan", 3)),
    "all_reduce": Gradient(parts=_times("all_reduce", 1)),
    "all_gather": Gradient(parts=_as("reduce_scatter", collective="reduce_scatter")),
    "gather_slices": Gradient(parts=_as("reduce_scatter", collective="reduce_scatter")),
    "reduce_scatter": Gradient(parts=_as("all_gather", collective="all_gather")),
    "all_to_all": Gradient(parts=_times("all_to_all", 1)),
    "send_recv": Gradient(parts=_times("send_recv", 1)),
    **{
        f"aten::{name}": Gradient(keeps, parts=_aten(f"aten::{name}", keeps == (INPUTS,), keeps == (RESULT,)))
        for keeps, names in _ATEN.items()
        for name in names.split()
    },
    **{f"aten::{name}": Gradient((INPUTS,), parts=_bmm) for name in ("mm", "bmm", "addmm", "baddbmm")},
    "aten::convolution": Gradient((INPUTS,), parts=_times("aten::convolution", 2)),
    **{f"aten::{name}": NONE for name in (*_NO_GRADIENT, *VIEWS, *CREATION)},
}
