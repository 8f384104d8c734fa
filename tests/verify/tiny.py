"""Configurations of models small enough to run, one for each kind of layer that is checked against a real run."""

from __future__ import annotations

import json
from pathlib import Path

from tensorcast.models.reference import ModelSource, resolve_model

_SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "dtype": "float32", "hidden_act": "silu",
    "attention_dropout": 0.0, "attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
TINY = {
    "llama": {
        **_SIZES, **_ROPE, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "mlp_bias": False,
    },
    "qwen3_moe": {
        **_SIZES, **_ROPE, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [0],
    },
    "deepseek_v3": {
        **_SIZES, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "num_key_value_heads": 4,
        "q_lora_rank": 32, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
        "head_dim": 8, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "moe_intermediate_size": 48, "first_k_dense_replace": 1, "norm_topk_prob": True,
        "routed_scaling_factor": 2.5, "rope_interleave": True,
    },
    "gpt_oss": {
        **_SIZES, **_ROPE, "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 64, "attention_bias": True, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "swiglu_limit": 7.0,
    },
    "windows": {
        **_SIZES, **_ROPE, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "sliding_window": 16,
        "use_sliding_window": True, "max_window_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gemma3": {
        **_SIZES, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 6,
        "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 16, "query_pre_attn_scalar": 16,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        "tie_word_embeddings": True,
    },
}  # fmt: skip


def tiny(name: str, folder: Path, **changes) -> ModelSource:
    """The tiny model of that name, written to `folder` as any user's model is."""
    (folder / "config.json").write_text(json.dumps(TINY[name] | changes))
    return resolve_model(str(folder))
