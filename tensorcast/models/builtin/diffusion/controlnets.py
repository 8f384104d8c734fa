"""ControlNets: denoisers that take a picture to follow beside the latents."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser


def _pixels(s):
    return s.pixels(s.field("conditioning_channels", "ctrl_conditioning_channels"))


def _like_latents(s):
    return s.latents(s.width("controlnet_x_embedder") or s.field("in_channels"))


def _mode(s):
    return s.whole(1) if s.field("num_mode") else None


register_denoiser("ControlNetModel", arguments={"controlnet_cond": _pixels})
register_denoiser(
    "UNetControlNetXSModel",
    space=8,
    axes="bchw",
    arguments={"sample": lambda s: s.latents(s.width("base_conv_in")), "controlnet_cond": _pixels},
)
register_denoiser(
    "ControlNetUnionModel",
    arguments={
        "controlnet_cond": lambda s: [_pixels(s)],
        "control_type": lambda s: s.sized(s.field("num_control_type")),
        "control_type_idx": lambda s: [0],
    },
    # SDXL's time ids and pooled text, as in the published union ControlNet
    defaults={
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "cross_attention_dim": 2048,
    },
)
register_denoiser(
    "FluxControlNetModel QwenImageControlNetModel",
    arguments={"controlnet_cond": _like_latents, "controlnet_mode": _mode},
)
register_denoiser(
    "SD3ControlNetModel",
    arguments={
        "controlnet_cond": lambda s: s.latents(s.field("in_channels") + s.config["extra_conditioning_channels"]),
        "encoder_hidden_states": lambda s: (
            s.sized(s.text, s.field("joint_attention_dim")) if s.field("joint_attention_dim") else None
        ),
    },
)
register_denoiser("SanaControlNetModel", arguments={"controlnet_cond": lambda s: s.latents(s.field("in_channels"))})
register_denoiser(
    "SparseControlNetModel",
    axes="bcfhw",
    space=8,
    time=1,
    frames=16,
    arguments={
        "encoder_hidden_states": lambda s: s.sized(s.text, s.field("cross_attention_dim")).repeat_interleave(
            s.canvas.frames, dim=0
        ),
        "controlnet_cond": lambda s: (
            s.latents(s.field("conditioning_channels"))
            if s.config["use_simplified_condition_embedding"]
            else s.sized(s.field("conditioning_channels"), s.canvas.frames, s.canvas.height, s.canvas.width)
        ),
        "conditioning_mask": lambda s: (
            s.latents(1)
            if s.config["use_simplified_condition_embedding"]
            else s.sized(1, s.canvas.frames, s.canvas.height, s.canvas.width)
        ),
    },
)
for _name in (
    "MultiControlNetModel", "MultiControlNetUnionModel", "FluxMultiControlNetModel", "HunyuanDiT2DMultiControlNetModel",
    "QwenImageMultiControlNetModel", "SD3MultiControlNetModel",
):  # fmt: skip
    register_denoiser(_name, alone="it holds several ControlNets that are given to it; simulate each of them")
register_denoiser(
    "ZImageControlNetModel",
    alone="it borrows embedders and refiner from its transformer, and its class says nothing of their sizes",
)
