"""Vision-language models small enough to run on a CPU, one for each way of taking images."""

from __future__ import annotations

from tensorcast.models.build import build_blueprint
from tensorcast.transformer_model import Deployment, deployed_model

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "pad_token_id": 0, "rope_parameters": _ROPE,
}  # fmt: skip
_MROPE = {**_TEXT, "rope_parameters": {**_ROPE, "mrope_section": [2, 3, 3]}}
_QWEN = {
    "depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 16, "spatial_merge_size": 2,
    "temporal_patch_size": 2, "out_hidden_size": 64, "in_channels": 3,
}  # fmt: skip
_VIT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "num_channels": 3,
}  # fmt: skip


def _model(model_type: str, architecture: str, text: dict, vision: dict, **fields) -> dict:
    return {
        "model_type": model_type, "architectures": [architecture], "dtype": "float32", "text_config": text,
        "vision_config": vision, "tie_word_embeddings": False, **fields,
    }  # fmt: skip


TOWERS = {
    "qwen3_vl": _model(
        "qwen3_vl", "Qwen3VLForConditionalGeneration", {**_MROPE, "model_type": "qwen3_vl_text"},
        {**_QWEN, "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1]},
    ),
    "qwen2_5_vl": _model(
        "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", {**_MROPE, "model_type": "qwen2_5_vl_text"},
        {**_QWEN, "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1, 3]},
    ),
    "glm4v": _model(
        "glm4v", "Glm4vForConditionalGeneration", {**_MROPE, "model_type": "glm4v_text"},
        {**_QWEN, "patch_size": 14, "image_size": 112, "intermediate_size": 64},
    ),
    "kimi_k25": _model(
        "kimi_k25", "Kimi_K25ForConditionalGeneration",
        {**_TEXT, "model_type": "deepseek_v3", "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 24,
         "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8,
         "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "moe_intermediate_size": 48,
         "first_k_dense_replace": 1},
        {**_VIT, "patch_size": 14, "merge_kernel_size": [2, 2]}, projection_hidden_size=32,
    ),
    "llama4": _model(
        "llama4", "Llama4ForConditionalGeneration",
        {**_TEXT, "model_type": "llama4_text", "intermediate_size_mlp": 96, "num_local_experts": 4,
         "num_experts_per_tok": 1, "attention_chunk_size": 8192},
        {**_VIT, "image_size": 56, "patch_size": 14, "pixel_shuffle_ratio": 0.5, "projector_input_dim": 40,
         "projector_output_dim": 40, "vision_output_dim": 40, "intermediate_size": 128},
    ),
    "gemma3": _model(
        "gemma3", "Gemma3ForConditionalGeneration", {**_TEXT, "model_type": "gemma3_text", "rope_parameters": None},
        {**_VIT, "model_type": "siglip_vision_model", "image_size": 112, "patch_size": 14}, mm_tokens_per_image=16,
    ),
    "gemma4": _model(
        "gemma4", "Gemma4ForConditionalGeneration",
        {**_TEXT, "model_type": "gemma4_text", "rope_parameters": None, "hidden_size_per_layer_input": 0,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "global_head_dim": 16,
         "vocab_size_per_layer_input": 320},
        {**_VIT, "model_type": "gemma4_vision", "patch_size": 16, "head_dim": 16, "num_key_value_heads": 2,
         "pooling_kernel_size": 3}, vision_soft_tokens_per_image=70, audio_config=None,
    ),
    "internvl": _model(
        "internvl", "InternVLForConditionalGeneration", {**_TEXT, "model_type": "qwen2"},
        {**_VIT, "model_type": "internvl_vision", "image_size": [56, 56], "patch_size": [14, 14]}, image_seq_length=4,
    ),
    "mistral3": _model(
        "mistral3", "Mistral3ForConditionalGeneration", {**_TEXT, "model_type": "mistral"},
        {**_VIT, "model_type": "pixtral", "image_size": 448, "patch_size": 14, "head_dim": 16},
        spatial_merge_size=2, projector_hidden_act="gelu", multimodal_projector_bias=False,
    ),
    "llava_next": _model(
        "llava_next", "LlavaNextForConditionalGeneration", {**_TEXT, "model_type": "llama"},
        {**_VIT, "model_type": "clip_vision_model", "image_size": 56, "patch_size": 14, "projection_dim": 32},
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]],
    ),
    "idefics3": _model(
        "idefics3", "Idefics3ForConditionalGeneration", {**_TEXT, "model_type": "llama"},
        {**_VIT, "model_type": "idefics3_vision", "image_size": 56, "patch_size": 14}, scale_factor=2,
    ),
}  # fmt: skip

IMAGES = ((100, 150), (230, 120))


def deployed(source, images=IMAGES, **options):
    from tensorcast.layers.attention import INTERFACE, register_interface

    register_interface()
    return deployed_model(build_blueprint(source, attn_implementation=INTERFACE), Deployment(images=images, **options))
