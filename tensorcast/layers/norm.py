"""Norm modules, found by what they are called and what they hold."""

from __future__ import annotations

import re

import torch
from torch import nn

from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.trace.library import call

_RMS = re.compile(r"(RMS|L2)Norm$|RmsNorm$")
_GATED = re.compile(r"RMSNormGated$|GatedRMSNorm$")


def install_norms(model, within: str = "") -> int:
    """Slots rms_norm, gated_rms_norm and layer_norm on every norm module. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        name = type(module).__name__
        if _GATED.search(name):
            op, forward = "gated_rms_norm", gated_forward
        elif _RMS.search(name):
            op, forward = "rms_norm", norm_forward
        elif type(module) is nn.LayerNorm:
            op, forward = "layer_norm", norm_forward
        else:
            continue
        slot = model.kernels.fill(op, path)
        install(module, path, forward).slots[op] = slot
        count += 1
    return count


def norm_forward(module, x, *args, **kwargs):
    """forward of an rms_norm or layer_norm slot; a kernel of None is the module's own code."""
    state = state_of(module)
    slot = next(iter(state.slots.values()))
    share_statistics(state.shard, x)
    if slot.kernel is None:
        return original_forward(module, x, *args, **kwargs)
    return slot.kernel(x, getattr(module, "weight", None))


def gated_forward(module, x, gate=None):
    state = state_of(module)
    slot = state.slots["gated_rms_norm"]
    share_statistics(state.shard, x)
    if slot.kernel is None or gate is None:
        return original_forward(module, x, gate)
    return slot.kernel(x, gate, module.weight)


def share_statistics(shard, x) -> None:
    """A norm over elements that lie on several ranks: they add up their sums of squares (fp32) first.

    Queries and keys are summed in one message, sent by the first of the two: two values a token.
    """
    if shard.style == "norm" and shard.reduce and shard.group.size > 1:
        call.all_reduce(x.new_empty((*x.shape[:-1], 2), dtype=torch.float32), shard.group.size, shard.group.stride)
