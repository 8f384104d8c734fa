"""Whole numbers stay real while a tower is traced: grids and boundaries decide shapes, and live on the host.

Tensors of whole numbers are made on the CPU even where the model asks for its own device. An operator that mixes them
with tensors on meta sees shapes only. What runs on the CPU alone is the host's work and leaves no record.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tensorcast.trace.context import current

META = torch.device("meta")
_LITERALS = (torch.tensor, torch.as_tensor)


class Literals(TorchFunctionMode):
    """Numbers written in the code keep their values, whatever device they are asked for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _LITERALS and not isinstance(args[0] if args else kwargs.get("data"), torch.Tensor):
            with current().suspended():
                made = func(*args, **{**kwargs, "device": "cpu"})
            return made.to(META) if made.is_floating_point() else made
        return func(*args, **kwargs)


class HostNumbers(TorchDispatchMode):
    """Runs operators on the device their values are known on."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is torch.ops.aten._to_copy.default and args[0].is_meta:
            return func(*args, **{name: given for name, given in kwargs.items() if name != "device"})
        if not any(t.is_meta for t in tensors):
            return _on_host(func, args, kwargs, bool(tensors))
        if func is torch.ops.aten.eq.Scalar and args[0].is_floating_point():
            return _unlike(args[0])
        if any(t.device.type == "cpu" for t in tensors):
            with current().suspended():
                args, kwargs = _shapes_only(func, args, kwargs)
        return func(*args, **kwargs)


def _unlike(x: torch.Tensor) -> torch.Tensor:
    """Pixels of pictures are like no number: those that are all zero, which models leave out, are not given."""
    with current().suspended():
        return torch.zeros(x.shape, dtype=torch.bool, device="cpu")


def _on_host(func: Any, args: tuple, kwargs: dict, has_tensors: bool) -> Any:
    """An operator on CPU tensors, or one that makes a tensor: whole numbers stay on the CPU, others go where asked."""
    device = kwargs.get("device")
    if device is None or torch.device(device) != META:
        with current().suspended():
            return func(*args, **kwargs)
    if has_tensors:
        with current().suspended():
            made = func(*args, **{**kwargs, "device": "cpu"})
        return made.to(META) if made.is_floating_point() else made
    made = func(*args, **kwargs)
    if made.is_floating_point() or made.is_complex():
        return made
    with current().suspended():
        return func(*args, **{**kwargs, "device": "cpu"})


def _shapes_only(func: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments with every tensor on meta; a mask becomes the positions it picks, whose number is known."""
    if func is torch.ops.aten.masked_select.default and not args[1].is_meta:
        raise NotImplementedError("masked_select with a mask of known values")
    if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
        args = (args[0], _positions(args[1]), *args[2:])
    return pytree.tree_map_only(torch.Tensor, lambda t: t if t.is_meta else t.to(META), (args, kwargs))


def _positions(indices: Any) -> list:
    """Indices without masks of known values: each is replaced by as many indices as it has dimensions."""
    out = []
    for index in indices:
        known = index is not None and not index.is_meta and index.dtype in (torch.bool, torch.uint8)
        out += list(index.nonzero().unbind(1)) if known else [index]
    return out
