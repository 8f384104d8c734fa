"""A product that says itself how it is split over ranks and what a checkpoint calls its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from tensorcast.errors import ModelError


class Linear(nn.Linear):
    """y = x · Wᵀ + b with W [out_features, in_features], built whole.

    `tensor_parallel_mode`: "column" splits the outputs over the ranks of tensor parallelism, "column_gather" puts them
    together again, "row" splits the inputs and adds the results up; None leaves it to the plan or the usual names.
    `fused` names the parts whose rows lie behind each other in W, as in ("q", "k", "v"): a checkpoint has them one by
    one, under `q_proj`, `k_proj`, `v_proj` beside where this module is.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: torch.dtype | None = None,
        tensor_parallel_mode: Literal["column", "column_gather", "row"] | None = None,
        fused: Sequence[str] = (),
    ) -> None:
        if tensor_parallel_mode not in (None, "column", "column_gather", "row"):
            known = "'column', 'column_gather', 'row', None"
            raise ModelError(f"Linear: tensor_parallel_mode {tensor_parallel_mode!r}; one of {known}")
        super().__init__(in_features, out_features, bias, dtype=dtype)
        self.tensor_parallel_mode, self.fused = tensor_parallel_mode, tuple(fused)

    def load_weights(self, weights: Mapping[str, torch.Tensor] | Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Take `weight` and `bias`, whole or one mapping for every fused part. Shapes are checked, nothing is copied.

        ModelError where a shape does not fit.
        """
        from tensorcast.models.weights import fill

        parts = [weights] if isinstance(weights, Mapping) else list(weights)
        for name, parameter in self.named_parameters(recurse=False):
            fill(parameter, [part[name] for part in parts if name in part])
