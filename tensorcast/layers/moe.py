"""Mixture of experts: finding routers, experts and the blocks around them, and routing.

Found by structure: an experts module holds 3-D parameters; its router is a sibling with a 2-D weight [experts, hidden]
and a `top_k`. Experts in any other form need a profile that names the block's class (layers/expert_lists.py).
"""

from __future__ import annotations

import inspect

from torch import nn

from tensorcast.errors import ModelError, TransformationError
from tensorcast.layers import expert_lists
from tensorcast.layers.experts import Exchange, experts_forward, experts_weights, join_gate
from tensorcast.layers.linear import product
from tensorcast.layers.sequence_parallel import whole_tokens
from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.layers.wrap import replace
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def is_router(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 2 and isinstance(getattr(module, "top_k", None), int)


def install_moe(model, moe_layer: type[nn.Module] | None = None) -> int:
    """Routers, experts and the blocks around them. Returns how many blocks.

    `moe_layer`: every block is first replaced by `moe_layer(block)`; one that holds a list of experts then counts as
    named by the profile.
    """
    named, replaced = expert_lists.named_blocks(model), 0
    if moe_layer is not None:
        paths = {*named, *(path for path, _, _ in _experts(model)), *expert_lists.unnamed(model)}
        if not paths:
            name = model.blueprint.source.name
            raise TransformationError(f"{name}: no MoE blocks to replace by {moe_layer.__name__}")
        replaced = len([replace(model, path, moe_layer) for path in sorted(paths)])
        named = expert_lists.unnamed(model)
    forwards = expert_lists.adapt(model, named)
    expert_lists.require_none(model)
    found = list(_experts(model))
    for path, block, name in found:
        experts = getattr(block, name)
        _install_experts(model, f"{path}.{name}", experts)
        for router_name, router in block.named_children():
            if is_router(router) and _routes(model, router):
                install(router, f"{path}.{router_name}", router_forward)
        install(block, path, _block_forward(model, experts, forwards.get(path)))
    return replaced or len(found)


def _experts(model):
    """(path of the block, block, name of its experts module) for every experts module."""
    for path, block in model.module.named_modules():
        for name, child in block.named_children():
            if experts_weights(child) is not None:
                yield path, block, name


def _routes(model, router: nn.Module) -> bool:
    """A plain linear picks no experts by itself: the profile says whether the tool does."""
    return type(router) is not nn.Linear or model.profile.moe_gate_returns_raw_logits


def _install_experts(model, path, experts) -> None:
    join_gate(experts)
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


def _block_forward(model, experts, adapted):
    """forward of the block around the experts: partial sums of routed and shared experts are added up once.

    What runs inside is the profile's own forward, else that of a block whose experts were a list, else the block's.
    """
    inner = model.profile.moe_block_forward or adapted
    if inner is None:
        if runs_every_expert(experts):
            name, code = model.blueprint.source.name, type(experts).__name__
            raise ModelError(
                f"{name}: {code} takes no routing, so its code runs every expert on every token; register a "
                f"ModelProfile with moe_block_forward for {model.blueprint.model_type!r}"
            )
        inner = original_forward

    def forward(module, hidden_states, *args, **kwargs):
        result = inner(module, whole_tokens(hidden_states), *args, **kwargs)
        shard = state_of(module).shard
        if isinstance(result, tuple):
            return (shard.after(result[0]), *result[1:])
        return shard.after(result)

    return forward


def runs_every_expert(experts: nn.Module) -> bool:
    """Whether the experts' own forward is handed tokens only: nothing tells it which expert a token chose."""
    return len(inspect.signature(type(experts).forward).parameters) == 2


def idle_parameters(module: nn.Module, without: nn.Module | None = None) -> int:
    """Expert parameters that one token does not use: those of all but its top_k experts."""
    left_out = {id(m) for m in without.modules()} if without is not None else set()
    idle = 0
    for block in module.modules():
        routers = [m for m in block.children() if is_router(m)]
        for child in block.children():
            weights = experts_weights(child)
            if weights is None or id(child) in left_out:
                continue
            top_k = getattr(child, "top_k", None) or (routers[0].top_k if routers else None)
            if top_k is not None:
                total, experts = sum(p.numel() for p in child.parameters(recurse=False)), weights[0].shape[0]
                idle += total - total * min(top_k, experts) // experts  # shared ones are fewer, and all run
    return idle
