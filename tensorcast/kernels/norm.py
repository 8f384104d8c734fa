"""Kernels of the norm ops. Signatures: rms_norm(x, weight), layer_norm(x, weight), gated_rms_norm(x, gate, weight).

A factory that returns None stands for the model's own unfused code.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused(name: str, **options):
    def factory():
        from tensorcast.trace.library import call

        kernel = getattr(call, name)
        return (lambda *args: kernel(*args, *options.values())) if options else kernel

    return factory


for _op in ("rms_norm", "layer_norm"):
    KERNELS.register(
        KernelSpec(
            "fused_add",
            _op,
            _fused(_op, adds=True),
            description="one kernel; where its input is a residual sum, it adds up too",
            default=True,
        )
    )
    KERNELS.register(
        KernelSpec("fused", _op, _fused(_op, adds=False), description="one kernel, every element read and written once")
    )
KERNELS.register(
    KernelSpec(
        "fused",
        "gated_rms_norm",
        _fused("gated_rms_norm"),
        description="one kernel, every element read and written once",
        default=True,
    )
)
for _op in ("rms_norm", "layer_norm", "gated_rms_norm"):
    KERNELS.register(
        KernelSpec("eager", _op, lambda: None, description="the model's own code, one kernel an operation")
    )
