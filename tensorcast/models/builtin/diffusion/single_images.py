"""Transformers of single images with argument lists of their own: joint rows, layers of text features, masks."""

from __future__ import annotations

from tensorcast.diffusion.families import register_denoiser
from tensorcast.pipelines import ModelProfile, register_model_profile


def _empty(*sizes):
    import torch

    return torch.empty(sizes)


register_denoiser("DiTTransformer2DModel", space=8)  # the class-conditional pipeline names no ratio: Stable Diffusion's
register_denoiser(  # one pipeline denoises latents, the other one pixels
    "PRXTransformer2DModel", space=lambda config: 1 if config.get("in_channels") == 3 else 8
)
register_denoiser(
    "BriaFiboTransformer2DModel",
    arguments={
        "text_encoder_layers": lambda s: [
            s.sized(s.text, s.config["text_encoder_dim"])
            for _ in range(s.config["num_layers"] + s.config["num_single_layers"])
        ],
    },
)
register_denoiser(
    "BriaFibo2Transformer2DModel",
    arguments={
        "encoder_hidden_states": lambda s: s.sized(
            1 + len(s.config["injection_layer_ids"]), s.text, s.config["cap_feat_dim"]
        ),
    },
)
register_denoiser(
    "ErnieImageTransformer2DModel",
    arguments={"text_bth": lambda s: s.sized(s.text, s.field("text_in_dim")), "text_lens": lambda s: s.whole()},
)
register_denoiser(
    "Flux2Transformer2DModel",
    arguments={  # one table of positions a picture, as its pipelines hand them over
        "img_ids": lambda s: s.sized(s.tokens, len(s.config["axes_dims_rope"])),
        "txt_ids": lambda s: s.sized(s.text, len(s.config["axes_dims_rope"])),
    },
)
register_denoiser("Flux3Transformer2DModel", axes="bnc", space=16)  # latents of 8 pixels, 2 x 2 of them a token
register_denoiser(
    "GlmImageTransformer2DModel",
    arguments={
        "prior_token_id": lambda s: s.whole(s.grid.tokens),
        "prior_token_drop": lambda s: ~s.mask(s.grid.tokens),
    },
)
register_denoiser(
    "Ideogram4Transformer2DModel",
    axes="bnc",
    arguments={
        "hidden_states": lambda s: s.sized(s.text + s.grid.tokens, s.field("in_channels")),
        "encoder_hidden_states": lambda s: s.sized(s.text + s.grid.tokens, s.field("llm_features_dim")),
        "position_ids": lambda s: s.whole(s.text + s.grid.tokens, 3),
        "segment_ids": lambda s: s.whole(s.text + s.grid.tokens),
        "indicator": lambda s: s.whole(s.text + s.grid.tokens),
    },
)
register_denoiser(
    "Krea2Transformer2DModel",
    arguments={
        "encoder_hidden_states": lambda s: s.sized(s.text, s.field("num_text_layers"), s.field("text_hidden_dim")),
        "position_ids": lambda s: _empty(s.text + s.grid.tokens, 3),
    },
)
register_denoiser("Lumina2Transformer2DModel", arguments={"encoder_attention_mask": lambda s: s.mask(s.text)})


def _lumina_table(s):
    import torch

    half = s.field("hidden_size") // s.field("num_attention_heads") // 2
    return torch.empty((384, 384, half), dtype=torch.complex64)


register_denoiser(
    "LuminaNextDiT2DModel",
    defaults={"num_layers": 24, "num_kv_heads": 8},  # of Lumina-Next
    arguments={
        "image_rotary_emb": _lumina_table,
        "encoder_mask": lambda s: s.whole(s.text),
        "cross_attention_kwargs": lambda s: {},
    },
)
register_denoiser(
    "OmniGenTransformer2DModel",
    # the table that stretches positions has one factor a pair of the 96 elements of a head
    defaults={"rope_scaling": {"type": "su", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}},
    arguments={
        "input_ids": lambda s: s.whole(s.text),
        "input_img_latents": lambda s: [],
        "input_image_sizes": lambda s: {},
        "attention_mask": lambda s: s.sized(*[s.text + 1 + s.grid.tokens] * 2),
        "position_ids": lambda s: s.mask(s.text + 1 + s.grid.tokens).long(),
    },
)
register_denoiser(
    "PriorTransformer",
    axes="bc",
    space=1,
    fixed="a prior makes the embedding of one picture, of whatever size; --image says nothing",
    arguments={
        "hidden_states": lambda s: s.sized(s.field("embedding_dim")),
        "proj_embedding": lambda s: s.sized(s.field("embedding_proj_dim", "embedding_dim")),
        "encoder_hidden_states": lambda s: (
            s.sized(s.field("num_embeddings"), s.field("embedding_dim")) if s.config["encoder_hid_proj_type"] else None
        ),
    },
)

