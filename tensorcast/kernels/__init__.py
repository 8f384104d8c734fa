"""Implementations that fill op slots, one file per op. `KERNELS` holds them all."""

from __future__ import annotations

import importlib

from tensorcast.kernels.choice import OpSlot
from tensorcast.kernels.registry import KERNELS, HardwareRequirement, KernelSpec

_OPS = ("attention", "mla", "moe", "norm", "projection", "rotary", "swiglu")


def load_kernels() -> None:
    """Register the kernels that ship with TensorCast."""
    for op in _OPS:
        importlib.import_module(f"tensorcast.kernels.{op}")


def list_kernels(hw=None) -> list[dict]:
    """One dict per kernel: op, variant, name, needs, available on `hw` (a HardwareProfile) and why not, description."""
    load_kernels()
    return KERNELS.list(hw)


__all__ = ["KERNELS", "HardwareRequirement", "KernelSpec", "OpSlot", "list_kernels", "load_kernels"]
