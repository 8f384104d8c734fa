"""What quantising one linear means: the formats of weight and activation, their scales, and the kernels they add.

Scales, per scheme (a scheme's bytes are those an inference engine keeps resident, bias apart):

==========  ======================================================  =============================  ===================
scheme      weight scales                                           activation                     product runs in
==========  ======================================================  =============================  ===================
w8a8        fp32 per output channel, symmetric                      int8, per token, dynamic       int8
w8a8-static fp32 per output channel, symmetric                      int8, per tensor, static fp32  int8
w8a16       16-bit per output channel, symmetric                    16-bit                         16-bit
w4a16       16-bit per group of 128 inputs, symmetric               16-bit                         16-bit
w4a8        16-bit per group of 128 inputs, symmetric               int8, per token, dynamic       int8
fp8         one fp32 per tensor                                     fp8, per token, dynamic        fp8
fp8-block   fp32 per 128 x 128 block                                fp8, per 1 x 128, dynamic      fp8
mxfp4       e8m0 per 32 inputs                                      16-bit                         16-bit
nvfp4       fp8 per 16 inputs + one fp32 per tensor                 nvfp4, block scales dynamic,   nvfp4
                                                                    one static fp32 per tensor
==========  ======================================================  =============================  ===================

Sources: vLLM `compressed_tensors` schemes and `Fp8LinearMethod` (scale shapes and dtypes), the DeepSeek-V3 model card
(128 x 128 and 1 x 128), the gpt-oss model card (mxfp4 experts, bf16 activations), NVIDIA Model Optimizer (nvfp4). No
named scheme has zero points; checkpoints of AWQ and asymmetric GPTQ do (`weight_zero_point`: as wide as a weight, one
beside each scale).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from tensorcast.errors import DeploymentError, UnknownNameError
from tensorcast.formats import bytes_of, format_named, machine_computes

WIDE = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class QuantSpec:
    """How one linear (or one stack of experts) is quantised.

    `weight`, `activation`: format names. `dynamic`: activation scales are computed at run time from the activation
    itself. `weight_group`: inputs that share a weight scale (0: no groups); `weight_block`: (outputs, inputs) that
    share one; neither: one scale per output channel, or per tensor with `weight_per_tensor`. `activation_group`:
    inputs of one token that share an activation scale (0: one scale per token when dynamic, per tensor when static).
    `scale`: format of weight scales; formats that carry own scales (mxfp8, mxfp4, nvfp4) need neither group nor
    scale. `weight_zero_point`: each scale has a zero point as wide as a weight. Raises DeploymentError for
    combinations no kernel has.
    """

    weight: str
    activation: str = "bf16"
    dynamic: bool = True
    weight_group: int = 0
    weight_block: tuple[int, int] | None = None
    activation_group: int = 0
    weight_per_tensor: bool = False
    weight_zero_point: bool = False
    scale: str = "fp32"

    def __post_init__(self) -> None:
        for field in ("weight", "activation", "scale"):
            object.__setattr__(self, field, format_named(getattr(self, field)).name)
        if self.weight_block is not None:
            object.__setattr__(self, "weight_block", tuple(int(n) for n in self.weight_block))
        w, a = format_named(self.weight), format_named(self.activation)
        pair = f"weights {w.name} with activations {a.name}"
        if not w.is_quantised:
            raise DeploymentError(f"a quantised linear has weights of 8 bits or fewer, not {w.name}")
        if w.bits > a.bits:
            raise DeploymentError(f"{pair}: no kernel multiplies them; activations must be at least as wide as weights")
        if a.is_quantised and a.bits == w.bits and a.math != w.math:
            raise DeploymentError(f"{pair}: no matrix unit multiplies them; use {w.name} or 16-bit activations")
        if a.is_integer and not w.is_integer:
            raise DeploymentError(f"{pair}: floating-point weights need floating-point activations (fp8, bf16)")
        if sum((self.weight_group > 0, self.weight_block is not None, self.weight_per_tensor)) > 1:
            raise DeploymentError(f"{pair}: give one of weight_group, weight_block and weight_per_tensor")
        if self.weight_group < 0 or self.activation_group < 0 or min(self.weight_block or (1,)) < 1:
            raise DeploymentError(f"{pair}: group and block sizes must be positive")
        if w.block_scaled and (self.weight_group or self.weight_block or self.weight_per_tensor):
            raise DeploymentError(f"{w.name} has one scale per {w.scale_block} inputs by definition; leave groups out")

    # -- numbers -----------------------------------------------------------------------------------------------------

    def weight_bytes(self, out_features: int, in_features: int, count: int = 1) -> int:
        """Bytes of `count` weights of [out_features, in_features] with their scales and zero points (see the table
        above).

        A part-filled group or block at an edge still has its scale. A static activation scale (4 bytes) is included.
        """
        w = format_named(self.weight)
        total = bytes_of(out_features * in_features, w)
        if w.block_scaled:
            total += out_features * ceil(in_features / w.scale_block) * w.scale_bits // 8 + w.tensor_scale_bits // 8
        else:
            scales = self.weight_scales(out_features, in_features)
            total += scales * format_named(self.scale).bits // 8
            total += bytes_of(scales, w) if self.weight_zero_point else 0
        return count * (total + self.activation_scale_bytes)

    def weight_scales(self, out_features: int, in_features: int) -> int:
        """How many scales one weight of [out_features, in_features] has, a tensor's own extra scale apart."""
        own = format_named(self.weight).scale_block
        if own or self.weight_group:
            return out_features * ceil(in_features / (own or self.weight_group))
        if self.weight_block:
            return ceil(out_features / self.weight_block[0]) * ceil(in_features / self.weight_block[1])
        return 1 if self.weight_per_tensor else out_features

    @property
    def activation_scale_bytes(self) -> int:
        """Bytes of the calibrated activation scale kept beside the weight: fp32, for static schemes and nvfp4."""
        a = format_named(self.activation)
        return 4 if a.is_quantised and (a.tensor_scale_bits or not self.dynamic) else 0

    def activation_bytes(self, rows: int, features: int) -> int:
        """Bytes of an activation [rows, features] as the product reads it: values and the scales made for it."""
        a = format_named(self.activation)
        total = bytes_of(rows * features, a)
        if a.block_scaled:
            return total + rows * ceil(features / a.scale_block) * a.scale_bits // 8
        if a.is_quantised and self.dynamic:
            total += 4 * rows * (ceil(features / self.activation_group) if self.activation_group else 1)
        return total

    # -- what it takes to run ----------------------------------------------------------------------------------------

    @property
    def math(self) -> str:
        """Matrix rate of the product: that of the wider operand, to which the narrower is expanded (W8A16: bf16)."""
        w, a = format_named(self.weight), format_named(self.activation)
        return w.math if w.bits >= a.bits else a.math

    @property
    def needs_activation_quantise(self) -> bool:
        """Whether a kernel turns 16-bit activations into the narrow format before the product.

        True for static scales too (`dynamic` False): the pass over the activation stays, only its row reduction goes.
        """
        return format_named(self.activation).is_quantised

    @property
    def dequantises_weight(self) -> bool:
        """Whether weights are expanded to a wider format on the way into the product (weight-only schemes, W4A8).

        Not for mxfp4 with mxfp8: block-scaled matrix units take that pair as it is (PTX `mxf8f6f4`).
        """
        if (self.weight, self.activation) == ("mxfp4", "mxfp8"):
            return False
        return format_named(self.weight).bits < format_named(self.activation).bits

    @property
    def extra(self) -> tuple[str, ...]:
        """Work beside the plain product, in order of execution.

        quantize_static, quantize_dynamic: own kernel, reads the 16-bit activation, writes the narrow one (and its
        scales); dequantize_weight: inside the product's kernel, one vector operation per weight element;
        scale_groups: inside the product's kernel, partial sums are rescaled per weight group or block; scale_output:
        inside the product's epilogue, one multiply per output element.
        """
        kernels = []
        if self.needs_activation_quantise:
            kernels.append("quantize_dynamic" if self.dynamic else "quantize_static")
        if self.dequantises_weight:
            kernels.append("dequantize_weight")
        elif self.weight_group or self.weight_block:
            kernels.append("scale_groups")
        if not format_named(self.weight).block_scaled and not self.weight_group and not self.weight_block:
            kernels.append("scale_output")
        return tuple(kernels)

    def runs_on(self, has: Callable[[str], bool]) -> bool:
        """Whether a machine computes the product natively; `has(math)` says if it has that matrix rate."""
        w, a = format_named(self.weight), format_named(self.activation)
        return machine_computes(w if w.bits >= a.bits else a, has)

    @property
    def label(self) -> str:
        """Short text for reports: the scheme's name where there is one, else the two formats and the grain."""
        wide = self if format_named(self.activation).is_quantised else replace(self, activation="bf16")
        wide = replace(wide, scale="bf16") if wide.scale == "fp16" else wide
        for name, spec in SCHEMES.items():
            if spec == wide:
                return name
        grain = f" g{self.weight_group}" if self.weight_group else ""
        grain += f" {self.weight_block[0]}x{self.weight_block[1]}" if self.weight_block else ""
        grain += " static" if self.needs_activation_quantise and not self.dynamic else ""
        return f"w:{self.weight} a:{self.activation}{grain}"


