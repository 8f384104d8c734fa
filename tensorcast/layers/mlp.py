"""Gated feed-forward blocks: gate and up products, act(gate)·up as one slot, down product."""

from __future__ import annotations

from torch import nn

from tensorcast.layers.state import install, original_forward, state_of


def install_gated_mlps(model) -> int:
    """Slot swiglu on every module made of gate_proj, up_proj and down_proj linears. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        parts = dict(module.named_children())
        if not all(isinstance(parts.get(n), nn.Linear) for n in ("gate_proj", "up_proj", "down_proj")):
            continue
        slot = model.kernels.fill("swiglu", path)
        install(module, path, gated_mlp_forward).slots["swiglu"] = slot
        count += 1
    return count


def gated_mlp_forward(module, x, *args, **kwargs):
    """forward of a gated feed-forward block."""
    slot = state_of(module).slots["swiglu"]
    if slot.kernel is None or args or kwargs:
        return original_forward(module, x, *args, **kwargs)
    return module.down_proj(slot.kernel(module.gate_proj(x), module.up_proj(x)))
