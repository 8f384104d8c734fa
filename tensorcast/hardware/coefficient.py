"""How a kernel family runs on a device: the figures of one cost formula, and their origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tensorcast.errors import HardwareError
from tensorcast.hardware.checks import count, number, one_of, text
from tensorcast.hardware.formulas import FORMULAS

FAMILIES = (
    "gemm", "bmm", "grouped_gemm", "attention_prefill", "attention_decode", "attention_encoder", "mla_prefill",
    "mla_decode", "scan", "elementwise", "norm", "activation", "rotary", "gather", "copy", "quantize", "softmax",
    "topk", "exchange",
)  # fmt: skip
"""Kernel families. `grouped_gemm` is a whole layer of routed experts: permute, both products, activation and weighted
sum; `exchange` the dispatch and combine kernels of expert parallelism."""

KINDS = ("calibrated", "inherited", "universal", "assumed")
"""Measured on this device; on a relative of it; on several devices for all others; on none."""

NEAR = ("calibrated", "inherited")  # kinds measured on the device or on a relative of it
_SAME_RATE = {"fp16": "bf16", "bf16": "fp16"}


@dataclass(frozen=True)
class Coefficient:
    """One fitted kernel: `values` are the parameters of `formula` (tensorcast.hardware.formulas).

    format: what the figures hold for: bf16, fp8, fp8_block, int8 (weights and activations), int8_wo and int4_wo (weight
        only), nvfp4 …; for attention the format of the KV cache; "any" for whatever has no entry of its own.
    kernel: the implementation measured (cublas, fa3, triton …), "" where it has no name.
    includes: other kernels whose time is inside these figures ("quantize": the activation's quantisation).
    rows: number of measurements fitted. error: (median, 90th percentile) of |predicted/measured - 1| in percent, on
        measurements held out of the fit.
    """

    family: str
    format: str
    values: Mapping[str, float]
    formula: str = "roofline"
    kernel: str = ""
    provenance: str = ""
    kind: str = "assumed"
    includes: tuple[str, ...] = ()
    rows: int | None = None
    error: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        one_of(self.family, FAMILIES, "family")
        text(self.format, "format")
        text(self.provenance, "source")
        one_of(self.kind, KINDS, "kind")
        one_of(self.formula, FORMULAS, "formula")
        if unknown := set(self.includes) - set(FAMILIES):
            raise HardwareError(f"includes: unknown family {sorted(unknown)[0]!r}; families: {', '.join(FAMILIES)}")
        if self.rows is not None:
            count(self.rows, "rows")
        if self.error is not None:
            if len(self.error) != 2:
                raise HardwareError(f"error must be [median, 90th percentile] in percent, not {list(self.error)}")
            object.__setattr__(self, "error", tuple(number(e, "error", zero=True) for e in self.error))
        object.__setattr__(self, "values", MappingProxyType(FORMULAS[self.formula].check(self.values)))

    def __reduce__(self):  # read-only views cannot be pickled
        state = {name: getattr(self, name) for name in self.__dataclass_fields__} | {"values": dict(self.values)}
        return _rebuild, (state,)

    def __getitem__(self, parameter: str) -> float:
        return self.values[parameter]

    def moved(self, clock_ratio: float, **changes) -> Coefficient:
        """The same kernel on a device whose clock is `clock_ratio` times as fast."""
        return replace(self, values=FORMULAS[self.formula].moved(self.values, clock_ratio), **changes)


def _rebuild(state: dict) -> Coefficient:
    return Coefficient(**state)


def choose(rows: tuple[Coefficient, ...], fmt: str, kernel: str = "") -> Coefficient | None:
    """The row for that format and kernel.

    Formats are tried as written, together with the other 16-bit format (no machine has a different rate for it), then
    "any". Of these, rows measured on this device or a relative win over universal ones, the format asked for over its
    twin, and the kernel's own row over the first one, which is the family's default.
    """
    for formats in ((fmt, _SAME_RATE.get(fmt)), ("any",)):
        for near in (True, False):
            for wanted in formats:
                found = [row for row in rows if row.format == wanted and (row.kind in NEAR) is near]
                if found:
                    return next((row for row in found if row.kernel == kernel), found[0])
    return None
