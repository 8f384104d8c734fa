"""How close a kernel family comes to a device's peaks: three numbers and their origin."""

from __future__ import annotations

from dataclasses import dataclass

from tensorcast.errors import HardwareError
from tensorcast.hardware.checks import number, one_of, text

FAMILIES = (
    "gemm", "bmm", "grouped_gemm", "attention_prefill", "attention_decode", "mla_prefill", "mla_decode", "scan",
    "elementwise", "norm", "activation", "rotary", "gather", "copy", "quantize", "softmax", "topk",
)  # fmt: skip
"""Kernel families. The first eight compute on the matrix engine, the others on the vector units.

`grouped_gemm` is a whole layer of routed experts: permute, both products, activation and weighted sum.
"""

MATRIX_FAMILIES = frozenset(FAMILIES[:8])

KINDS = ("measured", "inherited", "assumed")
"""Measured on this device; measured on a relative of it; neither."""

_SAME_RATE = {"fp16": "bf16", "bf16": "fp16"}


@dataclass(frozen=True)
class Coefficient:
    """time = t0 + max(FLOP / (peak * compute), bytes / (memory bandwidth * bandwidth)).

    t0: seconds a kernel of this family takes on the device for no work at all, replayed from a graph.
    compute: share of the peak reached by large calls; the peak is that of the format's products, for attention and MLA
        that of bf16 whatever the KV cache holds, and the vector rate for families outside MATRIX_FAMILIES.
    bandwidth: share of the memory bandwidth reached by large calls. Both shares are at most 1.
    format: what the figures hold for: bf16, fp8, fp8_block, int8 (weights and activations), int8_wo and int4_wo (weight
        only), nvfp4 …; for attention the format of the KV cache; "any" for whatever has no entry of its own.
    kernel: the implementation measured, "" for the family's default one.
    includes: other kernels whose time is inside these figures ("quantize": the activation's quantisation).
    """

    t0: float
    compute: float
    bandwidth: float
    format: str = "any"
    provenance: str = ""
    kind: str = "assumed"
    kernel: str = ""
    includes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        number(self.t0, "t0", zero=True)
        number(self.compute, "compute", at_most=1)
        number(self.bandwidth, "bandwidth", at_most=1)
        text(self.format, "format")
        text(self.provenance, "source")
        one_of(self.kind, KINDS, "kind")
        if unknown := set(self.includes) - set(FAMILIES):
            raise HardwareError(f"includes: unknown family {sorted(unknown)[0]!r}; families: {', '.join(FAMILIES)}")


def choose(rows: tuple[Coefficient, ...], fmt: str, kernel: str = "") -> Coefficient | None:
    """The row for that format and kernel.

    Formats are tried as written, then the other 16-bit format (no machine has a different rate for it), then "any"; at
    each of these the kernel's own row wins over the family's default one.
    """
    for wanted in (fmt, _SAME_RATE.get(fmt), "any"):
        for name in dict.fromkeys((kernel, "")):
            for row in rows:
                if row.format == wanted and row.kernel == name:
                    return row
    return None
