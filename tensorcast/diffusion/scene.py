"""What the arguments of one denoising step depend on: the module, the picture, and how it takes its latents."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from tensorcast.diffusion.canvas import Canvas, Grid, Ratios, grid_for, patch_of
from tensorcast.diffusion.families import Denoiser, denoiser
from tensorcast.errors import InputError

SAMPLES = ("hidden_states", "sample", "x")
"""What the noisy latents are called."""
CHANNELS = ("in_channels", "in_visual_dim", "io_channels", "latent_dim")
"""Fields that state the channels of the latents; the first that is there counts."""
_AXES = {"channel": "c", "dim": "c", "frame": "f", "height": "h", "width": "w"}


@dataclass(frozen=True)
class Scene:
    """All that the arguments depend on."""

    module: nn.Module
    canvas: Canvas
    ratios: Ratios
    batch: int

    @property
    def config(self) -> Mapping[str, Any]:
        return self.module.config

    @property
    def name(self) -> str:
        return type(self.module).__name__

    @cached_property
    def family(self) -> Denoiser:
        return denoiser(*(base.__name__ for base in type(self.module).__mro__))

    @cached_property
    def axes(self) -> str:
        return self.family.axes or axes_of(self.module)

    @cached_property
    def grid(self) -> Grid:
        patch = patch_of(self.config)
        if "n" in self.axes:  # tokens are made outside of the denoiser: latents are joined, or single ones are tokens
            patch = (patch[0], self.ratios.merged if self.ratios.merged > 1 else patch[1])
        multiple = self.family.multiple
        return grid_for(self.canvas, self.ratios, patch, self.name, self.family.whole_groups, multiple)

    @cached_property
    def grids(self) -> list[Grid]:
        """The grid of what is denoised, and of every picture that is read beside it."""
        beside = [replace(self.canvas, height=height, width=width) for height, width in self.canvas.given]
        return [self.grid, *(replace(self, canvas=replace(canvas, given=())).grid for canvas in beside)]

    @property
    def tokens(self) -> int:
        """Tokens of all of them."""
        return sum(grid.tokens for grid in self.grids)

    @property
    def text(self) -> int:
        """Tokens of the prompt."""
        return self.canvas.text_tokens

    def sized(self, *sizes: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Empty tensor [batch, *sizes]."""
        return torch.empty((self.batch, *sizes), dtype=dtype or torch.get_default_dtype())

    def whole(self, *sizes: int) -> torch.Tensor:
        """Whole numbers [batch, *sizes] without values."""
        return self.sized(*sizes, dtype=torch.long)

    def mask(self, *sizes: int, dtype: torch.dtype = torch.bool) -> torch.Tensor:
        """A mask [batch, *sizes] that hides nothing, with its values: some code counts them."""
        return torch.ones((self.batch, *sizes), dtype=dtype, device="cpu")

    def latents(self, channels: int | None, frames: int | None = None) -> torch.Tensor | None:
        """Latents of this picture with so many channels, and with other than its own number of frames if told."""
        if channels is None:
            return None
        if self.canvas.frames > 1 and not {"f", "n", "l"} & {*self.axes}:
            raise InputError(f"--frames {self.canvas.frames}: {self.name} makes single images; leave --frames out")
        if "l" in self.axes:
            sizes = {"c": channels, "l": self.canvas.frames}
        else:
            grid = self.grid
            frames = grid.frames if frames is None else frames
            sizes = {"c": channels, "f": frames, "h": grid.height, "w": grid.width, "n": self.tokens}
        return self.sized(*(sizes[axis] for axis in self.axes[1:]))

    def pixels(self, channels: int = 3) -> torch.Tensor:
        """The picture itself [batch, channels, height, width]."""
        return self.sized(channels, self.canvas.height, self.canvas.width)

    def rotary(self, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of every token of the picture."""
        shape = (self.grid.tokens, width)
        return torch.empty(shape, dtype=torch.float32), torch.empty(shape, dtype=torch.float32)

    def field(self, *names: str) -> int | None:
        """The first of the configuration's fields that holds a number, or a list whose first entry counts."""
        for name in names:
            value = self.config.get(name)
            value = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def width(self, path: str) -> int | None:
        """Inputs of the product or convolution at `path`; None where the module has none there."""
        try:
            part = self.module.get_submodule(path)
        except AttributeError:
            return None
        return next((n for n in (getattr(part, f, None) for f in ("in_features", "in_channels")) if n), None)

    def takes(self, name: str) -> bool:
        """Whether forward has such an argument."""
        return name in inspect.signature(type(self.module).forward).parameters


def axes_of(module: nn.Module) -> str:
    """Axes of the latents that a denoiser takes: `bchw`, `bcfhw`, `bfchw` …, or `bnc` for tokens.

    Its code says so: where forward takes the shape apart; by a product on single tokens; in forward's description.
    """
    source = textwrap.dedent(inspect.getsource(type(module).forward))
    unpacked = [
        [element.id if isinstance(element, ast.Name) else "" for element in target.elts]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
        if isinstance(node.value.value, ast.Name) and node.value.value.id in SAMPLES
        for target in node.targets
        if isinstance(target, ast.Tuple)
    ]
    if found := _sides(unpacked):
        return found
    channels = module.config.get("in_channels")
    if any(isinstance(child, nn.Linear) and child.in_features == channels for child in module.children()):
        return "bnc"
    described = re.findall(r"\((batch[\w ]*(?:, ?[\w ]+)+)\)", source)
    return _sides(text.split(",") for text in described) or "bchw"


def _sides(shapes: Iterable[list[str]]) -> str:
    """The first of the shapes, in words, that has a height and a width: `["batch_size", "_", "h", "w"]` → bchw."""
    for words in shapes:
        axes = ["b", *map(_axis, words[1:])]
        missing = iter(() if "c" in axes else "c")  # at most one axis has no name
        axes = [axis or next(missing, "") for axis in axes]
        if {"h", "w"} <= set(axes) and all(axes):
            return "".join(axes)
    return ""


def _axis(word: str) -> str:
    """`num_channels` → c; "" for a word that names no axis."""
    word = word.strip().lower()
    return next((axis for name, axis in _AXES.items() if name in word), word if word in _AXES.values() else "")
