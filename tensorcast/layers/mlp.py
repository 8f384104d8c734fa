"""Feed-forward blocks: gate and up products, act(gate)·up as one slot, down product; activations as one kernel."""

from __future__ import annotations

from torch import nn

from tensorcast.layers.merge import GATE_UP, merge
from tensorcast.layers.state import install, is_replaced, original_forward, state_of
from tensorcast.trace.library import call


def install_gated_mlps(model, within: str = "") -> int:
    """Slot swiglu on every module made of gate, up and down linears, gate and up apart or in one. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        forward = _gated_forward(module)
        if forward is not None:
            slot = model.kernels.fill("swiglu", path)
            install(module, path, forward).slots["swiglu"] = slot
            if slot.kernel is not None and forward is gated_mlp_forward:
                merge(module, GATE_UP)
            count += 1
    return count


def _gated_forward(module: nn.Module):
    if is_replaced(module):
        return None
    parts = dict(module.named_children())
    linears = {name for name, child in parts.items() if isinstance(child, nn.Linear)}
    if any(name not in linears and any(True for _ in child.parameters()) for name, child in parts.items()):
        return None  # it does more than that: a norm inside, a projection before
    if linears == {"gate_proj", "up_proj", "down_proj"}:
        return gated_mlp_forward
    if linears == {"gate_up_proj", "down_proj"}:
        if parts["gate_up_proj"].out_features == 2 * parts["down_proj"].in_features:
            return fused_mlp_forward
    return None


def gated_mlp_forward(module, x, *args, **kwargs):
    """forward of a gated feed-forward block."""
    slot = state_of(module).slots["swiglu"]
    if slot.kernel is None or args or kwargs:
        return original_forward(module, x, *args, **kwargs)
    return module.down_proj(slot.kernel(module.gate_proj(x), module.up_proj(x)))


def fused_mlp_forward(module, x, *args, **kwargs):
    """forward of a gated feed-forward block whose gate and up weights are one matrix."""
    slot = state_of(module).slots["swiglu"]
    if slot.kernel is None or args or kwargs:
        return original_forward(module, x, *args, **kwargs)
    return module.down_proj(slot.kernel(*module.gate_up_proj(x).chunk(2, dim=-1)))


def install_activations(model, within: str = "") -> int:
    """Activation modules of transformers are one kernel each, however many steps their code takes. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        if type(module).__module__ == "transformers.activations" and not any(module.children()):
            install(module, path, activation_forward)
            count += 1
    return count


def activation_forward(module, x):
    """forward of an activation module."""
    return call.activation(x, type(module).__name__)
