"""The KV cache of an answer beside transformers' own cache classes, filled by a real run on the CPU.

Layers with a window or chunks keep no more than that; contexts lie below it, at it, just above it and far above it.
"""

from __future__ import annotations

import json

import pytest
import torch
from transformers import DynamicCache, StaticCache

import tensorcast as tc
from tensorcast.models.reference import resolve_model
from tests.verify import stock
from tests.verify.tiny import TINY

WINDOW, BATCH = 16, 2
CONTEXTS = (WINDOW - 6, WINDOW, WINDOW + 1, 5 * WINDOW + 3)
_SIZES = {name: TINY["llama"][name] for name in TINY["llama"] if name not in ("model_type", "architectures")}
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
MODELS = {
    "gpt_oss": TINY["gpt_oss"],
    "windows": TINY["windows"],
    "gemma3": TINY["gemma3"],
    "mistral": {
        **_SIZES, "model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": WINDOW,
    },
    "llama4": {
        **_SIZES, "model_type": "llama4_text", "architectures": ["Llama4ForCausalLM"], "attention_chunk_size": WINDOW,
        "num_hidden_layers": 8, "no_rope_layer_interval": 4, "num_local_experts": 4, "intermediate_size_mlp": 128,
    },
    "gemma4": {  # full layers have wider heads; the last layers read what earlier ones keep
        **_SIZES, "model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], "sliding_window": WINDOW,
        "num_hidden_layers": 8, "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2,
        "global_head_dim": 32, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 320, "tie_word_embeddings": True,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
}  # fmt: skip


def held(cache) -> int:
    """Bytes of the keys and values that a cache of transformers has allocated."""
    return sum(
        t.numel() * t.element_size()
        for layer in cache.layers
        for t in (getattr(layer, "keys", None), getattr(layer, "values", None))
        if t is not None
    )


def windowed(cache) -> int:
    """Bytes of one token in the layers that keep a window."""
    return sum(
        t.shape[0] * t.shape[1] * t.shape[3] * t.element_size()
        for layer in cache.layers
        if getattr(layer, "is_sliding", False) and getattr(layer, "keys", None) is not None
        for t in (layer.keys, layer.values)
    )


def run(module, tokens: int, cache) -> None:
    """A prefill of all but one token, and one step."""
    for count in (tokens - 1, 1):
        with torch.no_grad():
            module(torch.zeros((BATCH, count), dtype=torch.long), past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_of_the_librarys_caches(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS[name]))
    source = resolve_model(str(tmp_path))
    module = stock.build_real(source)
    for tokens in CONTEXTS:
        fixed, growing = StaticCache(module.config, max_cache_len=tokens), DynamicCache(config=module.config)
        run(module, tokens, fixed)
        run(module, tokens, growing)
        ours = answered(tmp_path, tokens)
        assert ours == held(fixed), tokens
        # A growing cache drops the token that the next one will push out of the window.
        dropped = windowed(growing) if tokens >= WINDOW else 0
        assert ours == held(growing) + dropped, tokens


def answered(folder, tokens: int) -> int:
    work = {"batch": BATCH, "input_len": tokens - 1, "output_len": 1, "quant": "none"}
    return tc.simulate(str(folder), hw="h100-sxm", **work).memory["kv_cache_bytes"]
