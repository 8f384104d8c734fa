"""Tensors whose tokens lie on several ranks: which they are, and which operators run on each rank's part alone.

Such a tensor stands for all of its tokens, so that sizes stay polynomials of the work; what a rank computes of it,
⌈tokens / ranks⌉, is worked out when a row is priced (ops.sharded.of_rank). An operator that mixes tokens is refused.
"""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import torch

from tensorcast.errors import DeploymentError
from tensorcast.ops.aten import distinct_bytes
from tensorcast.trace.liveness import tensors_in

POINTWISE = frozenset(
    """add sub rsub mul div neg abs clamp clamp_min clamp_max maximum minimum where masked_fill exp log sqrt rsqrt
    reciprocal square pow sigmoid tanh erf silu gelu relu softplus lerp addcmul clone copy _to_copy contiguous
    empty_like zeros_like ones_like full_like""".split()
)
ROWS = frozenset("rms_norm layer_norm gated_rms_norm swiglu activation".split())  # ours: over the last dimension
NORMS = frozenset("native_layer_norm _fused_rms_norm rms_norm".split())  # torch's: over the dimensions they are told
RESHAPES = frozenset("view _unsafe_view reshape _reshape_alias unsqueeze squeeze alias detach expand".split())
SLICES = frozenset("slice split split_with_sizes chunk narrow select unbind".split())
OVER_DIM = frozenset("mean sum amax amin var _softmax softmax cat".split())  # the dimension is their second argument
SCATTER, GATHER = "reduce_scatter_tokens", "all_gather_tokens"


class Spread:
    """The spread tensors of one trace, by storage: a view of one is one."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._tokens: dict[int, int] = {}

    def tokens(self, tensor: torch.Tensor) -> int:
        """Tokens that a spread tensor stands for, 0 for one that a rank has whole."""
        return self._tokens.get(tensor.untyped_storage()._cdata, 0)

    def put(self, tensor: torch.Tensor, tokens: int) -> None:
        """`tensor` is spread."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._tokens:
            self._tokens[key] = tokens
            weakref.finalize(storage, self._tokens.pop, key, None).atexit = False

    def share(self, tensors) -> float:
        """The part of new tensors' memory that a rank holds; padding, less than a token of each, is not counted.

        So memory stays a polynomial of the work: rounding up would let another moment be the fullest at few tokens.
        """
        return 1 / self.ranks if any(self.tokens(t) for t in tensors) else 1.0

    def follow(self, name: str, args: tuple, inputs: list, outputs: list, where: str) -> int:
        """Take note of an operator's results; the tokens it runs on where those lie on several ranks, else 0.

        DeploymentError, with the module `where`, for one that does not work token by token.
        """
        if name == SCATTER:
            for tensor in outputs:
                self.put(tensor, tensor.numel() // tensor.shape[-1])
        counts = {self.tokens(x) for x in inputs} - {0}
        if not counts or name == GATHER:
            return 0
        tokens = counts.pop()
        if counts or not _keeps_tokens(name.removeprefix("aten::"), args, inputs, outputs, tokens):
            raise DeploymentError(
                f"--sequence-parallel: {name} of {where or 'the model'} reads tokens that lie on several ranks; leave "
                "it out"
            )
        for tensor in outputs:
            self.put(tensor, tokens)
        return tokens

    def sizes(self, tokens: int, dims: dict[str, Any], inputs: list) -> dict[str, Any]:
        """What the sizes of an operator on spread tensors say besides: tokens, and bytes that each rank reads whole."""
        if "read" not in dims:
            return {"tokens": tokens}
        whole = [x for x in inputs if not self.tokens(x) and prod(x.shape[:-1]) != tokens]
        return {"tokens": tokens, "whole": sum(map(distinct_bytes, whole))}


def _keeps_tokens(name: str, args: tuple, inputs: list, outputs: list, tokens: int) -> bool:
    """Whether every token of the results comes of the same token of the inputs."""
    if any(x.numel() % tokens for x in outputs):
        return False
    name = name if name.startswith("_") else name.removesuffix("_")
    if name in POINTWISE or name in ROWS:
        return True
    if name in RESHAPES:
        return all(x.numel() == inputs[0].numel() for x in outputs)
    if name in SLICES:
        return all(x.shape[:-1] == inputs[0].shape[:-1] or x.numel() == inputs[0].numel() for x in outputs)
    if name in NORMS:
        return len(args[1]) == 1
    if name in OVER_DIM and len(args) > 1:
        dims = args[1] if isinstance(args[1], (tuple, list)) else [args[1]]
        last = max(x.dim() for x in tensors_in(args[0])) - 1
        return all(dim in (-1, last) for dim in dims if dim is not None) and None not in dims and len(dims) > 0
    return False
