"""Nemotron-NAS (DeciLM): Llama whose layers differ, each described by an entry of `block_configs`.

An entry's attention has its own number of query heads per key/value head, or is left out with its norm (`no_op`);
its MLP has its own width, or is left out with its norm. Source: the model card and configuration of
nvidia/Llama-3_3-Nemotron-Super-49B-v1.
"""

from __future__ import annotations

import copy

from torch import nn
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM, LlamaMLP

from tensorcast.errors import ModelError
from tensorcast.models.builders import register_auto_model


class NemotronNasConfig(LlamaConfig):
    """LlamaConfig that keeps `block_configs`; its own widths are the largest of any layer."""

    model_type = "nemotron-nas"

    @classmethod
    def from_dict(cls, described: dict, **kwargs) -> NemotronNasConfig:
        blocks, heads, depth = (described.get(k) for k in ("block_configs", "num_attention_heads", "num_hidden_layers"))
        if not isinstance(blocks, list) or len(blocks) != depth:
            raise ModelError(f"block_configs must be a list with one entry for each of the {depth} layers")
        for number, block in enumerate(blocks):
            _check_block(block, heads, f"block_configs[{number}]")
        groups = [block["attention"]["n_heads_in_group"] for block in blocks if not block["attention"]["no_op"]]
        widths = [mlp_width(b["ffn"]["ffn_mult"], described["hidden_size"]) for b in blocks if not b["ffn"]["no_op"]]
        largest = {
            "num_key_value_heads": heads // min(groups, default=1),
            "intermediate_size": max(widths, default=described["hidden_size"]),
        }
        return super().from_dict({**copy.deepcopy(described), **largest}, **kwargs)


class NemotronNasLayer(LlamaDecoderLayer):
    """A Llama layer with the attention and MLP its block asks for; None stands for one that is left out."""

    def __init__(self, config: NemotronNasConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        block = config.block_configs[layer_idx]
        own = copy.copy(config)
        if block["attention"]["no_op"]:
            self.self_attn = self.input_layernorm = None
        else:
            own.num_key_value_heads = config.num_attention_heads // block["attention"]["n_heads_in_group"]
            self.self_attn = LlamaAttention(own, layer_idx)
        if block["ffn"]["no_op"]:
            self.mlp = self.post_attention_layernorm = None
        else:
            own.intermediate_size = mlp_width(block["ffn"]["ffn_mult"], config.hidden_size)
            self.mlp = LlamaMLP(own)

    def forward(self, hidden_states, **kwargs):
        if self.self_attn is not None:
            attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
            hidden_states = hidden_states + attended
        if self.mlp is not None:
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


@register_auto_model("DeciLMForCausalLM", config_class=NemotronNasConfig)
class NemotronNasForCausalLM(LlamaForCausalLM):
    """LlamaForCausalLM with every decoder layer replaced by the one its block describes."""

    config_class = NemotronNasConfig

    def __init__(self, config: NemotronNasConfig) -> None:
        super().__init__(config)
        self.model.layers = nn.ModuleList(NemotronNasLayer(config, n) for n in range(config.num_hidden_layers))
        self.post_init()


def mlp_width(multiple: float, hidden_size: int) -> int:
    """Columns of the gated MLP: 2/3 of multiple × hidden_size, rounded up to 256."""
    width = int(2 * multiple * hidden_size / 3)
    return width if width % 256 == 0 else width + 256 - width % 256


UNSUPPORTED = ("replace_with_linear", "sparsify", "window_length", "num_sink_tokens", "unshifted_sink")


def _check_block(block: dict, heads: int, where: str) -> None:
    attention, ffn = block["attention"], block["ffn"]
    for part in (attention, ffn):
        used = next((field for field in UNSUPPORTED if part.get(field)), None)
        if used:
            raise ModelError(f"{where}: {used} is not supported; only no_op, n_heads_in_group and ffn_mult are")
    if not attention["no_op"] and (not attention["n_heads_in_group"] or heads % attention["n_heads_in_group"]):
        raise ModelError(f"{where}: n_heads_in_group {attention['n_heads_in_group']} does not divide {heads} heads")
