"""SigLIP 2: a picture keeps its proportions and is read as patches, whose position table is resized to its grid."""

from __future__ import annotations

from math import isqrt

import torch

from tensorcast.pipelines import ModelProfile, register_model_profile


def one_grid(module, positional_embeddings, spatial_shapes, max_length: int) -> torch.Tensor:
    """resize_positional_embeddings of Siglip2VisionEmbeddings, positional_embeddings [height, width, embed]:
    [pictures, max_length, embed], all of one square grid."""
    side = isqrt(max_length)
    table = positional_embeddings.permute(2, 0, 1).unsqueeze(0)
    resized = torch.nn.functional.interpolate(table, size=(side, side), mode="bilinear", antialias=True)
    rows = resized.reshape(-1, side * side).transpose(0, 1)
    if rows.shape[0] < max_length:  # the rest of the row of patches is padding
        rows = torch.cat([rows, rows[:1].expand(max_length - rows.shape[0], -1)])
    return rows.expand(spatial_shapes.shape[0], -1, -1)


def shapes(model, step) -> dict[str, torch.Tensor]:
    """spatial_shapes [pictures, 2] in patches, and no mask: nothing is padded."""
    return {"spatial_shapes": torch.empty((step.batch, 2), dtype=torch.long), "pixel_attention_mask": None}


for _model_type in ("siglip2", "siglip2_vision_model"):
    register_model_profile(
        ModelProfile(
            model_type=_model_type,
            forwards={"Siglip2VisionEmbeddings.resize_positional_embeddings": one_grid},
            inputs=shapes,
        )
    )