SCHEMES: dict[str, QuantSpec] = {
    "w8a8": QuantSpec("int8", "int8"),
    "w8a8-static": QuantSpec("int8", "int8", dynamic=False),
    "w8a16": QuantSpec("int8", "bf16", scale="bf16"),
    "w4a16": QuantSpec("int4", "bf16", weight_group=128, scale="bf16"),
    "w4a8": QuantSpec("int4", "int8", weight_group=128, scale="bf16"),
    "fp8": QuantSpec("fp8", "fp8", weight_per_tensor=True),
    "fp8-block": QuantSpec("fp8", "fp8", weight_block=(128, 128), activation_group=128),
    "mxfp4": QuantSpec("mxfp4", "bf16"),
    "nvfp4": QuantSpec("nvfp4", "nvfp4"),
}
"""The names `--quant` takes."""


def scheme_named(name: str, dtype: str = "bf16") -> QuantSpec:
    """The named scheme for a model whose 16-bit type is `dtype`. Raises UnknownNameError with near names."""
    key = name.strip().lower().replace("_", "-")
    if key not in SCHEMES:
        raise UnknownNameError("quantisation scheme", name, SCHEMES, f"one of auto, none, {', '.join(SCHEMES)}")
    return with_dtype(SCHEMES[key], dtype)


