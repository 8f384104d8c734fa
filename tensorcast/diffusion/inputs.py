"""The arguments of one denoising step on meta: a small table by argument name, filled from the configuration.

What a class takes beyond it is in its family's file (diffusion.families).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from tensorcast.diffusion.canvas import Ratios
from tensorcast.diffusion.scene import CHANNELS, SAMPLES, Scene
from tensorcast.errors import ModelError

TIMES = ("timestep", "timesteps", "timestep_ratio", "t")
"""What the time of a denoising step is called."""
TEXT_WIDTHS = (
    "joint_attention_dim", "caption_channels", "text_dim", "text_embed_dim", "cap_feat_dim", "encoder_hid_dim",
    "text_in_dim", "in_text_dim", "context_in_dim", "cross_attention_input_dim", "cond_token_dim", "dit_text_dim",
    "encoder_hidden_size", "cross_attention_dim",
)  # fmt: skip
"""Fields that state the width of a prompt's embedding; the first that is there counts."""
IMAGE_TOKENS = 257
"""Tokens that CLIP makes of a picture which a video starts from."""


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
    family, given = scene.family, {}
    if family.alone:
        raise ModelError(f"{scene.name} is not run by itself: {family.alone}")
    parameters = inspect.signature(type(scene.module).forward).parameters
    if not family.arguments and (not {*SAMPLES} & {*parameters} or not {*TIMES} & {*parameters}):
        what = f"its forward takes no latents ({', '.join(SAMPLES)}) or no time ({', '.join(TIMES)})"
        raise ModelError(f"{scene.name} is no denoiser: {what}; describe the model with --custom FILE")
    for name, parameter in parameters.items():
        if name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        rule = family.arguments.get(name) or ARGUMENTS.get(name)
        value = rule(scene) if rule is not None else None
        if value is not None:
            given[name] = value
        elif parameter.default is parameter.empty:
            what = "its configuration does not say how large that is" if rule is not None else "no rule makes one"
            raise ModelError(f"{scene.name}: forward takes {name!r}, and {what}; describe the model with --custom FILE")
    return given


# -- one function an argument: its value, or None where the configuration does without it ------------------------------


def _text(scene: Scene) -> torch.Tensor | None:
    width = scene.field(*TEXT_WIDTHS)
    return scene.sized(scene.text, width) if width else None


def _text_mask(scene: Scene) -> torch.Tensor | None:
    """Only for denoisers that cannot do without one."""
    parameters = inspect.signature(type(scene.module).forward).parameters
    required = any(p.default is p.empty for name, p in parameters.items() if ARGUMENTS.get(name) is _text_mask)
    return scene.whole(scene.text) if required else None


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
    return scene.rotary(scene.field("attention_head_dim"))


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
    return scene.whole() if scene.field("num_embeds_ada_norm", "num_class_embeds") else None


def _time(scene: Scene) -> torch.Tensor:
    return scene.sized(dtype=torch.float32)


ARGUMENTS: Mapping[str, Callable[[Scene], Any]] = {
    **dict.fromkeys(SAMPLES, lambda scene: scene.latents(scene.field(*CHANNELS))),
    **dict.fromkeys(TIMES, _time),
    "encoder_hidden_states": _text,
    **dict.fromkeys(("encoder_attention_mask", "encoder_hidden_states_mask", "encoder_mask"), _text_mask),
    "pooled_projections": _pooled,
    "guidance": _guidance,
    "img_ids": _positions(lambda scene: scene.tokens),
    "txt_ids": _positions(lambda scene: scene.text),
    "img_shapes": lambda scene: [[grid.cells for grid in scene.grids]] * scene.batch,
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
