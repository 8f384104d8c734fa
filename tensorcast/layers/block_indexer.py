"""Sparse attention that picks blocks of keys: the indexer as products, a cache write and one scoring operator.

Model code scores every key and builds a mask over all pairs; kernels score blocks and read only those that were picked.
A query's own block counts as whole, so that less than a block of keys too many is counted.
"""

from __future__ import annotations

from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call

_PARTS = ("q_proj", "k_proj", "q_norm", "k_norm", "block_size", "topk_blocks", "layer_idx")


def picks_blocks(indexer) -> bool:
    """Whether a module is such an indexer."""
    return all(hasattr(indexer, name) for name in _PARTS)


def block_indexer_forward(module, hidden_states, position_embeddings, past_key_values, position_ids):
    """forward of an indexer: hidden_states [b, s, hidden] → the blocks each query picks, [b, heads, s, blocks]."""
    b, s, _ = hidden_states.shape
    q = module.q_norm(module.q_proj(hidden_states).view(b, s, -1, module.head_dim)).transpose(1, 2)
    k = module.k_norm(module.k_proj(hidden_states).view(b, s, 1, module.head_dim)).transpose(1, 2)
    table = position_embeddings[0]
    turned = min(getattr(table, "_rotated", 0) or module.head_dim, module.head_dim)
    call.rotary(q[..., :turned], k[..., :turned], table)
    if past_key_values is not None:
        k = past_key_values.layers[module.layer_idx].update_indexer(k)
    fmt = current().model.index_format
    blocks = call.block_scores(q, k, module.block_size, module.topk_blocks, fmt, dtype_name(q))
    blocks._block = module.block_size
    return blocks
