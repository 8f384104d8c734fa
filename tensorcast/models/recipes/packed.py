"""Packed models: classes of tensorcast.nn, given as Python or registered for an architecture.

All tokens of a step lie behind each other in one dimension; an AttentionMetadata says whose they are.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from tensorcast.errors import ModelError
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.builders import Builder, builder_for, named_config, origin_of
from tensorcast.models.objects import is_packed
from tensorcast.models.recipes import Recipe, Step, Wanted
from tensorcast.models.recipes.transformers import config_made, config_object
from tensorcast.models.reference import ModelSource
from tensorcast.nn.metadata import AttentionMetadata, ModelConfig


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    found = _class_of(source)
    if found is None:
        return None
    builder, origin = found
    model_class = builder.model_class
    if not source.config:
        raise ModelError(f"{source.name}: no configuration to build {model_class.__name__} from; give --model FOLDER")
    if builder.config_class is not None:
        config = config_made(builder.config_class, source.config, source.name)
    else:
        config = config_object(source) or SimpleNamespace(**source.config)
    return Recipe(
        kind="packed",
        make=lambda: model_class(ModelConfig(config, dtype=wanted.dtype)),
        config=config,
        architecture=model_class.__name__,
        model_type=normalise_type(source.config.get("model_type") or model_class.__name__),
        origin=origin,
        inputs=packed_inputs,
    )


def _class_of(source: ModelSource) -> tuple[Builder, str] | None:
    """The packed class of a source and where it came from; None when it is of another kind."""
    custom = source.custom
    if custom is not None and is_packed(custom.value):
        return Builder(custom.value, named_config(custom.value)), custom.origin
    if custom is not None or "_class_name" in source.config:
        return None
    entry = builder_for(source.config)
    return (entry.value, origin_of(entry)) if entry is not None and is_packed(entry.value.model_class) else None


def packed_inputs(model, step: Step) -> dict[str, Any]:
    """Token ids and positions [tokens of all sequences], and whose they are."""
    new, past = zip(*step.sequences, strict=True)
    metadata = AttentionMetadata(
        seq_lens=new,
        kv_lens=tuple(n + p for n, p in zip(new, past, strict=True)),
        num_contexts=0 if step.phase == "decode" else len(new),
    )
    ids = torch.empty(metadata.num_tokens, dtype=torch.long)
    return {"attn_metadata": metadata, "input_ids": ids, "position_ids": torch.empty_like(ids)}
