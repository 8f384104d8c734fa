"""The arguments of one denoising step on meta: a small table by argument name, filled from the configuration."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from tensorcast.diffusion.canvas import Canvas, Grid, Ratios, grid_for, patch_of
from tensorcast.errors import InputError, ModelError

SAMPLES = ("hidden_states", "sample", "x")
"""What the noisy latents are called."""
TIMES = ("timestep", "timesteps", "timestep_ratio", "t")
"""What the time of a denoising step is called."""
TEXT_WIDTHS = (
    "joint_attention_dim", "caption_channels", "text_dim", "text_embed_dim", "cap_feat_dim", "encoder_hid_dim",
    "cross_attention_dim",
)  # fmt: skip
"""Fields that state the width of a prompt's embedding; the first that is there counts."""
IMAGE_TOKENS = 257
"""Tokens that CLIP makes of a picture which a video starts from."""
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
    def axes(self) -> str:
        return axes_of(self.module)

    @cached_property
    def grid(self) -> Grid:
        patch = patch_of(self.config)
        if "n" in self.axes:  # tokens are made outside of the denoiser: latents are joined, or single ones are tokens
            patch = (patch[0], self.ratios.merged if self.ratios.merged > 1 else patch[1])
        return grid_for(self.canvas, self.ratios, patch, self.name)

    def sized(self, *sizes: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Empty tensor [batch, *sizes]."""
        return torch.empty((self.batch, *sizes), dtype=dtype or torch.get_default_dtype())

    def field(self, *names: str) -> int | None:
        """The first of the configuration's fields that holds a number, or a list whose first entry counts."""
        for name in names:
            value = self.config.get(name)
            value = value[0] if isinstance(value, (list, tuple)) and value else value
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None


def denoiser_inputs(model: Any, step: Any, ratios: Ratios) -> dict[str, Any]:
    """Keyword arguments of one forward of the denoiser `model.module`: `step.batch` pictures of the deployed canvas.

    `step.tokens` are those of the prompt. ModelError where the denoiser takes what nothing here can make.
    """
    canvas = replace(model.canvas, text_tokens=step.tokens)
    before = torch.get_default_dtype()
    torch.set_default_dtype(model.blueprint.dtype)
    try:
        return arguments(Scene(model.module, canvas, ratios, step.batch))
    finally:
        torch.set_default_dtype(before)


def arguments(scene: Scene) -> dict[str, Any]:
    """Keyword arguments of one forward, in the default dtype."""
    given: dict[str, Any] = {}
    parameters = inspect.signature(type(scene.module).forward).parameters
    if not {*SAMPLES} & {*parameters} or not {*TIMES} & {*parameters}:
        what = f"its forward takes no latents ({', '.join(SAMPLES)}) or no time ({', '.join(TIMES)})"
        raise ModelError(f"{scene.name} is no denoiser: {what}; describe the model with --custom FILE")
    for name, parameter in parameters.items():
        if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        value = ARGUMENTS[name](scene) if name in ARGUMENTS else None
        if value is not None:
            given[name] = value
        elif parameter.default is parameter.empty:
            what = "its configuration does not say how large that is" if name in ARGUMENTS else "no rule makes one"
            raise ModelError(f"{scene.name}: forward takes {name!r}, and {what}; describe the model with --custom FILE")
    return given


# -- one function an argument: its value, or None where the configuration does without it ------------------------------


def _latents(scene: Scene) -> torch.Tensor:
    grid, channels = scene.grid, scene.field("in_channels")
    if channels is None:
        return None
    if scene.canvas.frames > 1 and "f" not in scene.axes and "n" not in scene.axes:
        raise InputError(f"--frames {scene.canvas.frames}: {scene.name} makes single images; leave --frames out")
    sizes = {"c": channels, "f": grid.frames, "h": grid.height, "w": grid.width, "n": grid.tokens}
    return scene.sized(*(sizes[axis] for axis in scene.axes[1:]))


def _text(scene: Scene) -> torch.Tensor | None:
    width = scene.field(*TEXT_WIDTHS)
    return scene.sized(scene.canvas.text_tokens, width) if width else None


def _text_mask(scene: Scene) -> torch.Tensor | None:
    """Only for denoisers that cannot do without one."""
    parameters = inspect.signature(type(scene.module).forward).parameters
    required = any(p.default is p.empty for name, p in parameters.items() if ARGUMENTS.get(name) is _text_mask)
    return scene.sized(scene.canvas.text_tokens, dtype=torch.long) if required else None


def _pooled(scene: Scene) -> torch.Tensor | None:
    width = scene.field("pooled_projection_dim")
    return scene.sized(width) if width else None


def _guidance(scene: Scene) -> torch.Tensor | None:
    return scene.sized() if scene.config.get("guidance_embeds") else None


def _positions(count: Callable[[Scene], int]) -> Callable[[Scene], torch.Tensor]:
    """One row of coordinates a token, as many as the rotary embedding has axes."""

    def positions(scene: Scene) -> torch.Tensor:
        return torch.empty((count(scene), len(scene.config.get("axes_dims_rope") or (0, 0, 0))))

    return positions


def _rotary(scene: Scene) -> tuple[torch.Tensor, torch.Tensor] | None:
    if not scene.config.get("use_rotary_positional_embeddings"):
        return None
    shape = (scene.grid.tokens, scene.field("attention_head_dim"))
    return torch.empty(shape, dtype=torch.float32), torch.empty(shape, dtype=torch.float32)


def _added(scene: Scene) -> dict[str, torch.Tensor] | None:
    """Size conditions: of a UNet with pooled text and six sizes, of a transformer with resolution and aspect ratio."""
    if scene.config.get("addition_embed_type") == "text_time":
        sizes = 6 * scene.field("addition_time_embed_dim")
        pooled = scene.field("projection_class_embeddings_input_dim") - sizes
        return {"text_embeds": scene.sized(pooled), "time_ids": scene.sized(6)}
    if getattr(scene.module, "use_additional_conditions", False):
        return {"resolution": scene.sized(2), "aspect_ratio": scene.sized(1)}
    return None


def _picture(scene: Scene) -> torch.Tensor | None:
    width = scene.field("image_dim")
    return scene.sized(IMAGE_TOKENS, width) if width else None


def _labels(scene: Scene) -> torch.Tensor | None:
    return scene.sized(dtype=torch.long) if scene.field("num_embeds_ada_norm", "num_class_embeds") else None


ARGUMENTS: Mapping[str, Callable[[Scene], Any]] = {
    **dict.fromkeys(SAMPLES, _latents),
    "timestep": lambda scene: scene.sized(dtype=torch.float32),
    "encoder_hidden_states": _text,
    **dict.fromkeys(("encoder_attention_mask", "encoder_hidden_states_mask", "encoder_mask"), _text_mask),
    "pooled_projections": _pooled,
    "guidance": _guidance,
    "img_ids": _positions(lambda scene: scene.grid.tokens),
    "txt_ids": _positions(lambda scene: scene.canvas.text_tokens),
    "img_shapes": lambda scene: [[scene.grid.cells]] * scene.batch,
    "num_frames": lambda scene: scene.grid.cells[0],
    "height": lambda scene: scene.grid.cells[1],
    "width": lambda scene: scene.grid.cells[2],
    "image_rotary_emb": _rotary,
    "added_cond_kwargs": _added,
    "encoder_hidden_states_image": _picture,
    "class_labels": _labels,
    **dict.fromkeys(("original_size", "target_size", "crop_coords"), lambda scene: scene.sized(2)),
    "return_dict": lambda scene: False,
}


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
