"""Kernels of the projections.

qkv_proj(module, names): installs the projections of one input as one product; eager = one product each.
row_linear(x, module) -> the summed result: a product whose inputs are split over ranks; eager = product, then sum.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _merged():
    from tensorcast.layers.merge import merge

    return merge


def _overlapped():
    from tensorcast.layers.linear import summed_linear

    return summed_linear


def _sums_on_all(model) -> str | None:
    if not model.plan.sequence_parallel:
        return None
    return "leaves a part of every sum on each rank (--sequence-parallel); use eager"


KERNELS.register(
    KernelSpec(
        "fused", "qkv_proj", _merged, description="query, key and value projections as one product", default=True
    )
)
KERNELS.register(
    KernelSpec(
        "fused",
        "row_linear",
        _overlapped,
        description="product and sum over the ranks as one kernel; the links work beside the product",
        requires=_sums_on_all,
    )
)
