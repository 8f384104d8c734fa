"""Kernels of the moe_experts op. Signature: moe_experts(x, module) -> x-shaped result of this rank's experts."""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _grouped():
    from tensorcast.layers.experts import grouped_experts

    return grouped_experts


KERNELS.register(
    KernelSpec("grouped", "moe_experts", _grouped, description="grouped products over the active experts", default=True)
)
