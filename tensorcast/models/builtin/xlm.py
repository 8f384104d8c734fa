"""XLM: forward takes all ids, looks at how long each sequence is, and runs those that its cache has not seen."""

from __future__ import annotations

import torch

from tensorcast.layers.cache import build_cache
from tensorcast.pipelines import ModelProfile, register_model_profile


def whole_sequences(model, step) -> dict[str, object]:
    """input_ids and position_ids [batch, past + tokens], lengths [batch] with their values, and the cache."""
    length = step.past + step.tokens
    return {
        **{name: torch.empty((step.batch, length), dtype=torch.long) for name in ("input_ids", "position_ids")},
        "lengths": torch.full((step.batch,), length, dtype=torch.long, device="cpu"),
        "cache": build_cache(model.config, step.past),
    }


register_model_profile(ModelProfile(model_type="xlm", inputs=whole_sequences))
