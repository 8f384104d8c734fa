"""Wan and the families built on its blocks."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

_FACE = 512  # pixels of one side of the face crops that WanAnimate's motion encoder is built for


def _control(s):
    return s.latents(s.field("vace_in_channels"))


register_denoiser("WanVACETransformer3DModel", arguments={"control_hidden_states": _control})
register_denoiser(
    "WanAnimateTransformer3DModel",
    space=8,
    time=4,
    frames=77,  # one segment, as its pipeline makes them
    arguments={
        # the picture of the person comes first, as a latent frame of its own
        "hidden_states": lambda s: s.latents(s.field("in_channels"), s.grid.frames + 1),
        "pose_hidden_states": lambda s: s.latents(s.field("latent_channels"), s.grid.frames),
        "face_pixel_values": lambda s: s.sized(3, s.canvas.frames, _FACE, _FACE),
    },
)
register_denoiser(
    "AnyFlowTransformer3DModel",
    axes="bfchw",
    time=4,
    frames=81,
    arguments={
        "timestep": lambda s: s.sized(s.grid.frames),
        "r_timestep": lambda s: s.sized(s.grid.frames),
    },
)
register_denoiser(
    "AnyFlowFARTransformer3DModel",
    alone="its frames attend block by block through compiled flex attention, which runs on no meta device",
)
register_denoiser(
    "WanAnimate2Transformer3DModel",
    alone="a step reads a cache of the reference picture that its pipeline fills beforehand",
)
