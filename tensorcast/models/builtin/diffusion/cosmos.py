"""Cosmos: world models whose latents carry masks of condition and padding."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from tensorcast.diffusion.families import register_denoiser


def _padding(s):
    import torch

    return torch.empty((1, 1, s.canvas.height, s.canvas.width))


def _resizes_masks(module):
    """Its code resizes the padding mask with torchvision, which need not be installed: torch's own does the same."""
    from torch.nn.functional import interpolate

    def resize(mask, size, interpolation):
        return interpolate(mask, size=size, mode=interpolation)

    stand_in = SimpleNamespace(
        functional=SimpleNamespace(resize=resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )
    vars(sys.modules[type(module).__module__]).setdefault("transforms", stand_in)


def _conditioned(s):
    """Latents without the channels that forward adds itself: of the condition mask."""
    return s.latents(s.field("in_channels"))


register_denoiser(
    "CosmosTransformer3DModel",
    prepare=_resizes_masks,
    space=8,
    time=8,
    frames=121,
    arguments={"hidden_states": _conditioned, "padding_mask": _padding, "fps": lambda s: 30},
)
register_denoiser(
    "CosmosControlNetModel",
    prepare=_resizes_masks,
    defaults={"num_attention_heads": 16},  # of Cosmos-Transfer 2.5; the class's 32 do not go with its 2048 channels
    space=8,
    time=4,
    frames=93,
    axes="bcfhw",
    arguments={
        "controls_latents": lambda s: s.latents(s.field("latent_channels") - 2),
        "latents": lambda s: s.latents(s.field("latent_channels") - 2),
        "condition_mask": lambda s: s.latents(1),
        "encoder_hidden_states": lambda s: s.sized(
            s.text, s.width("crossattn_proj.0") or s.field("encoder_hidden_states_channels")
        ),
        "padding_mask": _padding,
        "fps": lambda s: 30,
    },
)


register_denoiser(
    "Cosmos3OmniTransformer",
    space=16,
    time=4,
    frames=93,
    axes="bcfhw",
    alone="a step packs the tokens of every sequence into one row, whose layout only its pipeline knows",
)
