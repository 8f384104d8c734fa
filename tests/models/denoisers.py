"""Configurations of denoisers: the ones the acceptance tests name, and small ones of every kind of argument list."""

WAN_1B = {
    "_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], "num_attention_heads": 12,
    "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256,
    "ffn_dim": 8960, "num_layers": 30, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6,
    "rope_max_seq_len": 1024,
}  # fmt: skip
WAN_TINY = {
    **WAN_1B,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "text_dim": 48,
    "ffn_dim": 256,
    "num_layers": 3,
}
FLUX_SMALL = {
    "_class_name": "FluxTransformer2DModel", "num_layers": 3, "num_single_layers": 4, "num_attention_heads": 8,
    "attention_head_dim": 32, "joint_attention_dim": 48, "pooled_projection_dim": 32, "axes_dims_rope": [8, 12, 12],
}  # fmt: skip
UNET = {
    "_class_name": "UNet2DConditionModel", "block_out_channels": [32, 64], "layers_per_block": 1, "sample_size": 16,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 48, "attention_head_dim": 8, "norm_num_groups": 8,
}  # fmt: skip
SMALL = {
    "flux": FLUX_SMALL,
    "flux with guidance": {**FLUX_SMALL, "guidance_embeds": True},
    "wan": WAN_TINY,
    "wan from a picture": {**WAN_TINY, "image_dim": 40, "added_kv_proj_dim": 128},
    "sd3": {
        "_class_name": "SD3Transformer2DModel", "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 4,
        "joint_attention_dim": 48, "caption_projection_dim": 128, "pooled_projection_dim": 32, "sample_size": 16,
    },
    "qwen-image": {
        "_class_name": "QwenImageTransformer2DModel", "num_layers": 3, "attention_head_dim": 32,
        "num_attention_heads": 4, "joint_attention_dim": 48, "axes_dims_rope": [8, 12, 12],
    },
    "pixart": {
        "_class_name": "PixArtTransformer2DModel", "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 4,
        "cross_attention_dim": 128, "caption_channels": 48, "sample_size": 16,
    },
    "unet": UNET,
    "unet with sizes": {
        **UNET, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    },
    "cogvideox": {
        "_class_name": "CogVideoXTransformer3DModel", "num_layers": 3, "attention_head_dim": 32,
        "num_attention_heads": 4, "text_embed_dim": 48, "time_embed_dim": 32, "use_rotary_positional_embeddings": True,
    },
    "ltx": {
        "_class_name": "LTXVideoTransformer3DModel", "num_layers": 3, "attention_head_dim": 32,
        "num_attention_heads": 4, "cross_attention_dim": 128, "caption_channels": 48,
    },
    "hunyuan-video": {
        "_class_name": "HunyuanVideoTransformer3DModel", "num_layers": 2, "num_single_layers": 2,
        "attention_head_dim": 32, "num_attention_heads": 4, "text_embed_dim": 48, "pooled_projection_dim": 32,
        "rope_axes_dim": [8, 12, 12],
    },
    "dit": {
        "_class_name": "DiTTransformer2DModel", "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 4,
        "sample_size": 16, "num_embeds_ada_norm": 10,
    },
    "sana": {
        "_class_name": "SanaTransformer2DModel", "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 4,
        "cross_attention_head_dim": 32, "num_cross_attention_heads": 4, "cross_attention_dim": 128,
        "caption_channels": 48, "sample_size": 4,
    },
    "mochi": {
        "_class_name": "MochiTransformer3DModel", "num_layers": 3, "attention_head_dim": 32, "num_attention_heads": 4,
        "text_embed_dim": 48, "pooled_projection_dim": 128,
    },
    "cogview4": {
        "_class_name": "CogView4Transformer2DModel", "num_layers": 3, "attention_head_dim": 32,
        "num_attention_heads": 4, "text_embed_dim": 48, "time_embed_dim": 32, "condition_dim": 16,
    },
}  # fmt: skip
