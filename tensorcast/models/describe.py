"""One model in full, for `tensorcast show model`. No torch: what the configuration and the catalogue say."""

from __future__ import annotations

from typing import Any

from tensorcast.models.entries import find_entry
from tensorcast.models.reference import ModelSource, resolve_model


def describe_model(reference: str) -> dict[str, Any]:
    """Facts of the model that `reference` means; the published parameter count for models of the catalogue only."""
    source = resolve_model(reference)
    entry = find_entry(source.name) if source.origin == "catalogue" else None
    return {
        "name": source.name,
        "origin": source.origin,
        "aliases": list(entry.aliases) if entry else [],
        "hub_id": source.hub_id,
        "gated": source.gated,
        "license": entry.license if entry else None,
        "source": entry.source if entry else source.origin.removeprefix("path "),
        "parameters": source.expected_parameters,
        "notes": list(source.notes),
        "config": source.config,
        "hf_quant_config": source.quant_side,
        **_pipeline(source),
    }


def _pipeline(source: ModelSource) -> dict[str, Any]:
    """The pipeline around a denoiser, with its other components."""
    if not source.parts:
        return {}
    parts = {part.name: f"{part.class_name}, {part.parameters or 'unknown'} parameters" for part in source.parts}
    return {"pipeline": source.beside.get("_class_name"), "components": parts}
