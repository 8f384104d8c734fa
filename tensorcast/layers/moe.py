"""Mixture of experts: finding routers, experts and the blocks around them, and routing.

Found by structure: an experts module holds 3-D parameters; its router is a sibling with a 2-D weight [experts, hidden]
and a `top_k`.
"""

from __future__ import annotations

import inspect

from torch import nn

from tensorcast.errors import ModelError
from tensorcast.layers.experts import Exchange, experts_forward, experts_weights
from tensorcast.layers.linear import product
from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.trace.context import current
from tensorcast.trace.library import call


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
