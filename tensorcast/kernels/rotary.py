"""Kernels of the rotary op. Signature: rotary(q, k, cos) -> (q, k); None = the model's own code."""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused():
    from tensorcast.trace.library import call

    return call.rotary


KERNELS.register(
    KernelSpec("fused", "rotary", _fused, description="queries and keys rotated in one kernel", default=True)
)
