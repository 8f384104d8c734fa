"""Transformers of videos with argument lists of their own."""

from __future__ import annotations

import re
from math import ceil

from tensorcast.diffusion.families import register_denoiser
from tensorcast.pipelines import ModelProfile, register_model_profile


def _allegro_table(s):
    import torch

    width = s.field("attention_head_dim") // 3
    sizes, places = s.grid.cells, [torch.empty((1, s.grid.tokens), dtype=torch.long)] * 3
    return [(torch.empty((n, width)), torch.empty((n, width))) for n in sizes], places


register_denoiser(
    "AllegroTransformer3DModel",
    frames=88,
    time=4,
    whole_groups=True,
    arguments={"image_rotary_emb": _allegro_table},
)
register_denoiser(
    "LatteTransformer3DModel",
    frames=16,
    time=1,
    axes="bcfhw",
    # Latte-1
    defaults={
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "cross_attention_dim": 1152,
        "attention_bias": True,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "caption_channels": 4096,
    },
)
register_denoiser(
    "EasyAnimateTransformer3DModel",
    axes="bcfhw",
    space=8,
    time=4,
    frames=49,
    defaults={"in_channels": 16, "out_channels": 16, "patch_size": 2},  # EasyAnimate 5.1
)
register_denoiser("MochiTransformer3DModel", arguments={"encoder_attention_mask": lambda s: s.mask(s.text)}, frames=163)
register_denoiser("SanaVideoTransformer3DModel", space=8, time=4, frames=81)
register_denoiser("HeliosTransformer3DModel", axes="bcfhw", space=8, time=4, frames=33)
register_denoiser(
    "SanaWMTransformer3DModel",
    axes="bcfhw",
    space=32,
    time=8,
    frames=81,
    arguments={
        "encoder_attention_mask": lambda s: s.whole(s.text),
        "timestep": lambda s: s.sized(1, s.grid.frames),  # one time a latent frame
    },
)


def _sound(s):
    """Latents of the sound beside a video of 24 frames a second."""
    field = s.config
    a_second = field["audio_sampling_rate"] / field["audio_hop_length"] / field["audio_scale_factor"]
    return ceil(s.canvas.frames / 24 * a_second)


_BESIDE = {
    "audio_hidden_states": lambda s: s.sized(_sound(s), s.field("audio_in_channels")),
    "audio_num_frames": _sound,
    "audio_encoder_hidden_states": lambda s: _caption(s, "audio_cross_attention_dim"),
    "encoder_hidden_states": lambda s: _caption(s, "cross_attention_dim"),
    "sigma": lambda s: s.sized(),
    "num_frames": lambda s: s.grid.cells[0],
}


def _caption(s, plain):
    return s.sized(s.text, s.field("caption_channels" if s.config["use_prompt_embeddings"] else plain))


register_denoiser("LTX2VideoTransformer3DModel", axes="bnc", space=32, time=8, frames=121, arguments=_BESIDE)


def _of_local_heads(original, module_name):
    """cos and sin are made for all heads; a rank with a part of the heads turns them by its part of the tables.

    They are [batch, tokens, heads · width] beside x, or [batch, heads, tokens, half the width of a head].
    """

    def turned(x, freqs):
        if freqs[0].dim() == 4:
            freqs = tuple(table[:, : x.shape[-1] // (2 * table.shape[-1])] for table in freqs)
        else:
            freqs = tuple(table[..., : x.shape[-1]] for table in freqs)
        return original(x, freqs)

    return turned


def _rotates_own_heads(model):
    from tensorcast.layers.patching import GlobalPatch

    if model.plan.tp > 1:
        model.patches.append(GlobalPatch(re.compile("^apply_(interleaved_|split_)?rotary_emb$"), _of_local_heads))


for _type in ("ltxvideotransformer3dmodel", "ltx2videotransformer3dmodel"):
    register_model_profile(ModelProfile(model_type=_type, vl_patch_method=_rotates_own_heads))


def _tables_of_own_heads(model):
    """Every head has a rotary table of its own [tokens, heads, half a head]; a rank takes those of its heads."""
    model.module.rope.register_forward_hook(
        lambda rope, args, tables: tuple(table[:, : table.shape[1] // model.plan.tp] for table in tables)
    )


register_model_profile(ModelProfile(model_type="mochitransformer3dmodel", vl_patch_method=_tables_of_own_heads))
