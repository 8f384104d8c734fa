"""Kandinsky 5 and 6: latents with their channels last, positions given from outside."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser


def _places(s):
    import torch

    return [torch.arange(n) for n in s.grid.cells]


def _text_places(s):
    import torch

    return torch.arange(s.text)


_ARGUMENTS = {
    "hidden_states": lambda s: s.latents(s.width("visual_embeddings.in_layer") // _patch(s)),
    "encoder_hidden_states": lambda s: s.sized(s.text, s.field("in_text_dim")),
    "pooled_projections": lambda s: s.sized(s.field("in_text_dim2")),
    "visual_rope_pos": _places,
    "text_rope_pos": _text_places,
}


def _patch(s):
    along, side = s.grid.patch
    return along * side * side


register_denoiser("Kandinsky5Transformer3DModel", axes="bfhwc", space=8, time=4, frames=121, arguments=_ARGUMENTS)
register_denoiser(
    "Kandinsky6Transformer3DModel",
    axes="bfhwc",
    space=8,
    time=4,
    frames=121,
    arguments={**_ARGUMENTS, "audio_hidden_states": lambda s: s.sized(2 * s.grid.frames, s.field("in_audio_dim"))},
)
