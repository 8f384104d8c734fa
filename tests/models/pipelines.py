"""Small components of diffusion pipelines, and the folder that holds them."""

import json
from pathlib import Path

import tensorcast as tc
from tests.models.denoisers import FLUX_SMALL, WAN_TINY

CLIP = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": 99, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 77,
}  # fmt: skip
T5 = {
    "architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": 99, "d_model": 48, "d_kv": 8, "d_ff": 64,
    "num_layers": 3, "num_heads": 6, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": True,
    "tie_word_embeddings": False,
}  # fmt: skip
KL = {
    "_class_name": "AutoencoderKL", "block_out_channels": [16, 16, 32, 32], "latent_channels": 16, "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 1,
}  # fmt: skip
WAN_VAE = {"_class_name": "AutoencoderKLWan", "base_dim": 8, "z_dim": 16, "num_res_blocks": 1}
VAES = {
    "AutoencoderKL": KL,
    "AutoencoderKLWan": WAN_VAE,
    "AutoencoderKLQwenImage": {**WAN_VAE, "_class_name": "AutoencoderKLQwenImage"},
    "AutoencoderKLHunyuanVideo": {
        "_class_name": "AutoencoderKLHunyuanVideo", "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4,
        "layers_per_block": 1,
    },
    "AutoencoderKLCogVideoX": {
        "_class_name": "AutoencoderKLCogVideoX", "block_out_channels": [8, 8, 16, 16], "norm_num_groups": 4,
        "layers_per_block": 1, "latent_channels": 16,
    },
    "AutoencoderKLLTXVideo": {
        "_class_name": "AutoencoderKLLTXVideo", "block_out_channels": [8, 8, 16, 16], "latent_channels": 8,
        "decoder_block_out_channels": [8, 8, 16, 16], "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1],
    },
}  # fmt: skip
FLUX = {
    "_class_name": "FluxPipeline",
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
FLUX_PARTS = {"text_encoder": CLIP, "text_encoder_2": T5, "transformer": FLUX_SMALL, "vae": KL}
WAN = {
    "_class_name": "WanPipeline",
    "text_encoder": ["transformers", "T5EncoderModel"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": ["diffusers", "WanTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
WAN_PARTS = {"text_encoder": T5, "transformer": WAN_TINY, "transformer_2": WAN_TINY, "vae": WAN_VAE}


def written(folder: Path, index: dict, parts: dict) -> str:
    """A pipeline's folder; a part that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))
    for name, config in parts.items():
        if config is not None:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "config.json").write_text(json.dumps(config))
    return str(folder)


def made(model, **options) -> tc.Estimate:
    asked = {"hw": "h100-sxm", "image": "128x128", "input_len": 20, "steps": 10, **options}
    return tc.simulate(model=model, **asked)


def flops(estimate, phase: str = "denoise") -> float:
    return estimate.phases[phase]["matrix_flops"]
