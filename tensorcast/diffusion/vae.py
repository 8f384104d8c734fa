"""The autoencoder of a diffusion pipeline, run one way: latents in and pictures out, or pictures in and latents out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tensorcast.diffusion.canvas import Ratios, grid_for
from tensorcast.diffusion.families import denoiser
from tensorcast.diffusion.pipelines import ratios_of
from tensorcast.diffusion.scene import Scene
from tensorcast.errors import ModelError
from tensorcast.layers.repeated import count_repeated_calls
from tensorcast.models.reference import VAE

CHANNELS = ("latent_channels", "z_dim", "z_channels", "decoder_input_channels", "vocoder_input_dim", "latent_dim")
"""Fields that state the channels of the latents; the first that is there counts."""


def one_way(module: nn.Module, phases: tuple[str, ...]) -> nn.Module:
    """The autoencoder with `decode` or `encode` for its forward; its other half stays where it is, in memory.

    A vocoder has only that way and no name for it. ModelError for a module without.
    """
    verb, half = ("decode", "decoder") if phases == VAE else ("encode", "encoder")
    run = getattr(module, verb, None) or _only_way(module, phases)
    if run is None:
        raise ModelError(f"{type(module).__name__} cannot {verb}; a pipeline's vae is an autoencoder of diffusers")
    plain = {"return_dict": False} if "return_dict" in inspect.signature(run).parameters else {}
    module.forward = lambda made, **sizes: run(made, **sizes, **plain)
    if isinstance(getattr(module, half, None), nn.Module):
        count_repeated_calls(module.get_submodule(half), f"calls of {half}")
    return module


def _only_way(module: nn.Module, phases: tuple[str, ...]) -> Callable | None:
    """The forward of a module that makes sound of latents or of a spectrum."""
    first = next(iter(inspect.signature(module.forward).parameters), "")
    return module.forward if phases == VAE and first in ("mel", "latents") else None


def arguments(model: Any, step: Any) -> dict[str, Any]:
    """Arguments of that forward: latents [batch, channels, (frames,) height, width] of the deployed canvas, or its
    pixels, likewise; latents of sound are [batch, channels, frames]. Some decoders of frames that are pictures of one
    batch are told how many there are."""
    module, canvas = model.module, model.canvas
    name = type(module).__name__
    family = denoiser(name)
    decodes = model.blueprint.source.phases == VAE
    if decodes and "latents" in family.arguments:
        made = family.arguments["latents"](Scene(module, canvas, Ratios(), step.batch))
        return {"made": made.to(model.blueprint.dtype)}
    axes = family.axes or _axes(module)
    if decodes:
        channels = next((n for field in CHANNELS if (n := module.config.get(field))), None)
        space, time = (1, 1) if "l" in axes else ratios_of(module.config)
        if channels is None or space is None:
            raise ModelError(f"{name}: its configuration does not say how large its latents are")
        if "l" in axes:
            return {"made": _empty(model, step.batch, channels, canvas.frames)}
        grid = grid_for(canvas, Ratios(space, time or 1), (1, 1), name, family.whole_groups)
        frames, sides = grid.frames, (grid.height, grid.width)
    else:
        channels, frames, sides = 3, canvas.frames, (canvas.height, canvas.width)
    if decodes and "num_frames" in inspect.signature(module.decode).parameters:
        return {"made": _empty(model, step.batch * frames, channels, *sides), "num_frames": frames}
    return {"made": _empty(model, step.batch, channels, *([frames] * ("f" in axes)), *sides)}


def _axes(module: nn.Module) -> str:
    """`bcfhw` of videos, `bchw` of pictures, `bcl` of sound: what its convolutions run over."""
    kinds = {type(part) for part in module.modules()}
    if any(issubclass(kind, nn.Conv3d) for kind in kinds):
        return "bcfhw"
    return "bchw" if any(issubclass(kind, nn.Conv2d) for kind in kinds) else "bcl"


def _empty(model: Any, *sizes: int) -> torch.Tensor:
    return torch.empty(sizes, dtype=model.blueprint.dtype)