def with_dtype(spec: QuantSpec, dtype: str) -> QuantSpec:
    """The same scheme with the model's 16-bit (or 32-bit) type in place of bf16 for activations and 16-bit scales."""
    dtype = format_named(dtype).name
    activation = dtype if spec.activation in WIDE else spec.activation
    return replace(spec, activation=activation, scale=dtype if spec.scale in ("bf16", "fp16") else spec.scale)


def nearest(spec: QuantSpec | str, has: Callable[[str], bool], dtype: str = "bf16") -> str | None:
    """Name of the scheme most like `spec` that a machine runs natively, or None when it runs none.

    `dtype` is the model's 16-bit type, in which weight-only schemes compute.
    Likeness, in this order: bits of the weight, bits of the activation, integer or floating point, static or dynamic.
    """
    spec = scheme_named(spec) if isinstance(spec, str) else spec
    w, a = format_named(spec.weight), format_named(spec.activation)

    def distance(name: str) -> tuple[int, int, bool, bool, int]:
        other = SCHEMES[name]
        ow, oa = format_named(other.weight), format_named(other.activation)
        return (
            abs(ow.bits - w.bits),
            abs(oa.bits - a.bits),
            ow.is_integer != w.is_integer,
            other.dynamic != spec.dynamic,
            list(SCHEMES).index(name),
        )

    able = [name for name, other in SCHEMES.items() if with_dtype(other, dtype).runs_on(has)]
    return min(able, key=distance, default=None)
