"""UNets, the adapters around them, and the transformers inside them that diffusers also ships as models."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

_BLOCK = {
    "norm_type": "layer_norm",
    "in_channels": 320,
    "num_attention_heads": 8,
    "attention_head_dim": 40,
    "cross_attention_dim": 768,
}
"""Sizes of the outermost transformer of Stable Diffusion 1.5's UNet."""


def _for_every_frame(s, width):
    """The prompt, once for every frame of every video: frames are run as pictures of one large batch."""
    return s.sized(s.text, width).repeat_interleave(s.canvas.frames, dim=0)


register_denoiser("Transformer2DModel DreamLiteTransformer2DModel", space=8, axes="bchw", defaults=_BLOCK)
register_denoiser(
    "TransformerTemporalModel",
    space=8,
    time=1,
    frames=16,
    axes="bfchw",
    defaults=_BLOCK,
    arguments={
        "hidden_states": lambda s: s.latents(s.field("in_channels")).flatten(0, 1),
        "num_frames": lambda s: s.canvas.frames,
        "encoder_hidden_states": lambda s: None,
        "timestep": lambda s: None,
    },
)
register_denoiser("UNet3DConditionModel", axes="bcfhw")
register_denoiser(
    "UNetMotionModel",
    axes="bcfhw",
    arguments={"encoder_hidden_states": lambda s: _for_every_frame(s, s.field("cross_attention_dim"))},
)
register_denoiser(
    "I2VGenXLUNet",
    axes="bcfhw",
    arguments={
        "fps": lambda s: s.sized(),
        "image_latents": lambda s: s.latents(s.field("in_channels")),
        "image_embeddings": lambda s: s.sized(s.field("cross_attention_dim")),
    },
)
register_denoiser(
    "UNetSpatioTemporalConditionModel",
    axes="bfchw",
    frames=25,  # Stable Video Diffusion XT; its VAE keeps every frame
    time=1,
    arguments={
        "encoder_hidden_states": lambda s: s.sized(1, s.field("cross_attention_dim")),  # one embedding of the picture
        "added_time_ids": lambda s: s.sized(
            s.field("projection_class_embeddings_input_dim") // s.field("addition_time_embed_dim")
        ),
    },
)
register_denoiser(
    "Kandinsky3UNet", space=8, axes="bchw", arguments={"encoder_attention_mask": lambda s: s.whole(s.text)}
)
register_denoiser(
    "StableCascadeUNet",
    axes="bchw",
    space=42,  # the prior's latents are 42 times smaller than the picture, and rounded up
    arguments={
        "timestep_ratio": lambda s: s.sized(),
        "sample": lambda s: s.sized(s.field("in_channels"), -(-s.canvas.height // 42), -(-s.canvas.width // 42)),
        "clip_text_pooled": lambda s: s.sized(1, s.field("clip_text_pooled_in_channels")),
        "clip_text": lambda s: (
            s.sized(s.text, s.field("clip_text_in_channels")) if s.field("clip_text_in_channels") else None
        ),
        "clip_img": lambda s: (
            s.sized(1, s.field("clip_image_in_channels")) if s.field("clip_image_in_channels") else None
        ),
        "effnet": lambda s: s.sized(s.field("effnet_in_channels"), 24, 24) if s.field("effnet_in_channels") else None,
    },
)
register_denoiser(
    "UVit2DModel",
    space=16,  # of the VQ model that the tokens come from
    axes="bhw",
    arguments={
        "input_ids": lambda s: s.whole(s.grid.height, s.grid.width),
        "pooled_text_emb": lambda s: s.sized(s.field("cond_embed_dim")),
        "micro_conds": lambda s: s.sized(5),
    },
)
register_denoiser("MotionAdapter", alone="its weights are loaded into a UNetMotionModel; that one runs them")
register_denoiser("ControlNetXSAdapter", alone="it runs inside of a UNetControlNetXSModel")
register_denoiser("T2IAdapter", axes="bchw", space=1, arguments={"x": lambda s: s.pixels(s.field("in_channels"))})
register_denoiser("MultiAdapter", alone="it holds several T2IAdapters that are given to it, and has no configuration")
