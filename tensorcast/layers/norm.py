"""Norm modules, found by what they are called and what they hold."""

from __future__ import annotations

import copy
import inspect
import re

import torch
from torch import nn

from tensorcast.layers.state import install, is_replaced, original_forward, state_of
from tensorcast.trace.library import call

_RMS = re.compile(r"(RMS|L2)Norm$|RmsNorm$")
_GATED = re.compile(r"RMSNormGated$|GatedRMSNorm$")


def install_norms(model, within: str = "") -> int:
    """Slots rms_norm, gated_rms_norm and layer_norm on every norm module. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        if is_replaced(module):
            continue
        name = type(module).__name__
        if _GATED.search(name) and len(inspect.signature(type(module).forward).parameters) > 2:
            op, forward = "gated_rms_norm", gated_forward
        elif _RMS.search(name) and not _GATED.search(name) and _normalises(module):
            op, forward = "rms_norm", norm_forward
        elif name.endswith("LayerNorm") and _keeps_mean(module):
            op, forward = "rms_norm", norm_forward
        elif type(module) is nn.LayerNorm:
            op, forward = "layer_norm", norm_forward
        else:
            continue
        slot = model.kernels.fill(op, path, "offset" if op == "rms_norm" and is_offset(module) else "standard")
        install(module, path, forward).slots[op] = slot
        count += 1
    return count


def _normalises(module) -> bool:
    """Whether forward gives the normalised input; some modules without weights give its scale alone.

    What takes no row of elements is left to its own code.
    """
    if getattr(module, "weight", None) is not None:
        return True
    stated = getattr(module, "normalized_shape", None) or (8,)
    width = next((parameter.shape[-1] for parameter in module.parameters()), stated[-1])
    x = torch.empty((1, 1, width), device="meta")
    try:
        return module(x).shape == x.shape
    except RuntimeError:
        return False


def _keeps_mean(module: nn.Module) -> bool:
    """Whether a class called a layer norm takes no mean away: it has one weight, and equal inputs do not become 0."""
    names = [name for name, value in module._parameters.items() if value is not None]
    return names == ["weight"] and not isinstance(module, nn.LayerNorm) and _gives(module, 1.0)


def is_offset(module: nn.Module) -> bool:
    """Whether a norm multiplies by 1 + weight: with a weight of 0 its own code gives more than 0.

    A norm that cannot be run alone is taken for an ordinary one; `variants` of a ModelProfile says otherwise.
    """
    weight = module._parameters.get("weight")
    if weight is None:
        return False
    return _gives(module, 0.0)


_GIVES: dict[tuple, bool] = {}  # code, its options and its weights → whether ones become anything but 0


def _gives(module: nn.Module, weights: float) -> bool:
    """Whether a norm whose parameters are all `weights` makes anything but 0 of ones."""
    options = tuple(v for v in vars(module).values() if isinstance(v, (bool, int, float, str)))
    key = (type(module), options, weights)
    if key not in _GIVES:
        _GIVES[key] = _runs(module, weights)
    return _GIVES[key]


def _runs(module: nn.Module, weights: float) -> bool:
    probe = copy.copy(module)
    probe.__dict__["_parameters"] = {
        name: None if p is None else nn.Parameter(torch.full(p.shape, weights, device="cpu"))
        for name, p in module._parameters.items()
    }
    try:
        with torch.device("cpu"), torch.no_grad():
            result = type(module).forward(probe, torch.ones((1, module._parameters["weight"].shape[-1])))
        return bool(torch.any(result != 0))
    except Exception:  # the code of anybody, called in a way its author need not have thought of
        return False


def norm_forward(module, x, *args, **kwargs):
    """forward of an rms_norm or layer_norm slot; a kernel of None is the module's own code."""
    state = state_of(module)
    slot = next(iter(state.slots.values()))
    share_statistics(state.shard, x)
    if slot.kernel is None:
        return original_forward(module, x, *args, **kwargs)
    return slot.kernel(x, module._parameters.get("weight"))  # some norms without weights hold ones for other code


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
