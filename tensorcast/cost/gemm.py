"""Dense, batched and grouped matrix products."""

from __future__ import annotations

from tensorcast.cost.roofline import roofline
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work


def product_format(attrs) -> str:
    """Which coefficient a product is priced with: bf16, fp8, fp8_block, int8, int8_wo, int4_wo, nvfp4 …"""
    if attrs.get("dequantize"):
        return f"int{4 if attrs['weight_format'] in ('int4', 'mxfp4', 'nvfp4') else 8}_wo"
    scheme = attrs.get("scheme", "")
    return "fp8_block" if scheme == "fp8-block" else attrs.get("math", "bf16")


def gemm_time(dims, work: Work, attrs, hw) -> Time:
    """y[m, n] = x[m, k] · w[n, k]ᵀ; dims m, n, k."""
    return _product("gemm", work, attrs, hw)


def bmm_time(dims, work: Work, attrs, hw) -> Time:
    """b products [m, k] · [k, n]."""
    return _product("bmm", work, attrs, hw)


def grouped_gemm_time(dims, work: Work, attrs, hw) -> Time:
    """Both products of a rank's routed experts with what goes around them."""
    return _product("grouped_gemm", work, attrs, hw)


def _product(family: str, work: Work, attrs, hw) -> Time:
    coefficient = hw.coefficient(family, product_format(attrs))
    return roofline(work, coefficient, hw, matrix_peak=hw.peak(attrs["math"]), vector_format="fp16")
