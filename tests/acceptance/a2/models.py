"""What the tests of models of transformers are asked with, and what they look at."""

from __future__ import annotations

import json

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000,
    "tie_word_embeddings": True, "max_position_embeddings": 4096, "dtype": "bfloat16",
}  # fmt: skip
WORK = {"hw": "h100", "batch": 2, "input_len": 128, "output_len": 4}
PARAMETERS = 320 * 64 + 64 + 4 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64)  # of the hand-written model


def folder(path, config):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def ops(estimate, phase="prefill"):
    return [(op["op"], op["module"], op["count"]) for op in estimate.phases[phase]["ops"]]


def step(model, name):
    return next(s for s in model.steps if s.name == name)
