"""MusicGen's decoder: a token is one code of each codebook, whose embeddings are added up."""

from __future__ import annotations

import torch

from tensorcast.pipelines import ModelProfile, register_model_profile


def codes(model, step) -> dict[str, torch.Tensor]:
    """input_ids [batch · codebooks, tokens]."""
    return {"input_ids": torch.empty((step.batch * model.config.num_codebooks, step.tokens), dtype=torch.long)}


for _model_type in ("musicgen_decoder", "musicgen_melody_decoder"):
    register_model_profile(ModelProfile(model_type=_model_type, inputs=codes))
