"""Shapes of the weights that a graph names: its own `shapes`, the checkpoint's headers, transformers' model, ties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tensorcast.errors import CustomModelError, ModelError
from tensorcast.graph.operators import Op
from tensorcast.graph.recording import ComputeGraph
from tensorcast.models.reference import ModelSource

Shape = tuple[int, ...]
PACKED = ("U8", "I32")
"""Formats of checkpoints whose elements hold several weights: their shapes are not the weight's."""


@dataclass(frozen=True)
class Weights:
    """Shape of every weight that is there; an absent bias has none. `ties`: weights that are another weight."""

    shapes: Mapping[str, Shape]
    ties: Mapping[str, str] = field(default_factory=dict)


def resolve(graph: ComputeGraph, source: ModelSource) -> Weights:
    """The weights of a recorded graph.

    A weight's shape comes from the graph's `shapes`, else from the safetensors headers in the model's folder, else from
    the model that transformers builds of the same configuration. A bias without a shape is absent; so is a head whose
    configuration ties it to the token embedding. Of any other name without a shape, CustomModelError lists all.
    """
    ops = graph._record().ops
    optional = {name for op in ops for name in op.biases}
    names = dict.fromkeys(name for op in ops for name in op.weights)
    headers = _from_headers(source.folder, names)
    shapes = stated_shapes(graph, source.folder)
    stated = graph.config.get("tie_word_embeddings")
    ties, reason = _ties(ops, shapes, stated), ""
    missing = [name for name in names if name not in shapes and name not in ties and name not in optional]
    if missing:
        skeleton, tied, reason = _skeleton(graph, source)
        wanted = missing if headers else names  # a checkpoint knows best which biases there are
        shapes |= {name: skeleton[name] for name in wanted if name not in shapes and name in skeleton}
        ties = _ties(ops, shapes, tied if stated is None else stated)
    unknown = [name for name in missing if name not in shapes and name not in ties]
    if unknown:
        raise CustomModelError(
            f"{type(graph).__name__}: no shape is known of {', '.join(unknown)}; give it in `shapes` of the class, put "
            f"the checkpoint's safetensors files into the model's folder, or use a configuration that transformers "
            f"knows{reason}"
        )
    return Weights(shapes, ties)


def stated_shapes(graph: ComputeGraph, folder: Path | None) -> dict[str, Shape]:
    """Shapes that the graph itself and the checkpoint's headers state, of the weights that the graph names."""
    names = dict.fromkeys(name for op in graph._record().ops for name in op.weights)
    return _from_headers(folder, names) | _declared(graph, names)


def _declared(graph: ComputeGraph, names: Mapping[str, None]) -> dict[str, Shape]:
    """Shapes by the longest pattern of `shapes` that fits a name, an exact name first."""
    found = {}
    patterns = sorted(graph.shapes, key=lambda pattern: (pattern in names, len(pattern)), reverse=True)
    for name in names:
        pattern = name if name in graph.shapes else next((p for p in patterns if fnmatchcase(name, p)), None)
        if pattern is not None:
            found[name] = _shape(graph.shapes[pattern], f"{type(graph).__name__}: shapes[{pattern!r}]")
    return found


def _shape(value: Any, what: str) -> Shape:
    whole = isinstance(value, (tuple, list)) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    if not whole or not value or min(value) < 1:
        raise CustomModelError(f"{what} is {value!r}; a shape is a tuple of whole numbers, outputs before inputs")
    return tuple(value)


def _from_headers(folder: Path | None, names: Mapping[str, None]) -> dict[str, Shape]:
    """Shapes of the named tensors in the checkpoint, packed ones left out; {} where the folder has none."""
    from tensorcast.models.headers import has_checkpoint, read_headers

    if not has_checkpoint(folder):
        return {}
    found = read_headers(folder)
    return {name: found[name].shape for name in names if name in found and found[name].dtype not in PACKED}


def _skeleton(graph: ComputeGraph, source: ModelSource) -> tuple[dict[str, Shape], bool | None, str]:
    """(shapes, whether embedding and head are tied, why there are none) of the model transformers builds."""
    from tensorcast.models.build import build_blueprint

    config = graph.config
    if not (config.get("model_type") or config.get("architectures")):
        return {}, None, ""
    try:
        blueprint = build_blueprint(replace(source, custom=None, config=dict(config)))
    except ModelError as reason:
        return {}, None, f" ({reason})"
    shapes = {name: tuple(parameter.shape) for name, parameter in blueprint.module.named_parameters()}
    return shapes, bool(getattr(blueprint.config, "tie_word_embeddings", False)), ""


def _ties(ops: list[Op], shapes: Mapping[str, Shape], tied: bool | None) -> dict[str, str]:
    """The head without a shape is the token embedding, where the configuration says so."""
    head = next((op for op in reversed(ops) if op.type == "Linear"), None)
    table = next((op for op in ops if op.type == "Embedding" and op.values["input"] == "inputIds"), None)
    if not tied or head is None or table is None or head.values["weight"] in shapes:
        return {}
    return {head.values["weight"]: table.values["weight"]}
