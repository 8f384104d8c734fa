"""Vision-language types whose configuration classes contradict themselves: tower, projector or heads do not agree.

The values are a published model's, named beside each; models that are given with a configuration never see them.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
# GLM-4.1V-9B-Thinking: half of a head is turned, by positions on three axes
_GLM = {"text_config.rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]}}

for _model_type, _defaults in {
    # gemma-3-4b-it: 256 tokens of an image, 4 x 4 patches each
    "gemma3": {"vision_config.image_size": 896, "vision_config.patch_size": 14},
    "shieldgemma2": {"vision_config.image_size": 896, "vision_config.patch_size": 14},
    # Idefics3-8B-Llama3 and SmolVLM-256M-Instruct: patches that join in groups of scale_factor squared
    "idefics3": {"vision_config.image_size": 364, "vision_config.patch_size": 14},
    "smolvlm": {"vision_config.image_size": 512, "vision_config.patch_size": 16, "scale_factor": 4},
    # Aria: squares of 980 pixels, patches of 14
    "aria": {"vision_config.image_size": 980, "vision_config.patch_size": 14},
    # aya-vision-8b
    "aya_vision": {"vision_config.hidden_size": 1152, "vision_config.num_attention_heads": 16},
    # Ovis2-2B: what enters the text part is as wide as the text
    "ovis2": {
        "text_config.hidden_size": 1536,
        "text_config.num_attention_heads": 12,
        "text_config.num_key_value_heads": 2,
    },
    # Qwen3-Omni-30B-A3B: 32 heads of 128
    "qwen3_omni_moe_thinker": {"text_config.num_attention_heads": 32, "text_config.head_dim": 128},
    "glm4v": _GLM,
    "glm46v": _GLM,
    "glmga": _GLM,
    # HunyuanOCR: positions on four axes
    "hunyuan_vl": {"text_config.rope_parameters": {**_ROPE, "mrope_section": [16, 16, 16, 16]}},
    "cohere_compass": {
        "text_config.rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    # GLM-4.5V: 96 heads of 128
    "glm4v_moe": {"text_config.head_dim": 128},
}.items():
    register_model_profile(ModelProfile(model_type=_model_type, defaults=_defaults))
