"""Kernels of the swiglu op. Signature: swiglu(gate, up)."""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused():
    from tensorcast.trace.library import call

    return call.swiglu


KERNELS.register(
    KernelSpec(
        "fused", "swiglu", _fused, description="gate and up as one product, act(gate)·up as one kernel", default=True
    )
)
