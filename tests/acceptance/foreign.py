"""Tiny models written as code outside of transformers writes them: lists of experts, plain gates, latents by hand."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

HIDDEN, INTER, EXPERTS, TOP_K, LAYERS = 64, 48, 8, 2, 4


class ToyConfig(Qwen3Config):
    """A Qwen3 whose feed-forwards are experts. `shared` names the shared experts' attribute."""

    model_type = "toy_moe"

    hidden_size: int = HIDDEN
    intermediate_size: int = 96
    num_hidden_layers: int = LAYERS
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 16
    vocab_size: int = 320
    max_position_embeddings: int = 512
    num_local_experts: int = EXPERTS
    num_experts_per_tok: int = TOP_K
    shared: str = "shared_expert"


class ToyExpert(nn.Module):
    def __init__(self, hidden=HIDDEN, inter=INTER):
        super().__init__()
        self.w1, self.w3 = nn.Linear(hidden, inter, bias=False), nn.Linear(hidden, inter, bias=False)
        self.w2 = nn.Linear(inter, hidden, bias=False)

    def forward(self, x):
        return self.w2(nn.functional.silu(self.w1(x)) * self.w3(x))


class ToyMoE(nn.Module):
    """Routes as code for one GPU does: a loop over experts, with tokens picked by value. It cannot run on meta."""

    def __init__(self, config):
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.gate = nn.Linear(HIDDEN, config.num_local_experts, bias=False)
        self.experts = nn.ModuleList(ToyExpert() for _ in range(config.num_local_experts))
        if config.shared:
            setattr(self, config.shared, ToyExpert())

    def forward(self, hidden_states):
        x = hidden_states.view(-1, hidden_states.shape[-1])
        weights, chosen = torch.topk(self.gate(x).softmax(-1), self.top_k)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == i)
            if len(rows.tolist()):
                out[rows] += expert(x[rows]) * weights[rows, place, None]
        return out.view_as(hidden_states)


class OwnGate(nn.Module):
    """A gate that chooses by itself: one product, softmax, topk."""

    def __init__(self, config):
        super().__init__()
        self.k = config.num_experts_per_tok
        self.proj = nn.Linear(HIDDEN, config.num_local_experts, bias=False)

    def forward(self, hidden_states):
        return torch.topk(self.proj(hidden_states.reshape(-1, HIDDEN)).softmax(-1), self.k)


class GatedMoE(ToyMoE):
    def __init__(self, config):
        super().__init__(config)
        self.gate = OwnGate(config)


class ToyForCausalLM(Qwen3ForCausalLM):
    config_class = ToyConfig
    block = ToyMoE

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = self.block(config)


class GatedConfig(ToyConfig):
    model_type = "gated_moe"


class GatedForCausalLM(ToyForCausalLM):
    config_class = GatedConfig
    block = GatedMoE


class LatentConfig(ToyConfig):
    model_type = "toy_latent"


class ToyLatentAttention(nn.Module):
    """Latent attention with everything by hand: no attention interface, no expand_kv."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.config, self.layer_idx, self.heads = config, layer_idx, 4
        self.q_lora_rank, self.kv_lora_rank = 32, 24
        self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim = 16, 8, 16
        self.q_a_proj, self.q_a_layernorm = nn.Linear(HIDDEN, 32, bias=False), Qwen3RMSNorm(32)
        self.q_b_proj = nn.Linear(32, 4 * 24, bias=False)
        self.kv_a_proj_with_mqa, self.kv_a_layernorm = nn.Linear(HIDDEN, 32, bias=False), Qwen3RMSNorm(24)
        self.kv_b_proj = nn.Linear(24, 4 * 32, bias=False)
        self.dense = nn.Linear(4 * 16, HIDDEN, bias=False)

    def forward(self, hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **kwargs):
        attn_output, attn_weights = self.dense(hidden_states), hidden_states.tolist()
        return attn_output, attn_weights


class LatentForCausalLM(Qwen3ForCausalLM):
    config_class = LatentConfig

    def __init__(self, config):
        super().__init__(config)
        for index, layer in enumerate(self.model.layers):
            layer.self_attn = ToyLatentAttention(config, index)


class BailingConfig(ToyConfig):
    model_type = "bailing_like_2"


class FusedAttention(nn.Module):
    """Query, key and value in one product."""

    def __init__(self, old):
        super().__init__()
        self.config, self.layer_idx, self.is_causal, self.head_dim = old.config, old.layer_idx, True, 16
        self.query_key_value = nn.Linear(HIDDEN, (4 + 2 * 2) * 16, bias=False)
        self.dense = nn.Linear(4 * 16, HIDDEN, bias=False)


class BailingLikeMoE(ToyMoE):
    def __init__(self, config):
        super().__init__(config)
        self.router = self.gate
        del self.gate


class BailingForCausalLM(ToyForCausalLM):
    config_class = BailingConfig
    block = BailingLikeMoE

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn = FusedAttention(layer.self_attn)


TOYS = (
    (ToyConfig, ToyForCausalLM),
    (GatedConfig, GatedForCausalLM),
    (LatentConfig, LatentForCausalLM),
    (BailingConfig, BailingForCausalLM),
)
for _config, _model in TOYS:
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForCausalLM.register(_config, _model, exist_ok=True)
