"""Mixture of experts: router, exchange between ranks, experts, and the sum of partial results.

Found by structure: an experts module holds 3-D parameters `gate_up_proj` (or `up_proj`) and `down_proj`; its router is
a sibling with a 2-D weight [experts, hidden] and a `top_k`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from torch import nn

from tensorcast.errors import ModelError
from tensorcast.formats import bytes_of
from tensorcast.layers.linear import product
from tensorcast.layers.state import ALONE, Group, install, original_forward, state_of
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


def is_router(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 2 and isinstance(getattr(module, "top_k", None), int)


def install_moe(model) -> int:
    """Routers, experts and the blocks around them. Returns how many expert modules."""
    count = 0
    for path, block in model.module.named_modules():
        for name, child in block.named_children():
            if experts_weights(child) is None:
                continue
            _install_experts(model, f"{path}.{name}", child)
            for router_name, router in block.named_children():
                if is_router(router):
                    install(router, f"{path}.{router_name}", router_forward)
            install(block, path, _block_forward(model, child))
            count += 1
    return count


def _install_experts(model, path, experts) -> None:
    slot = model.kernels.fill("moe_experts", path)
    state = install(experts, path, experts_forward)
    state.slots["moe_experts"] = slot
    state.exchange = Exchange(experts=experts_weights(experts)[0].shape[0])


def router_forward(module, hidden_states, *args, **kwargs):
    """forward of a router: one product and one selection; what it returns has the shapes of its own code."""
    with current().suspended():
        result = original_forward(module, hidden_states, *args, **kwargs)
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    logits = product(x, module.weight, getattr(module, "bias", None), None)
    call.moe_route(logits, module.top_k)
    return result


def experts_forward(module, hidden_states, *args, **kwargs):
    """forward of an experts module: dispatch, this rank's experts, combine."""
    state = state_of(module)
    exchange, top_k = state.exchange, _top_k(module, args, kwargs)
    x = hidden_states.reshape(-1, hidden_states.shape[-1])
    if exchange.travels:
        spec = state.quant
        narrow = spec.activation if spec is not None and spec.needs_activation_quantise else dtype_name(x)
        link = (exchange.slices, exchange.ep.size * exchange.tp.size, min(exchange.ep.stride, exchange.tp.stride))
        x = call.moe_dispatch(x, top_k, exchange.tp.size, *link, narrow)
        y = state.slots["moe_experts"].kernel(x, module, top_k)
        y = call.moe_combine(y, top_k, exchange.tp.size, *link, dtype_name(y))
        if exchange.slices > 1:
            y = call.gather_slices(y, exchange.slices, 1)
    else:
        y = state.slots["moe_experts"].kernel(x, module, top_k)
    return y.view(hidden_states.shape)


def grouped_experts(x, module, top_k):
    """Kernel `grouped`: one operator for both products of all active experts."""
    state = state_of(module)
    w13, w2 = experts_weights(module)
    spec, exchange = state.quant, state.exchange
    fmt = dtype_name(w13)
    if spec is None:
        formats = (fmt, dtype_name(x), fmt, 0.0, False, "")
    else:
        overhead = scale_overhead(spec, module)
        formats = (spec.weight, spec.activation, spec.math, overhead, spec.dequantises_weight, spec.label)
    return call.moe_experts(
        x, w13, w2, top_k, exchange.experts, is_gated(module), *formats, exchange.groups, exchange.ep.size
    )


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


def _block_forward(model, experts):
    """forward of the block around the experts: partial sums of routed and shared experts are added up once."""
    inner = model.profile.moe_block_forward
    if inner is None:
        if runs_every_expert(experts):
            name, code = model.blueprint.source.name, type(experts).__name__
            raise ModelError(
                f"{name}: {code} takes no routing, so its code runs every expert on every token; register a "
                f"ModelProfile with moe_block_forward for {model.blueprint.model_type!r}"
            )
        inner = original_forward

    def forward(module, hidden_states, *args, **kwargs):
        result = inner(module, hidden_states, *args, **kwargs)
        shard = state_of(module).shard
        if isinstance(result, tuple):
            return (shard.after(result[0]), *result[1:])
        return shard.after(result)

    return forward


def runs_every_expert(experts: nn.Module) -> bool:
    """Whether the experts' own forward is handed tokens only: nothing tells it which expert a token chose."""
    return len(inspect.signature(type(experts).forward).parameters) == 2
