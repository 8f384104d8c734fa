"""XLM and FlauBERT: forward looks at how long each sequence is. XLM is given all ids and runs those that its cache has
not seen; FlauBERT reads a text once."""

from __future__ import annotations

import torch

from tensorcast.layers.cache import build_cache
from tensorcast.pipelines import ModelProfile, register_model_profile


def whole_sequences(model, step) -> dict[str, object]:
    """input_ids and position_ids [batch, past + tokens], lengths [batch] with their values, and the cache."""
    return {**read_once(model, step), "cache": build_cache(model.config, step.past)}


def read_once(model, step) -> dict[str, torch.Tensor]:
    """The same without a cache."""
    length = step.past + step.tokens
    return {
        **{name: torch.empty((step.batch, length), dtype=torch.long) for name in ("input_ids", "position_ids")},
        "lengths": torch.full((step.batch,), length, dtype=torch.long, device="cpu"),
    }


for _model_type, _inputs in {"xlm": whole_sequences, "flaubert": read_once}.items():
    register_model_profile(ModelProfile(model_type=_model_type, inputs=_inputs))
