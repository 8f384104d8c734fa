"""OPT written with tensorcast.nn: a worked example of bringing a model's own code.

The tokens of all sequences lie behind each other in one dimension, and `attn_metadata` says whose they are. Linears are
built whole; `--tp`, `--quant` and `--kernel` apply to them as to any model. The class stands in for transformers' own
OPTForCausalLM, hence `replace=True`. Try it from the folder above:

    tensorcast simulate --model facebook/opt-125m --custom custom_model/opt_example --hw h100
"""

from __future__ import annotations

from torch import nn
from transformers import OPTConfig

import tensorcast as tc
from tensorcast.nn import AttentionMetadata, ModelConfig

POSITIONS_BEFORE = 2  # OPT's position table starts with two rows that no token uses


class OPTAttention(tc.nn.Attention):
    """Attention with biases and without rotary embedding: OPT adds positions to the input."""

    def __init__(self, model_config: ModelConfig[OPTConfig], layer_idx: int) -> None:
        super().__init__(model_config, layer_idx, bias=model_config.pretrained_config.enable_bias)


class OPTDecoderLayer(tc.nn.DecoderLayer):
    """Attention and a plain feed-forward; norms before them, or behind their sums in the 350m model."""

    def __init__(self, model_config: ModelConfig[OPTConfig], layer_idx: int) -> None:
        super().__init__()
        config, dtype = model_config.pretrained_config, model_config.dtype
        hidden, bias = config.hidden_size, config.enable_bias
        affine = config.layer_norm_elementwise_affine
        self.norm_first = config.do_layer_norm_before
        self.self_attn = OPTAttention(model_config, layer_idx)
        self.self_attn_layer_norm = nn.LayerNorm(hidden, elementwise_affine=affine, dtype=dtype)
        self.fc1 = tc.nn.Linear(hidden, config.ffn_dim, bias, dtype=dtype, tensor_parallel_mode="column")
        self.activation_fn = tc.nn.activation(config.activation_function)
        self.fc2 = tc.nn.Linear(config.ffn_dim, hidden, bias, dtype=dtype, tensor_parallel_mode="row")
        self.final_layer_norm = nn.LayerNorm(hidden, elementwise_affine=affine, dtype=dtype)

    def forward(self, position_ids, hidden_states, attn_metadata: AttentionMetadata, **kwargs):
        hidden_states = self._added(self.self_attn_layer_norm, hidden_states, self._attend(position_ids, attn_metadata))
        return self._added(self.final_layer_norm, hidden_states, self._feed)

    def _attend(self, position_ids, attn_metadata):
        return lambda x: self.self_attn(position_ids, x, attn_metadata)

    def _feed(self, x):
        return self.fc2(self.activation_fn(self.fc1(x)))

    def _added(self, norm, x, block):
        """x + block(norm(x)), or norm(x + block(x))."""
        return x + block(norm(x)) if self.norm_first else norm(x + block(x))


class OPTModel(tc.nn.DecoderModel):
    """Token and position embeddings, layers, and the norm behind them where the model has one."""

    def __init__(self, model_config: ModelConfig[OPTConfig]) -> None:
        super().__init__(model_config)
        config, dtype = model_config.pretrained_config, model_config.dtype
        width, hidden = config.word_embed_proj_dim, config.hidden_size
        positions = config.max_position_embeddings + POSITIONS_BEFORE
        self.embed_tokens = tc.nn.Embedding(config.vocab_size, width, dtype=dtype)
        self.embed_positions = tc.nn.Embedding(positions, hidden, dtype=dtype)
        self.project_in = self.project_out = None
        if width != hidden:
            self.project_in = nn.Linear(width, hidden, bias=False, dtype=dtype)
            self.project_out = nn.Linear(hidden, width, bias=False, dtype=dtype)
        self.layers = nn.ModuleList(OPTDecoderLayer(model_config, n) for n in range(config.num_hidden_layers))
        self.final_layer_norm = None
        if config.do_layer_norm_before and not config._remove_final_layer_norm:
            affine = config.layer_norm_elementwise_affine
            self.final_layer_norm = nn.LayerNorm(hidden, elementwise_affine=affine, dtype=dtype)

    def forward(self, attn_metadata, input_ids=None, position_ids=None, inputs_embeds=None, **kwargs):
        hidden_states = self.embed(input_ids, inputs_embeds)
        if self.project_in is not None:
            hidden_states = self.project_in(hidden_states)
        hidden_states = hidden_states + self.embed_positions(position_ids + POSITIONS_BEFORE)
        for layer in self.layers:
            hidden_states = layer(
                position_ids=position_ids, hidden_states=hidden_states, attn_metadata=attn_metadata, **kwargs
            )
        if self.final_layer_norm is not None:
            hidden_states = self.final_layer_norm(hidden_states)
        return hidden_states if self.project_out is None else self.project_out(hidden_states)


@tc.register_auto_model("OPTForCausalLM", config_class=OPTConfig, replace=True)
class OPTForCausalLM(tc.nn.DecoderModelForCausalLM[OPTModel, OPTConfig]):
    """OPT with its head, which is the token embedding in every published checkpoint."""

    def __init__(self, model_config: ModelConfig[OPTConfig]) -> None:
        config = model_config.pretrained_config
        super().__init__(
            OPTModel(model_config),
            config=model_config,
            hidden_size=config.word_embed_proj_dim,
            vocab_size=config.vocab_size,
        )

    def load_weights(self, weights) -> None:
        """Checkpoints keep the decoder one level deeper, and call the output projection out_proj."""
        ours = {name.replace("decoder.", "").replace("out_proj", "o_proj"): tensor for name, tensor in weights.items()}
        super().load_weights(ours)
