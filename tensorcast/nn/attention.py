"""Attention over packed tokens, through the slot kernel of the module that asks for it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.layers.attention import rule_for
from tensorcast.layers.cache import KvLayer
from tensorcast.layers.context_parallel import attend_shared
from tensorcast.layers.rotary import rotating
from tensorcast.layers.state import has_state, state_of
from tensorcast.nn.linear import Linear
from tensorcast.nn.metadata import AttentionMetadata, ModelConfig
from tensorcast.trace.context import current


class RotaryEmbedding(nn.Module):
    """cos and sin [tokens, 1, dim] of positions [tokens], for the first `dim` elements of every head; fp32 unless a
    dtype is asked."""

    def __init__(self, dim: int, base: float = 10000.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ModelError(f"RotaryEmbedding: dim {dim}; an even number of elements turns")
        frequencies = base ** (-torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(
        self, position_ids: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[:, None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


class Attention(nn.Module):
    """Multi-head attention with one product for queries, keys and values: W [(heads + 2·KV heads)·head_dim, hidden].

    Sizes that are not passed come from the configuration: `num_attention_heads`, `num_key_value_heads` (as many as
    heads where it states none), `head_dim` (hidden size by heads where it states none). `bias` is that of the fused
    product, `out_bias` that of the output (as `bias` where left out). `rotary_emb` turns queries and keys; None: they
    stay as they are. `sliding_window`: keys a query sees, 0 = all (unless the configuration's `layer_types` limits
    them). Subclasses may change `q` and `k` in `project` before they are turned.
    """

    is_causal = True

    def __init__(
        self,
        model_config: ModelConfig,
        layer_idx: int,
        *,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        rotary_emb: RotaryEmbedding | None = None,
        sliding_window: int = 0,
    ) -> None:
        super().__init__()
        config = self.config = model_config.pretrained_config
        hidden = model_config.first("hidden_size")
        heads = self.num_heads = num_heads or model_config.first("num_attention_heads")
        shared = self.num_key_value_heads = num_kv_heads or getattr(config, "num_key_value_heads", None) or heads
        width = self.head_dim = head_dim or getattr(config, "head_dim", None) or hidden // heads
        if heads % shared:
            raise ModelError(f"Attention: {heads} heads are not a multiple of {shared} KV heads")
        self.layer_idx, self.sliding_window = layer_idx, sliding_window
        self.scaling = width**-0.5
        self.qkv_proj = Linear(
            hidden,
            (heads + 2 * shared) * width,
            bias,
            dtype=model_config.dtype,
            tensor_parallel_mode="column",
            fused=("q", "k", "v"),
        )
        self.o_proj = Linear(
            heads * width,
            hidden,
            bias if out_bias is None else out_bias,
            dtype=model_config.dtype,
            tensor_parallel_mode="row",
        )
        self.rotary_emb = rotary_emb

    def forward(
        self, position_ids: torch.Tensor | None, hidden_states: torch.Tensor, attn_metadata: AttentionMetadata, **kwargs
    ) -> torch.Tensor:
        """hidden_states [tokens, hidden] → [tokens, hidden]."""
        q, k, v = self.project(hidden_states)
        if self.rotary_emb is not None:
            if position_ids is None:
                raise ModelError("Attention: rotary embedding needs position_ids; pass them on to every layer")
            q, k = rotate(self.rotary_emb, position_ids, q, k)
        return self.o_proj(attend(self, q, k, v, attn_metadata, sliding_window=self.sliding_window))

    def project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [tokens, heads, head_dim], keys and values [tokens, KV heads, head_dim]."""
        heads, shared, width = self.num_heads, self.num_key_value_heads, self.head_dim
        parts = self.qkv_proj(hidden_states).split([heads * width, shared * width, shared * width], dim=-1)
        return tuple(part.unflatten(-1, (-1, width)) for part in parts)


def rotate(rotary: RotaryEmbedding, position_ids, q, k) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys [tokens, heads, head_dim] turned by their position.

    The rotary kernel reads the rows of the table itself: no lookup before it.
    """
    fused = current().model.rotary_kernel is not None
    with current().suspended() if fused else nullcontext():
        cos, sin = rotary(position_ids, q.dtype)
    return turn(q, k, cos, sin)


def _turned(q, k, cos, sin) -> tuple[torch.Tensor, torch.Tensor]:
    width = cos.shape[-1]

    def turn(x):
        head, rest = x[..., :width], x[..., width:]
        low, high = head.chunk(2, dim=-1)
        head = head * cos + torch.cat((-high, low), dim=-1) * sin
        return torch.cat((head, rest), dim=-1) if rest.shape[-1] else head

    return turn(q), turn(k)


turn = rotating(_turned)
"""Queries and keys [tokens, heads, head_dim] turned by cos and sin [tokens, 1, dim], through the model's kernel."""


def attend(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_metadata: AttentionMetadata,
    *,
    scaling: float | None = None,
    sliding_window: int = 0,
) -> torch.Tensor:
    """Causal attention of packed queries [tokens, heads, d] over the keys and values in the cache and the new ones
    [tokens, KV heads, d]; returns [tokens, heads·d].

    `module` is the attention module: it has `is_causal`, `num_heads`, `head_dim` and `layer_idx`, so that it is found
    and given a kernel. Sequences of equal lengths are one call.
    """
    if not has_state(module) or "attention" not in state_of(module).slots:
        needs = "is_causal, num_heads, head_dim and layer_idx"
        raise ModelError(
            f"attend: {type(module).__name__} has no attention slot; give it {needs}, and run patch_attention"
        )
    tokens, groups = attn_metadata.num_tokens, attn_metadata.groups
    if not tokens == q.shape[0] == k.shape[0] == v.shape[0]:
        rows = ", ".join(str(x.shape[0]) for x in (q, k, v))
        raise ModelError(f"attend: attn_metadata has {tokens} tokens, q, k and v have {rows}")
    results, first = [], 0
    for index, (count, new, kv, prefill) in enumerate(groups):
        last = first + count * new
        heads_first = (x[first:last].unflatten(0, (count, new)).transpose(1, 2) for x in (q, k, v))
        results.append(
            _group(module, *heads_first, kv, prefill, scaling, sliding_window, noted=index > 0).flatten(0, 1)
        )
        first = last
    if len(results) == 1:
        return results[0].flatten(1)
    with current().fused():  # kernels for sequences of any lengths write one packed result
        return torch.cat(results).flatten(1)


def _group(module, q, k, v, kv, prefill, scaling, window, noted) -> torch.Tensor:
    """Sequences of equal lengths, [sequences, heads, new tokens, d] → [sequences, new tokens, heads, d]."""
    rule = rule_for(module, q, k, scaling, {"sliding_window": window} if window else {})
    rule = replace(rule, phase="prefill" if prefill else "decode")
    past, limit = kv - q.shape[2], rule.window or rule.chunk
    layer = KvLayer(past, window=limit)
    layer.block = getattr(module, "cache_unit", 1)
    k, v = layer.append(k, v) if noted else layer.update(k, v)  # what a token of this layer keeps is said once
    return attend_shared(state_of(module).slots["attention"], q, k, v, rule)
