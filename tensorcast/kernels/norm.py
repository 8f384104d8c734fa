"""Kernels of the norm ops. Signatures: rms_norm(x, weight), layer_norm(x, weight), gated_rms_norm(x, gate, weight).

A factory that returns None stands for the model's own unfused code.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused(name: str):
    def factory():
        from tensorcast.trace.library import call

        return getattr(call, name)

    return factory


for _op in ("rms_norm", "layer_norm", "gated_rms_norm"):
    KERNELS.register(
        KernelSpec(
            "fused", _op, _fused(_op), description="one kernel, every element read and written once", default=True
        )
    )
    KERNELS.register(
        KernelSpec("eager", _op, lambda: None, description="the model's own code, one kernel an operation")
    )
