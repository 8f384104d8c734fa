"""Parameters of one rank: the shapes it holds."""

from __future__ import annotations

import torch
from torch import nn


def empty_parameter(weight, shape) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=weight.dtype, device=weight.device), requires_grad=False)


def smaller(weight, dim, size) -> nn.Parameter:
    """A parameter of `size` in dimension `dim`; one parameter cut twice the same way, as shared ones are, stays one."""
    made = weight.__dict__.setdefault("_cut", {})
    if (dim, size) not in made:
        shape = list(weight.shape)
        shape[dim] = size
        made[dim, size] = empty_parameter(weight, shape)
    return made[dim, size]
