"""Reformer: the vector of a position is put together from two small tables, as far as the highest position needs."""

from __future__ import annotations

from math import lcm, prod

import torch

from tensorcast.errors import ModelError
from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def looked_up(module, position_ids: torch.Tensor) -> torch.Tensor:
    """forward of AxialPositionEmbeddings, position_ids [batch, tokens]: one row of the table a token."""
    positions, tokens = prod(module.axial_pos_shape), position_ids.shape[1]
    if tokens > positions:
        raise ModelError(f"reformer: {tokens} tokens, padded to whole chunks, but axial_pos_shape has {positions}")
    with current().suspended():
        width = sum(weight.shape[-1] for weight in module.weights)
        table = torch.empty((positions, width), dtype=module.weights[0].dtype)
    return call.embedding(position_ids, table)


def whole_chunks(model, step) -> dict[str, object]:
    """input_ids [batch, tokens] of the whole sequence, padded to whole chunks once it is longer than one of them."""
    chunks = model.config.local_attn_chunk_length, model.config.lsh_attn_chunk_length
    length, unit = step.past + step.tokens, lcm(*chunks)
    length = -(-length // unit) * unit if length > min(chunks) else length
    # It counts positions itself.
    return {"input_ids": torch.empty((step.batch, length), dtype=torch.long), "position_ids": None}


register_model_profile(
    ModelProfile(
        model_type="reformer",
        forwards={"AxialPositionEmbeddings.forward": looked_up},
        inputs=whole_chunks,
    )
)
