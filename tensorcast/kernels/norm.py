"""Kernels of the norm ops. Signatures: rms_norm(x, weight), layer_norm(x, weight), gated_rms_norm(x, gate, weight).

Variant `offset` of rms_norm: the weight is stored as its distance from 1, and the kernel multiplies by 1 + weight.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused(name: str, *options):
    def factory():
        from tensorcast.trace.library import call

        kernel = getattr(call, name)
        return lambda *args: kernel(*args, *options)

    return factory


def _fused_quantize():
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    def rms_norm(x, weight):
        y = call.rms_norm(x, weight, True)
        current().note_normed(y)
        return y

    return rms_norm


def _quantises(model) -> str | None:
    if any(spec.needs_activation_quantise for spec in model.quantised.values()):
        return None
    return "quantises no activations; use fused_add, or a scheme that does, such as --quant w8a8"


for _op, _variant in (("rms_norm", "standard"), ("rms_norm", "offset"), ("layer_norm", "standard")):
    KERNELS.register(
        KernelSpec(
            "fused_add",
            _op,
            _fused(_op, True),
            _variant,
            description="one kernel; where its input is a residual sum, it adds up too",
            default=True,
        )
    )
    KERNELS.register(
        KernelSpec(
            "fused",
            _op,
            _fused(_op, False),
            _variant,
            description="one kernel, every element read and written once",
        )
    )
for _variant in ("standard", "offset"):
    KERNELS.register(
        KernelSpec(
            "fused_quantize",
            "rms_norm",
            _fused_quantize,
            _variant,
            description="as fused_add; where products quantise its result, it writes the quantised copy as well",
            requires=_quantises,
        )
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
