"""Dense, batched and grouped matrix products, and the quantisation of their inputs."""

from __future__ import annotations

from dataclasses import replace

from tensorcast.cost.roofline import roofline
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def product_format(attrs) -> str:
    """The format that a product's coefficients are kept under: bf16, fp8, fp8_block, int8, int8_wo, int4_wo, nvfp4 …"""
    if attrs.get("dequantize") and attrs["math"] in ("bf16", "fp16", "fp32"):
        return f"int{4 if attrs['weight_format'] in ('int4', 'mxfp4', 'nvfp4') else 8}_wo"
    return "fp8_block" if attrs.get("scheme") == "fp8-block" else attrs["math"]


def product_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """y[m, n] = x[m, k] · w[n, k]ᵀ, batched or grouped by experts."""
    return roofline(work, coefficient, hw, matrix_peak=hw.peak(attrs["math"]), vector_format="fp16")


def quantize_time(dims, work: Work, attrs, hw, coefficient) -> Time:
    """Quantise activations for a product. Where the product's own figures include this kernel, only its bytes count."""
    time = roofline(work, coefficient, hw, vector_format=attrs["in_format"])
    measured_with = hw.coefficient("gemm", product_format(attrs))
    return replace(time, overhead=0.0) if "quantize" in measured_with.includes else time
