"""The picture or video that is made, in pixels, and what a denoiser sees of it: latents and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

from tensorcast.diffusion.families import denoiser
from tensorcast.diffusion.pipelines import PipelineFacts, facts_for, ratios_of
from tensorcast.errors import InputError


@dataclass(frozen=True)
class Canvas:
    """What one denoising step works on: pixels of one side, frames (1 = an image), tokens of a prompt.

    `given`: (height, width) of pictures whose latents are read beside those that are denoised.
    """

    height: int
    width: int
    frames: int
    text_tokens: int
    given: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Ratios:
    """Pixels that a latent covers along one side, frames that a latent frame covers, latents joined along one side."""

    space: int = 8
    time: int = 1
    merged: int = 1


def pipeline_facts(config: Mapping[str, Any], beside: Mapping[str, Any]) -> PipelineFacts:
    """Facts of the pipeline around a denoiser: the one whose folder it lies in, else those that use its class."""
    return facts_for(str(config["_class_name"]), beside.get("_class_name"))


def ratios(config: Mapping[str, Any], beside: Mapping[str, Any]) -> tuple[Ratios, str]:
    """The ratios of a denoiser, and where they come from: its pipeline's VAE, else what its pipelines state."""
    facts, vae = pipeline_facts(config, beside), beside.get("vae") or {}
    space, time = ratios_of(vae)
    origin = f"the pipeline's {vae.get('_class_name', 'VAE')}" if space else facts.name
    family = denoiser(str(config["_class_name"]))
    own = family.space(config) if callable(family.space) else None
    space, time = space or own or facts.space or family.space, time or facts.time or family.time
    if space is None:
        what = "no VAE lies beside it and no pipeline of diffusers states how large its latents are"
        raise InputError(f"{config['_class_name']}: {what}; give the pipeline's folder, with vae/config.json")
    return Ratios(space, time or 1, isqrt(facts.merged or 1)), origin


@dataclass(frozen=True)
class Grid:
    """Sizes of the latents and of the patches that become tokens."""

    frames: int
    height: int
    width: int
    patch: tuple[int, int]  # latents along (time, one side) that become one token

    @property
    def cells(self) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        return self.frames // self.patch[0], self.height // self.patch[1], self.width // self.patch[1]

    @property
    def tokens(self) -> int:
        frames, height, width = self.cells
        return frames * height * width


def patch_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """(time, side) of a patch as the configuration states it; (1, 1) where it states none."""
    size, along = config.get("patch_size") or 1, config.get("patch_size_t")
    if isinstance(size, Sequence):
        return (int(size[0]) if len(size) == 3 else int(along or 1)), int(size[-1])
    return int(along or 1), int(size)


def grid_for(
    canvas: Canvas, ratios: Ratios, patch: tuple[int, int], name: str, whole_groups: bool = False, multiple: int = 1
) -> Grid:
    """The latents of `canvas`; InputError naming the multiple when it does not divide into tokens.

    `whole_groups`: frames come in groups of `ratios.time`; otherwise the first one is a latent frame of its own.
    `multiple`: latents along one side that belong together, where they are more than a patch.
    """
    unit = ratios.space * max(patch[1], multiple)
    for side in (canvas.height, canvas.width):
        if side % unit:
            near = sorted({max(unit, side // unit * unit), -(-side // unit) * unit})
            what = f"both sides must be multiples of {unit} for {name}"
            raise InputError(f"--image {canvas.height}x{canvas.width}: {what}; nearest: {' and '.join(map(str, near))}")
    first = 0 if whole_groups else 1
    over = (canvas.frames - first) % ratios.time
    if over:
        near = [n for n in (canvas.frames - over, canvas.frames - over + ratios.time) if n > 0]
        what = f"{'one more than ' * first}a multiple of {ratios.time} for {name}"
        raise InputError(f"--frames {canvas.frames}: must be {what}; nearest: {' and '.join(map(str, near))}")
    frames = (canvas.frames - first) // ratios.time + first
    if frames % patch[0]:
        frames += -frames % patch[0]  # video models fill the last patch up with copies of a frame
    return Grid(frames, canvas.height // ratios.space, canvas.width // ratios.space, patch)
