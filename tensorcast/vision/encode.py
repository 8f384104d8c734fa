"""One pass of a vision tower and its projector over the images of every sequence of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from tensorcast.errors import ModelError, TensorcastError
from tensorcast.trace.context import current
from tensorcast.trace.library import call
from tensorcast.trace.liveness import tensors_in
from tensorcast.vision.host import HostNumbers, Literals
from tensorcast.vision.processor import processed
from tensorcast.vision.rules import Made


def feature_method(module: Any) -> Callable | None:
    """`get_image_features` of the model, or of the part of it that names more of what must be given."""
    methods = [getattr(part, "get_image_features", None) for part in (module, getattr(module, "model", None))]
    named = [method for method in methods if method is not None and "pixel_values" in _arguments(method)]
    return max(named, key=lambda method: len(_needed(method)), default=None)


def _arguments(method: Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(method).parameters


def _needed(method: Callable) -> list[str]:
    """Names of the arguments that have no default."""
    return [n for n, p in _arguments(method).items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


def vision_inputs(model, step) -> dict[str, Any]:
    """The arguments of `get_image_features` for the images of `step.batch` sequences: pixels on meta, numbers real."""
    made = _request_images(model)
    pixels = {
        name: torch.empty((step.batch * shape[0], *shape[1:]), dtype=model.blueprint.dtype, device="meta")
        for name, shape in made.pixels.items()
    }
    numbers = {name: _repeated(value, step.batch) for name, value in made.numbers.items()}
    known, name = pixels | numbers, model.blueprint.source.name
    method = _method(model)
    if missing := [needed for needed in _needed(method) if needed not in known]:
        what = f"get_image_features takes {', '.join(missing)}, which the image processor does not make"
        raise ModelError(f"{name}: {what}; leave --image out")
    return {name: value for name, value in known.items() if name in _arguments(method)}


def encode_images(model, inputs: dict[str, Any]) -> None:
    """Run tower and projector and join their features to the text; `model.image_tokens` is how many tokens they are."""
    try:
        with HostNumbers(), Literals():
            result = _method(model)(**inputs)
            features = _features(model, result)
    except TensorcastError:
        raise
    except Exception as fault:
        text = " ".join(str(fault).split())[:300]
        where = f"{model.architecture}.get_image_features does not run on the meta device"
        raise ModelError(f"{model.blueprint.source.name}: {where}: {type(fault).__name__}: {text}") from fault
    hidden = _width(model)
    model.image_tokens = sum(t.numel() for t in features) // hidden
    join_images(model, model.image_tokens, _deepstack(result))


def join_images(model, rows: int, added: list[int]) -> None:
    """Put `rows` features in place of their tokens' embeddings, and add as many to the results of layers `added`."""
    stack = model.main_stack
    path = stack.path if stack is not None else ""
    features = torch.empty((rows, _width(model)), dtype=model.blueprint.dtype, device="meta")
    with current().scope(path.rpartition(".")[0]):
        call.join_images(features, False)
    for layer in added:
        with current().scope(f"{path}.{layer}"):
            call.join_images(features, True)


def _deepstack(result: Any) -> list[int]:
    """Decoder layers to whose results further features are added: those named beside the features, or the first."""
    sets = getattr(result, "deepstack_features", None) or ()
    return [each[0] if isinstance(each, tuple) and isinstance(each[0], int) else n for n, each in enumerate(sets)]


def _request_images(model) -> Made:
    """What the images that are shown become; made once, with a note on what was done to those of a request."""
    known, source = model.__dict__.setdefault("_images", {}), model.blueprint.source
    if model.shown not in known:
        with torch.device("cpu"):
            known[model.shown], origin = processed(model.config, model.shown, source.folder, source.name)
        if model.shown == model.deployment.images:
            _say(model, known[model.shown], origin)
    return known[model.shown]


def _say(model, made: Made, origin: str) -> None:
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in made.pixels.items())
    model.notes.append(f"images as {origin} makes them: {shapes}{_grids(made)}")
    model.notes.append(
        "the language model runs image tokens as it runs text; tokens that mark where an image begins, breaks or ends "
        "are text"
    )
    towers = [path for path in model.unsharded if path != "\0"]
    if model.plan.tp > 1 and towers and not model.visual_rules:
        model.notes.append(f"every rank runs the whole vision tower ({', '.join(towers)})")


def _grids(made: Made) -> str:
    for name in ("image_grid_thw", "image_sizes"):
        if name in made.numbers:
            what = "patches" if name == "image_grid_thw" else "pixels"
            return f" ({', '.join('x'.join(map(str, row[-2:])) for row in made.numbers[name])} {what})"
    return ""


def _repeated(value: list, batch: int) -> torch.Tensor:
    with torch.device("cpu"):
        one = torch.tensor(value)
        return one.repeat(batch, *[1] * (one.dim() - 1)) if one.dim() else one


def _method(model) -> Callable:
    method = feature_method(model.module)
    if method is None:
        what = f"{type(model.module).__name__} has no get_image_features that takes pixel_values"
        raise ModelError(f"{model.blueprint.source.name}: {what}; leave --image out")
    return method


def _features(model, result: Any) -> list[torch.Tensor]:
    """The features, as wide as the language model's tokens; ModelError where they are something else.

    Some models project features only where they put them among the text: that is done here.
    """
    features = getattr(result, "pooler_output", result)
    features = result.last_hidden_state if features is None else features
    tensors, hidden = tensors_in(features), _width(model)
    project = next((p for m in (model.module, getattr(model.module, "model", None)) if (p := _projector(m))), None)
    if project is not None and any(t.shape[-1] != hidden for t in tensors):
        tensors = [project(t.reshape(-1, t.shape[-1])) for t in tensors]
    if not tensors or any(t.shape[-1] != hidden for t in tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or type(features).__name__
        raise ModelError(f"{model.blueprint.source.name}: image features {hidden} wide expected, not {shapes}")
    return tensors


def _projector(module: Any) -> Any:
    return getattr(module, "multi_modal_projector", None)


def _width(model) -> int:
    """Elements of a token where it enters the decoder."""
    embedding = model.token_embedding
    return embedding.weight.shape[-1] if embedding is not None else int(getattr(model.text_config, "hidden_size", 0))
