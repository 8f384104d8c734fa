"""A model source becomes a module on the meta device: no weights, no byte of their memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorcast.errors import InputError, ModelError, TensorcastError
from tensorcast.models.blueprint import Blueprint
from tensorcast.models.check import parts
from tensorcast.models.library import library
from tensorcast.models.recipes import Recipe, Wanted, recipe_for
from tensorcast.models.reference import TEXT_ENCODER, ModelSource
from tensorcast.models.roles import FORWARD
from tensorcast.pipelines import patch_config

if TYPE_CHECKING:
    import torch

DTYPES = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16", "half": "float16",
    "float32": "float32", "fp32": "float32", "float": "float32",
}  # fmt: skip

SMALL = 16 << 20
"""Bytes of a tensor that may be made in real memory on its way to meta."""


def build_blueprint(
    source: ModelSource,
    *,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str = "eager",
    experts_implementation: str | None = None,
) -> Blueprint:
    """The model of `source` on the meta device: tied, eval, no gradients.

    `dtype` overrides what the configuration says (bfloat16 where it says nothing). The two implementation names select
    functions registered with transformers. `trust_remote_code` lets a local folder's own classes be imported.
    Raises `ModelError` when no class can hold the configuration.
    """
    wanted = Wanted(
        _dtype(source.config, dtype, source.name), trust_remote_code, attn_implementation, experts_implementation
    )
    with _library_messages() as messages:
        recipe = recipe_for(source, wanted)
        patched = patch_config(recipe.model_type, recipe.config)
        module = _made(recipe, wanted, source.name)
    _require_meta(module, source.name)
    phases = source.phases if source.phases == FORWARD else recipe.phases  # a decoder may be run as an encoder
    carries_config = recipe.kind in ("transformers", "diffusers")
    notes = (*recipe.notes, *_headless(recipe, module), *filter(None, [patched]), *dict.fromkeys(messages))
    return Blueprint(
        module=module,
        config=getattr(module, "config", recipe.config) if carries_config else recipe.config,
        kind=recipe.kind,
        model_type=recipe.model_type,
        architecture=recipe.architecture,
        origin=recipe.origin,
        dtype=wanted.dtype,
        source=replace(source, phases=phases, reading=recipe.reading),
        inputs=recipe.inputs,
        notes=source.notes + notes,
    )


def _made(recipe: Recipe, wanted: Wanted, name: str) -> torch.nn.Module:
    import torch

    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(wanted.dtype)
        with torch.device("meta"), torch.no_grad():
            module = recipe.make()
            _small_to_meta(module)
            if hasattr(module, "tie_weights"):
                module.tie_weights()
    except TensorcastError:
        raise
    except Exception as reason:
        text = f"{type(reason).__name__}: {' '.join(str(reason).split())[:300]}"
        text = recipe.explain(reason) or text if recipe.explain is not None else text
        raise ModelError(f"{name}: {recipe.architecture} cannot be built: {text}") from reason
    finally:
        torch.set_default_dtype(default)
    if recipe.finish is not None:
        recipe.finish(module)
    return module.eval().requires_grad_(False)


def _headless(recipe: Recipe, module: torch.nn.Module) -> tuple[str, ...]:
    """A note for a base model of transformers: its step ends with hidden states."""
    find = getattr(module, "get_output_embeddings", None)
    if recipe.kind != "transformers" or recipe.phases == TEXT_ENCODER or find is None or find() is not None:
        return ()
    return (f"{type(module).__name__} has no output embeddings: no LM head is costed",)


def count_parameters(module: torch.nn.Module) -> int:
    """Elements of the distinct parameters of `module`: a tied tensor counts once, buffers not at all."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _library_messages() -> Iterator[list[str]]:
    """What transformers warns about while a model is built, as lines for the report instead of on stderr."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append("transformers: " + " ".join(record.getMessage().split()))
    library("transformers.utils.logging").get_logger("transformers")  # installs the library's own handler first
    logger = logging.getLogger("transformers")
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield lines
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def _dtype(described: dict, asked: str | None, name: str) -> torch.dtype:
    import torch

    stated = [asked] if asked is not None else [
        value for _, part in parts(described) for value in (part.get("dtype"), part.get("torch_dtype"))
    ]  # fmt: skip
    text = next((value for value in stated if value is not None), "bfloat16")
    key = str(text).removeprefix("torch.").lower()
    if key not in DTYPES:
        error = InputError if asked is not None else ModelError
        raise error(f"{name}: dtype {text!r} is not one a model is built in; use bfloat16, float16 or float32")
    return getattr(torch, DTYPES[key])


def _small_to_meta(module: torch.nn.Module) -> None:
    """Move small tensors that `torch.device("meta")` does not reach: those of legacy constructors and samplers."""
    import torch

    for part in module.modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is None or tensor.is_meta or tensor.nbytes > SMALL:
                continue
            empty = torch.empty_like(tensor, device="meta")
            if name in part._buffers:
                part._buffers[name] = empty
            else:
                part._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)


def _require_meta(module: torch.nn.Module, name: str) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    real = [path for path, tensor in tensors if tensor.device.type != "meta"]
    if real:
        raise ModelError(f"{name}: {real[0]} was allocated in real memory; its code must build on the meta device")
