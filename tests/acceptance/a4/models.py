"""A Llama on tensorcast.nn as a user writes it, checkpoints that are headers alone, and what a trace adds up to."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from transformers import OPTConfig

from tensorcast.ops import operator_named
from tensorcast.trace.run import trace_step

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 688,
    "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 1024,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu",
    "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "dtype": "bfloat16",
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
MINE = {**CONFIG, "model_type": "my_model", "architectures": ["MyModelForCausalLM"]}

SOURCE = """
from torch import nn
from transformers import LlamaConfig, PreTrainedConfig

import tensorcast as tc


class MyAttention(tc.nn.Attention):
    def __init__(self, model_config, layer_idx):
        rotary = tc.nn.RotaryEmbedding(model_config.pretrained_config.head_dim)
        super().__init__(model_config, layer_idx, rotary_emb=rotary)


class MyDecoderLayer(tc.nn.DecoderLayer):
    def __init__(self, model_config, layer_idx):
        super().__init__()
        config = model_config.pretrained_config
        self.input_layernorm = tc.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MyAttention(model_config, layer_idx)
        self.post_attention_layernorm = tc.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = tc.nn.GatedMLP(config.hidden_size, config.intermediate_size)


class MyModel(tc.nn.DecoderModel):
    def __init__(self, model_config):
        super().__init__(model_config)
        config = model_config.pretrained_config
        self.embed_tokens = tc.nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(MyDecoderLayer(model_config, n) for n in range(config.num_hidden_layers))
        self.norm = tc.nn.RMSNorm(config.hidden_size, config.rms_norm_eps)

"""
HEAD = """
class MyModelForCausalLM(tc.nn.DecoderModelForCausalLM[MyModel, {config}]):
    def __init__(self, model_config):
        config = model_config.pretrained_config
        super().__init__(
            MyModel(model_config), config=model_config, hidden_size=config.hidden_size, vocab_size=config.vocab_size
        )
"""
UNTYPED = HEAD.replace("[MyModel, {config}]", "")
REGISTERED = SOURCE + '@tc.register_auto_model("MyModelForCausalLM")' + HEAD.format(config="LlamaConfig")
SHORT = ("--input-len", "64", "--output-len", "2")
REPLACING = SOURCE + '@tc.register_auto_model("LlamaForCausalLM", replace=True)' + HEAD.format(config="LlamaConfig")
ALONE = SOURCE + HEAD.format(config="LlamaConfig") + "\n__model__ = MyModelForCausalLM\n"


def folder(path: Path, config: dict) -> str:
    """A model folder at `path` with this configuration."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def header(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of name → (dtype, shape) without any data."""
    text = json.dumps({n: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for n, (d, s) in tensors.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def llama_tensors(config: dict, dtype: str = "BF16") -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a published Llama checkpoint of that size."""
    h, i, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    q, kv = (config[k] * config["head_dim"] for k in ("num_attention_heads", "num_key_value_heads"))
    shapes = {
        "self_attn.q_proj": (q, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, q), "mlp.gate_proj": (i, h), "mlp.up_proj": (i, h), "mlp.down_proj": (h, i),
    }  # fmt: skip
    out = {"model.embed_tokens.weight": ("BF16", (v, h)), "model.norm.weight": ("BF16", (h,))}
    out["lm_head.weight"] = ("BF16", (v, h))
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        out |= {f"{layer}.{name}.weight": (dtype, shape) for name, shape in shapes.items()}
        out |= {f"{layer}.{name}.weight": ("BF16", (h,)) for name in ("input_layernorm", "post_attention_layernorm")}
    return out


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def opt(path: str, **changes) -> str:
    config = {k: v for k, v in OPTConfig(**changes).to_dict().items() if k != "transformers_version"}
    return folder(Path(path), {**config, "architectures": ["OPTForCausalLM"], "dtype": "float16"})


def calls(model, phase="prefill", batch=2, tokens=64, past=0, lengths=()):
    return trace_step(model, phase, batch, tokens, past, lengths).calls


def flops(found, *ops: str) -> float:
    work = ((c, operator_named(c.op).work(c.dims, c.attrs)) for c in found if c.op in ops)
    return sum(float(w.matrix_flops) * len(c.layers or [0]) for c, w in work)


def count(found, op: str) -> int:
    return sum(len(c.layers or [0]) for c in found if c.op == op)


def shape_of(model, path: str) -> list[int]:
    return list(model.module.get_parameter(path).shape)
