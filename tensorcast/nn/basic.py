"""Embedding, norm and head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tensorcast.nn.linear import Linear


class Embedding(nn.Embedding):
    """Rows [num_embeddings, embedding_dim] looked up by token id; the model's token embedding is split over ranks."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(num_embeddings, embedding_dim, dtype=dtype)

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take `weight`. ModelError where its shape does not fit."""
        from tensorcast.models.weights import fill

        fill(self.weight, [weights["weight"]])


class RMSNorm(nn.RMSNorm):
    """x · rsqrt(mean(x²) + eps) · weight over the last dimension."""

    def __init__(self, hidden_size: int, eps: float = 1e-6, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(hidden_size, eps, dtype=dtype)


class LMHead(Linear):
    """Logits [tokens, vocab_size] of hidden states: split over the vocabulary, then gathered."""

    def __init__(
        self, vocab_size: int, hidden_size: int, bias: bool = False, *, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(hidden_size, vocab_size, bias, dtype=dtype, tensor_parallel_mode="column_gather")
