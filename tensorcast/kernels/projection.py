"""Kernels of the qkv_proj op: whether the projections of one input run as one product.

Signature: qkv_proj(module, names) installs the merged product; None = one product each.
"""

from __future__ import annotations

from tensorcast.kernels.registry import KERNELS, KernelSpec


def _fused():
    from tensorcast.layers.merge import merge

    return merge


KERNELS.register(
    KernelSpec("fused", "qkv_proj", _fused, description="query, key and value projections as one product", default=True)
)
KERNELS.register(KernelSpec("eager", "qkv_proj", lambda: None, description="one product for each projection"))
