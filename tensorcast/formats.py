"""Number formats: how wide a stored element is, what scales it carries, at which matrix rate it computes.

A format is pure storage plus the name of a rate; the rate itself (FLOP/s) belongs to a hardware profile.

Sources: OCP Microscaling Formats (MX) v1.0 for mxfp8 and mxfp4 (32 elements share one e8m0 scale byte); NVIDIA CUDA
12.8 documentation for nvfp4 (16 elements share one e4m3 scale byte, and a tensor one fp32 scale); OCP 8-bit floating
point v1.0 for the two fp8 encodings; IEEE 754 for fp32 and fp16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorcast.errors import InputError, UnknownNameError

MATHS = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "mxfp4", "nvfp4")
"""Names of the matrix rates a hardware profile may give."""


@dataclass(frozen=True)
class Format:
    """One number format.

    `bits` of an element; `math` the matrix rate (one of `MATHS`) of a product whose operands are both in this format;
    `scale_bits` of the scale that `scale_block` neighbours share (0 where the format itself has none: int8, fp8 … get
    their scales from the quantisation scheme); `tensor_scale_bits` of the scale a whole tensor adds.
    """

    name: str
    bits: int
    math: str
    scale_bits: int = 0
    scale_block: int = 0
    tensor_scale_bits: int = 0

    def __post_init__(self) -> None:
        if self.math not in MATHS:
            raise InputError(f"format {self.name}: unknown math {self.math!r}; one of {', '.join(MATHS)}")
        if self.bits <= 0:
            raise InputError(f"format {self.name}: bits must be positive, not {self.bits}")
        if bool(self.scale_bits) != bool(self.scale_block):
            raise InputError(f"format {self.name}: scale_bits and scale_block go together")

    @property
    def block_scaled(self) -> bool:
        """Whether the format carries scales of its own (mxfp8, mxfp4, nvfp4)."""
        return self.scale_block > 0

    @property
    def is_integer(self) -> bool:
        return self.name.startswith("int")

    @property
    def is_quantised(self) -> bool:
        """Whether values need scales, the format's own or the scheme's: everything of 8 bits or fewer."""
        return self.bits <= 8


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("fp32", 32, "fp32"),
        Format("tf32", 32, "tf32"),  # stored as fp32; only the product is narrower
        Format("bf16", 16, "bf16"),
        Format("fp16", 16, "fp16"),
        Format("fp8", 8, "fp8"),
        Format("fp8_e5m2", 8, "fp8"),
        Format("int8", 8, "int8"),
        Format("int4", 4, "int4"),
        Format("mxfp8", 8, "fp8", scale_bits=8, scale_block=32),
        Format("mxfp4", 4, "mxfp4", scale_bits=8, scale_block=32),
        Format("nvfp4", 4, "nvfp4", scale_bits=8, scale_block=16, tensor_scale_bits=32),
    )
}

ALIASES: dict[str, str] = {
    "float32": "fp32",
    "float": "fp32",
    "f32": "fp32",
    "single": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "f16": "fp16",
    "float8_e4m3fn": "fp8",
    "float8_e4m3fnuz": "fp8",
    "float8_e4m3": "fp8",
    "f8_e4m3": "fp8",
    "e4m3": "fp8",
    "fp8_e4m3": "fp8",
    "float8": "fp8",
    "float8_e5m2": "fp8_e5m2",
    "float8_e5m2fnuz": "fp8_e5m2",
    "f8_e5m2": "fp8_e5m2",
    "e5m2": "fp8_e5m2",
    "i8": "int8",
    "i4": "int4",
}
"""Other spellings: torch dtypes, safetensors dtypes, what vLLM and SGLang flags call them."""


def format_named(name: str | Format) -> Format:
    """The format of that name or alias (`torch.` prefix, case and `-` do not matter).

    Raises UnknownNameError with near names for anything else. `float4_e2m1fn_x2` alone is refused on purpose: the
    element type does not say which scales go with it (mxfp4 or nvfp4).
    """
    if isinstance(name, Format):
        return name
    key = str(name).strip().lower().removeprefix("torch.").replace("-", "_")
    known = FORMATS.get(ALIASES.get(key, key))
    if known is None:
        raise UnknownNameError("number format", str(name), [*FORMATS, *ALIASES], f"one of {', '.join(FORMATS)}")
    return known


def bytes_of(elements: int, fmt: str | Format) -> int:
    """Bytes of `elements` packed elements, rounded up to a whole byte, without scales."""
    return -(-elements * format_named(fmt).bits // 8)


def scale_bytes_of(elements: int, fmt: str | Format, rows: int = 1) -> int:
    """Bytes of the format's own scales for one tensor of `rows` rows holding `elements` in total.

    Blocks do not cross rows, and a part-filled block at a row's end still has its scale. 0 for formats without scales.
    """
    f = format_named(fmt)
    if not f.block_scaled:
        return 0
    blocks = rows * -(-(elements // rows) // f.scale_block)
    return -(-(blocks * f.scale_bits + f.tensor_scale_bits) // 8)


def machine_computes(fmt: str | Format, has: Callable[[str], bool]) -> bool:
    """Whether a machine multiplies two operands of this format natively; `has(math)` says if it has that matrix rate.

    mxfp8 runs at the fp8 rate, but only on matrix units that apply block scales. Those arrived together with
    block-scaled 4-bit formats (PTX ISA 8.7 `mxf8f6f4`, AMD CDNA 4, Ascend 950), so a machine with fp8 alone (H100,
    MI300X) has none.
    """
    f = format_named(fmt)
    if f.name == "mxfp8":
        return has("fp8") and (has("mxfp4") or has("nvfp4"))
    return has(f.math)