# what makes the modulation of all blocks is small, and every rank needs all of it
register_model_profile(
    ModelProfile(model_type="chromatransformer2dmodel", tp_plan={"distilled_guidance_layer.*": "replicated"})
)


def _own_part_of_feed_forward(model):
    """Single blocks take gate and values apart by a width that they state."""
    for _, block in model.modules_of("OvisImageSingleTransformerBlock"):
        block.mlp_hidden_dim //= model.plan.tp


register_model_profile(
    ModelProfile(model_type="ovisimagetransformer2dmodel", vl_patch_method=_own_part_of_feed_forward)
)


def _slots(s):
    """The prompt's tokens, then one slot for every four tokens of the picture: true where the picture is."""
    import torch

    text, picture = (
        torch.zeros((s.batch, s.text), device="cpu"),
        torch.ones((s.batch, s.grid.tokens // 4), device="cpu"),
    )
    return torch.cat([text, picture], dim=1).bool()


register_denoiser(
    "QwenImage21Transformer2DModel",
    axes="bnc",
    multiple=2,
    arguments={"img_mask": _slots, "img_shapes": lambda s: [[s.grid.cells]]},
)
register_denoiser(
    "JoyImageEditPlusTransformer3DModel",
    axes="bcfhw",
    arguments={
        "hidden_states": lambda s: s.sized(s.grid.tokens, s.field("in_channels"), *s.config["patch_size"]),
        "shape_list": lambda s: [[s.grid.cells]] * s.batch,
    },
)


register_denoiser(
    "ZImageTransformer2DModel",
    arguments={
        "x": lambda s: list(s.sized(s.field("in_channels"), 1, s.grid.height, s.grid.width)),
        "cap_feats": lambda s: list(s.sized(s.text, s.field("cap_feat_dim"))),
    },
    multiple=2,
)

# -- mixtures of experts ---------------------------------------------------------------------------------------------

_LLAMA_LAYERS = 32  # hidden states of every layer of Llama-3.1-8B
register_denoiser(
    "HiDreamImageTransformer2DModel",
    axes="bchw",
    # HiDream-I1; every block reads one layer of the language model, the last ones the last layer
    defaults={
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "caption_channels": [4096, 4096],
        "axes_dims_rope": [64, 32, 32],
        "llama_layers": [*range(32), *[31] * 16],
    },
    arguments={
        "encoder_hidden_states_t5": lambda s: s.sized(s.text, s.config["caption_channels"][0]),
        "encoder_hidden_states_llama3": lambda s: [
            s.sized(s.text, s.config["caption_channels"][-1]) for _ in range(_LLAMA_LAYERS)
        ],
        "pooled_embeds": lambda s: s.sized(s.field("text_emb_dim")),
        "img_sizes": lambda s: s.mask(2).long(),  # it works them out itself, and reads them
    },
)
register_model_profile(
    ModelProfile(model_type="hidreamimagetransformer2dmodel", moe_module_name="MOEFeedForwardSwiGLU")
)


def _rows_for_experts(model):
    """Experts choose their tokens: every row they are handed is one token of one expert, all of them are in use."""

    def one_expert_a_row(experts, args):
        rows, _ = args
        return rows, rows.new_empty((rows.shape[0], 1), dtype=int)

    for _, block in model.modules_of("NucleusMoELayer"):
        block.experts.top_k = int(block.capacity_factor)
        block.experts.register_forward_pre_hook(one_expert_a_row)


register_denoiser("NucleusMoEImageTransformer2DModel", axes="bnc")
register_model_profile(ModelProfile(model_type="nucleusmoeimagetransformer2dmodel", vl_patch_method=_rows_for_experts))
