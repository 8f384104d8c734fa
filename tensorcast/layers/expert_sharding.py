"""Experts over ranks: whole experts to each of the ep ranks, each expert cut where there are more ranks than that."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.experts import Exchange, ExpertSizes, experts_weights
from tensorcast.layers.parameters import empty_parameter
from tensorcast.layers.state import Group, Shard, has_state, state_of


def split_experts(model) -> int:
    """Experts over ep ranks, each cut into tp·dp/ep parts; shared experts add up with the routed ones.

    Returns how many expert modules there are.
    """
    plan, count = model.plan, 0
    parts = plan.tp * plan.dp // plan.ep
    for path, block in model.module.named_modules():
        for name, module in block.named_children():
            if experts_weights(module) is None or not has_state(module):
                continue
            _cut_experts(f"{path}.{name}", module, plan.ep, parts)
            experts = state_of(module).exchange.experts
            exchange = Exchange(experts, plan.dp, plan.tp, ep=Group(plan.ep, parts), tp=Group(parts, 1))
            state_of(module).exchange = exchange
            if not exchange.travels:
                _reduce_in_block(block, Group(plan.tp, 1))
            count += 1
    if plan.ep > 1 and not count:
        raise DeploymentError(f"--ep {plan.ep}: {model.architecture} has no experts; use --ep 1")
    return count


def _cut_experts(path: str, module: nn.Module, ep: int, parts: int) -> None:
    experts = state_of(module).exchange.experts
    if experts % ep:
        valid = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
        raise DeploymentError(f"--ep {ep}: {path} has {experts} experts; values that divide: {valid}")
    sizes = ExpertSizes.of(module)
    local, cut = experts // ep, ceil(sizes.inter / parts)
    for name, weight in list(module.named_parameters(recurse=False)):
        shape = [local, *weight.shape[1:]]
        if weight.dim() == 3:
            axis = _inter_axis(name.startswith("down"), sizes.transposed)
            shape[axis] = shape[axis] // sizes.inter * cut
        elif weight.dim() == 2 and not name.startswith("down"):
            shape[1] = shape[1] // sizes.inter * cut
        module._parameters[name] = empty_parameter(weight, shape)
    for name in ("num_experts", "intermediate_dim", "intermediate_size", "expert_dim"):
        if name in module.__dict__:
            module.__dict__[name] = local if name == "num_experts" else cut


def _reduce_in_block(block: nn.Module, group: Group) -> None:
    """One sum for routed and shared experts, at the end of the block."""
    for module in block.modules():
        old = state_of(module).shard if isinstance(module, nn.Linear) and has_state(module) else None
        if old is not None and old.style in ("row", "row_split"):
            state_of(module).shard = replace(old, reduce=False)
    state_of(block).shard = Shard("row", group, rule="sum of routed and shared experts")


def _inter_axis(down: bool, transposed: bool) -> int:
    """Axis of the intermediate size: [experts, 2·inter, hidden] and [experts, hidden, inter], or both transposed."""
    return 2 if down != transposed else 1
