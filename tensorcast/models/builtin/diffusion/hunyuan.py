"""HunyuanDiT, HunyuanImage and HunyuanVideo."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser

_DIT = {"in_channels": 4, "patch_size": 2, "num_attention_heads": 16, "attention_head_dim": 88, "hidden_size": 1408}
"""Of HunyuanDiT v1.2."""


def _t5(s):
    return s.sized(s.field("text_len_t5"), s.field("cross_attention_dim_t5"))


def _styled(make):
    return lambda s: make(s) if s.config["use_style_cond_and_image_meta_size"] else None


_ARGUMENTS = {
    "timestep": lambda s: s.sized(),  # in the format of the latents: the time's embedding takes it over
    "encoder_hidden_states": lambda s: s.sized(s.field("text_len"), s.field("cross_attention_dim")),
    "text_embedding_mask": lambda s: s.sized(s.field("text_len")),
    "encoder_hidden_states_t5": _t5,
    "text_embedding_mask_t5": lambda s: s.sized(s.field("text_len_t5")),
    "image_meta_size": _styled(lambda s: s.sized(6)),
    "style": _styled(lambda s: s.whole()),
    "image_rotary_emb": lambda s: s.rotary(s.field("attention_head_dim")),
    "controlnet_cond": lambda s: s.latents(s.field("in_channels")),
}
register_denoiser(
    "HunyuanDiT2DModel HunyuanDiT2DControlNetModel",
    arguments=_ARGUMENTS,
    defaults=_DIT,
    axes="bchw",
    space=8,
    fixed="prompts have the lengths that the position embedding is made for; --input-len does not change them",
)

IMAGE_TOKENS_15 = 729  # SigLIP, 384 pixels in patches of 14


def _first_picture(s):
    """What SigLIP sees, with values: all zeros tell the model that there is no picture to start from."""
    import torch

    make = torch.zeros if s.config["task_type"] == "t2v" else torch.ones
    return make((s.batch, IMAGE_TOKENS_15, s.field("image_embed_dim")), dtype=torch.get_default_dtype(), device="cpu")


register_denoiser(
    "HunyuanVideo15Transformer3DModel",
    arguments={
        "encoder_attention_mask": lambda s: s.mask(s.text),
        "encoder_hidden_states_2": lambda s: s.sized(256, s.field("text_embed_2_dim")),
        "encoder_attention_mask_2": lambda s: s.mask(256),
        "image_embeds": _first_picture,
        "timestep_r": lambda s: s.sized() if s.config["use_meanflow"] else None,
    },
)


def _history(frames):
    """Latents of `frames` earlier frames, and where they stand in time."""
    return lambda s: s.latents(s.field("in_channels"), frames) if s.config["has_clean_x_embedder"] else None


def _row(frames):
    import torch

    return torch.arange(frames)


def _places(frames):
    return lambda s: _row(frames) if s.config["has_clean_x_embedder"] else None


register_denoiser(
    "HunyuanVideoFramepackTransformer3DModel",
    frames=33,  # one section of 9 latent frames
    defaults={"has_image_proj": True, "has_clean_x_embedder": True},
    arguments={
        "encoder_attention_mask": lambda s: s.mask(s.text).long(),
        "image_embeds": lambda s: s.sized(IMAGE_TOKENS_15, s.field("image_proj_dim")),
        "indices_latents": lambda s: _row(s.grid.frames),
        "latents_clean": _history(2),
        "indices_latents_clean": _places(2),
        "latents_history_2x": _history(2),
        "indices_latents_history_2x": _places(2),
        "latents_history_4x": _history(16),
        "indices_latents_history_4x": _places(16),
    },
)
