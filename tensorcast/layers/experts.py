"""The routed experts of one rank: who meets at them, what they hold, and running them through their slot.

An experts module holds 3-D parameters `gate_up_proj` (or `up_proj`) and `down_proj`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tensorcast.formats import bytes_of
from tensorcast.layers.parameters import empty_parameter
from tensorcast.layers.sequence_parallel import keep_own, whole_tokens
from tensorcast.layers.state import ALONE, Group, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call


@dataclass(frozen=True)
class Exchange:
    """Who meets at the experts. `groups` attention groups bring their tokens, each shared by `slices` ranks; experts
    are spread over `ep` ranks (`ep_group`) and each expert is cut into `tp` parts (`tp_group`)."""

    experts: int
    groups: int = 1
    slices: int = 1
    ep: Group = ALONE
    tp: Group = ALONE

    @property
    def travels(self) -> bool:
        """Whether tokens are sent to their experts. The ranks of one group all hold the tokens: each does its experts'
        share of the work, and the sum at the end of the block brings the results together, as engines do."""
        return self.groups > 1


def experts_weights(module: nn.Module) -> tuple[nn.Parameter, nn.Parameter] | None:
    """(gate and up, down) parameters of an experts module, each [experts, …, …]; None for any other module."""
    w13 = getattr(module, "gate_up_proj", None)
    if w13 is None:
        w13 = getattr(module, "up_proj", None)
    w2 = getattr(module, "down_proj", None)
    if isinstance(w13, nn.Parameter) and isinstance(w2, nn.Parameter) and w13.dim() == w2.dim() == 3:
        return w13, w2
    return None


def join_gate(module: nn.Module) -> None:
    """Parameters gate_proj and up_proj [experts, inter, hidden] become gate_up_proj [experts, 2·inter, hidden], as
    kernels read them."""
    gate, up = (module._parameters.get(name) for name in ("gate_proj", "up_proj"))
    if gate is not None and up is not None and gate.dim() == 3 and gate.shape == up.shape:
        experts, inter, hidden = gate.shape
        del module.gate_proj, module.up_proj
        module.gate_up_proj = empty_parameter(gate, (experts, 2 * inter, hidden))


@dataclass(frozen=True)
class ExpertSizes:
    """Sizes of one expert. `transposed`: stored [inputs, outputs] instead of [outputs, inputs]."""

    hidden: int
    inter: int
    transposed: bool

    @classmethod
    def of(cls, module: nn.Module) -> ExpertSizes:
        w13, w2 = experts_weights(module)
        (rows, columns), (out, _) = w13.shape[1:], w2.shape[1:]
        transposed = columns != out
        hidden = rows if transposed else columns
        return cls(hidden, w2.numel() // w2.shape[0] // hidden, transposed)


def is_gated(module: nn.Module) -> bool:
    return hasattr(module, "gate_up_proj")


def experts_forward(module, hidden_states, *args, **kwargs):
    """forward of an experts module: dispatch, this rank's experts, combine."""
    state = state_of(module)
    exchange, kernel, top_k = state.exchange, state.slots["moe_experts"].kernel, _top_k(module, args, kwargs)
    hidden_states = whole_tokens(hidden_states)
    x = tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
    current().note_read_with(x, args, kwargs)
    if not exchange.travels or getattr(kernel, "exchanges", False):
        y = kernel(x, module, top_k)
    else:
        link = _link(exchange)
        x = call.moe_dispatch(x, top_k, *link, _wire_format(state.quant, x))
        y = kernel(x, module, top_k)
        y = call.moe_combine(y, top_k, *link, dtype_name(y))
    if exchange.travels and exchange.slices > 1:
        spread = current().model.plan.sequence_parallel
        y = keep_own(y, tokens.shape[0]) if spread else call.gather_slices(y, exchange.slices, 1)
    return y.view(hidden_states.shape)


def _link(exchange: Exchange) -> tuple[int, int, int, int]:
    """Ranks an expert lives on, ranks that share a group's tokens, all ranks that meet, and their distance."""
    ep, tp = exchange.ep, exchange.tp
    return tp.size, exchange.slices, ep.size * tp.size, min(ep.stride, tp.stride)


def _wire_format(spec, x) -> str:
    """Tokens travel in the format that the experts' products read, where these quantise them."""
    return spec.activation if spec is not None and spec.needs_activation_quantise else dtype_name(x)


def grouped_experts(x, module, top_k):
    """Kernel `grouped`: one operator for both products of all active experts."""
    return call.moe_experts(*_arguments(x, module, top_k))


def looped_experts(x, module, top_k):
    """Kernel `loop`: one pair of products for each active expert."""
    return call.moe_experts_loop(*_arguments(x, module, top_k), True)


def eager_experts(x, module, top_k):
    """Kernel `eager`: as `loop`, every operation of an expert as a kernel of its own."""
    return call.moe_experts_loop(*_arguments(x, module, top_k), False)


def exchanged_experts(x, module, top_k):
    """Kernel `fused_all_to_all`: tokens travel to their experts and back beside the products."""
    state = state_of(module)
    formats = _wire_format(state.quant, x), dtype_name(x)
    return call.moe_exchanged_experts(*_arguments(x, module, top_k), *_link(state.exchange), *formats)


exchanged_experts.exchanges = True


def _arguments(x, module, top_k) -> tuple:
    """What every operator of experts takes: tensors, routing, formats, and who meets at the experts."""
    state = state_of(module)
    w13, w2 = experts_weights(module)
    spec, exchange = state.quant, state.exchange
    fmt = dtype_name(w13)
    if spec is None:
        formats = (fmt, dtype_name(x), fmt, 0.0, False, "")
    else:
        overhead = scale_overhead(spec, module)
        formats = (spec.weight, spec.activation, spec.math, overhead, spec.dequantises_weight, spec.label)
    sizes = top_k, exchange.experts, is_gated(module)
    return (x, w13, w2, *sizes, *formats, exchange.groups, exchange.ep.size)


def scale_overhead(spec, module) -> float:
    """Bytes of scales per byte of weight."""
    weights, transposed = experts_weights(module), ExpertSizes.of(module).transposed
    plain = sum(bytes_of(w.numel(), spec.weight) for w in weights)
    return sum(quantised_bytes(spec, w, transposed) for w in weights) / plain - 1


def quantised_bytes(spec, weight, transposed: bool) -> int:
    """Bytes of one stack of expert weights, with scales along the inputs of each product."""
    count, outputs, inputs = weight.shape
    if transposed:
        outputs, inputs = inputs, outputs
    return spec.weight_bytes(outputs, inputs, count)


def _top_k(module, args, kwargs) -> int:
    """From the index tensor of the call; modules that are handed scores of every expert carry their own top_k."""
    for value in (*args, *kwargs.values()):
        if hasattr(value, "shape") and value.dim() == 2:
            return value.shape[-1]
    return module.top_k
