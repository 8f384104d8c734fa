"""The autoencoder of a diffusion pipeline, run one way: latents in and pictures out, or pictures in and latents out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tensorcast.diffusion.canvas import Ratios, grid_for
from tensorcast.diffusion.pipelines import ratios_of
from tensorcast.errors import ModelError
from tensorcast.layers.repeated import count_repeated_calls
from tensorcast.models.reference import VAE

CHANNELS = ("latent_channels", "z_dim")
"""Fields that state the channels of the latents."""


def one_way(module: nn.Module, phases: tuple[str, ...]) -> nn.Module:
    """The autoencoder with `decode` or `encode` for its forward; its other half stays where it is, in memory.

    ModelError for a module without.
    """
    verb, half = ("decode", "decoder") if phases == VAE else ("encode", "encoder")
    run = getattr(module, verb, None)
    if run is None:
        raise ModelError(f"{type(module).__name__} cannot {verb}; a pipeline's vae is an autoencoder of diffusers")
    module.forward = lambda made: run(made, return_dict=False)
    if isinstance(getattr(module, half, None), nn.Module):
        count_repeated_calls(module.get_submodule(half), f"calls of {half}")
    return module


def arguments(model: Any, step: Any) -> dict[str, torch.Tensor]:
    """Argument of that forward: latents [batch, channels, (frames,) height, width] of the deployed canvas, or its
    pixels, likewise."""
    module, canvas = model.module, model.canvas
    name = type(module).__name__
    video = any(isinstance(part, nn.Conv3d) for part in module.modules())
    if model.blueprint.source.phases == VAE:
        channels = next((n for field in CHANNELS if (n := module.config.get(field))), None)
        space, time = ratios_of(module.config)
        if channels is None or space is None:
            raise ModelError(f"{name}: its configuration does not say how large its latents are")
        grid = grid_for(canvas, Ratios(space, time or 1), (1, 1), name)
        frames, sides = grid.frames, (grid.height, grid.width)
    else:
        channels, frames, sides = 3, canvas.frames, (canvas.height, canvas.width)
    sizes = (channels, *([frames] * video), *sides)
    return {"made": torch.empty((step.batch, *sizes), dtype=model.blueprint.dtype)}
