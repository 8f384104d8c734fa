"""Models of diffusers: the class that `_class_name` names, or one given as Python, made from its configuration."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError, near_names
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.recipes import Recipe, Wanted
from tensorcast.models.reference import DENOISE, VAE, VAE_ENCODER, ModelSource

FORMATS = ("dtype", "torch_dtype", "quantization_config")
"""Fields that say in which format weights are, not what the module is made of."""


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    if "_class_name" not in source.config:
        return None
    from tensorcast.diffusion.canvas import ratios
    from tensorcast.diffusion.families import denoiser
    from tensorcast.diffusion.inputs import denoiser_inputs

    model_class = class_of(source)
    family = denoiser(*(base.__name__ for base in model_class.__mro__))
    if family.alone:
        raise ModelError(f"{model_class.__name__} is not run by itself: {family.alone}")
    config, notes = fields_of(model_class, source.config)
    if source.phases in (VAE, VAE_ENCODER):
        notes += (family.fixed,) * bool(family.fixed)
        return _autoencoder(model_class, config, notes, wanted, source.phases, family.prepare)
    sizes, origin = ratios(config, source.beside)
    return Recipe(
        kind="diffusers",
        make=lambda: model_class.from_config(config),
        config=config,
        architecture=model_class.__name__,
        model_type=normalise_type(model_class.__name__),
        origin=f"{model_class.__module__.partition('.')[0]} {model_class.__name__}",
        inputs=lambda model, step: denoiser_inputs(model, step, sizes),
        finish=lambda module: _finish(module, wanted.dtype, family.prepare),
        notes=(f"a latent covers {sizes.space} pixels a side and {sizes.time} frames: {origin}", *notes),
        phases=DENOISE,
    )


def _finish(module: nn.Module, dtype: torch.dtype, prepare: Callable[[nn.Module], None] | None) -> None:
    keep_fp32(module, dtype)
    if prepare is not None:
        prepare(module)


def _autoencoder(
    model_class: type,
    config: dict[str, Any],
    notes: tuple[str, ...],
    wanted: Wanted,
    phases: tuple[str, ...],
    prepare: Callable[[nn.Module], None] | None,
) -> Recipe:
    from tensorcast.diffusion.vae import arguments, one_way

    return Recipe(
        kind="diffusers",
        make=lambda: one_way(model_class.from_config(config), phases),
        config=config,
        architecture=model_class.__name__,
        model_type=normalise_type(model_class.__name__),
        origin=f"{model_class.__module__.partition('.')[0]} {model_class.__name__}",
        inputs=arguments,
        finish=lambda module: _finish(module, wanted.dtype, prepare),
        notes=notes,
        phases=phases,
    )


def is_diffusers(value: Any) -> bool:
    """Whether `value` is a model class of diffusers or a user's own built on it, or an instance of one."""
    named = value if isinstance(value, type) else type(value)
    bases = {f"{base.__module__}.{base.__qualname__}" for base in named.__mro__}
    return issubclass(named, nn.Module) and "diffusers.models.modeling_utils.ModelMixin" in bases


def fields_of(model_class: type, config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What of `config` the class takes, and a note on fields that it does not know (older files have some)."""
    known = inspect.signature(model_class.__init__).parameters
    taken = {name: value for name, value in config.items() if name in known or name == "_class_name"}
    spare = [name for name in config if name not in taken and name not in FORMATS]
    note = f"{model_class.__name__} has no field {', '.join(spare)}: not used, as in diffusers"
    return taken, (note,) if spare else ()


def library_class(own: type) -> str:
    """Name of the class of diffusers that `own` is or is built on: the one that pipelines know."""
    return next(base.__name__ for base in own.__mro__ if base.__module__.startswith("diffusers.models."))


def class_of(source: ModelSource) -> type[nn.Module]:
    """The module class of a source: its own, or the one diffusers has under `_class_name`."""
    own = source.custom.value if source.custom is not None else None
    if is_diffusers(own):
        return own if isinstance(own, type) else type(own)
    name = source.config["_class_name"]
    library = _diffusers()
    found = getattr(library, name, None) if name in dir(library) else None
    if is_diffusers(found):
        return found
    near = near_names(name, [known for known in dir(library) if known[0].isupper()])
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ModelError(
        f"{source.name}: diffusers has no model class {name!r}{hint}; a class of your own goes with --custom"
    )


def keep_fp32(module: nn.Module, wanted: torch.dtype) -> None:
    """Keep in fp32 what the class lists in `_keep_in_fp32_modules`: parameters with one of the names in their path."""
    names = getattr(module, "_keep_in_fp32_modules", None) or ()
    if wanted is torch.float32:
        return
    for path, parameter in module.named_parameters():
        if set(path.split(".")) & {*names}:
            parameter.data = parameter.data.to(torch.float32)


def _diffusers() -> Any:
    try:
        return importlib.import_module("diffusers.models")
    except Exception as reason:
        text = " ".join(str(reason).split())[:300]
        raise ModelError(f"diffusers cannot be imported: {text}; install or reinstall diffusers") from reason
