"""The model source of a graph: it is recorded once, before anything else asks for its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tensorcast.custom.loading import Custom
from tensorcast.errors import CustomModelError
from tensorcast.graph.recording import POSITIONS, ComputeGraph, position_limit, record
from tensorcast.graph.text import WrittenGraph
from tensorcast.graph.weights import stated_shapes
from tensorcast.models.overrides import DEPTH, apply_overrides, keep_layers
from tensorcast.models.reference import ModelSource

READ_LATE = (*POSITIONS, "tie_word_embeddings", "dtype", "torch_dtype", "quantization_config")
"""Fields that count after the operators are recorded."""


def graph_source(
    custom: Custom, base: ModelSource | None, overrides: Mapping[str, Any], layers: int | None
) -> ModelSource:
    """The source of a graph, its `custom` recorded with the configuration as asked.

    The configuration is that of `base`, which has `overrides` and `layers` already, else the graph's own. A change that
    the graph's `build` takes back, or that comes too late for a written graph, is a CustomModelError.
    """
    name = getattr(custom.value, "__name__", None) or type(custom.value).__name__
    if base is None:
        config = apply_overrides(dict(getattr(custom.value, "config", {}) or {}), overrides, name)
        config = keep_layers(config, layers, name) if layers is not None else config
        base = ModelSource(name, "Python", config)
    graph = record(custom.value, base.config)
    asked = dict(overrides)
    if layers is not None:
        asked |= {field: layers for field in DEPTH if field in base.config}
    _check_counts(graph, asked, name)
    config = {**graph.config, "max_positions": position_limit(graph.config, name)}
    shapes = repr(sorted(stated_shapes(graph, base.folder).items()))
    stamp = custom.stamp and f"{custom.stamp}:{hashlib.sha256(shapes.encode()).hexdigest()}"
    return replace(base, config=config, custom=replace(custom, value=graph, stamp=stamp))


def _check_counts(graph: ComputeGraph, asked: Mapping[str, Any], name: str) -> None:
    """Whatever was asked of the configuration must count."""
    for key, value in asked.items():
        if isinstance(graph, WrittenGraph) and key not in (*READ_LATE, *graph.fields_read):
            raise CustomModelError(
                f"{name}: {key} cannot be changed, the operators of a written graph are fixed; give the .py file that "
                f"it was written from"
            )
        if "." not in key and graph.config.get(key) != value:
            said = graph.config.get(key)
            raise CustomModelError(f"{name}: {key} {value!r} is asked, but build() sets {said!r} itself")
