"""Attention: transformers' attention interface leads here, and the slot of the calling module decides the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tensorcast.layers.mla import attend_latent
from tensorcast.layers.state import install, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current

INTERFACE = "tensorcast"


@dataclass(frozen=True)
class AttentionRule:
    """Which pairs are computed, in which formats. 0 = no limit."""

    scale: float
    causal: bool
    window: int
    chunk: int
    topk: int
    kv_format: str
    math: str
    phase: str


def register_interface() -> None:
    """Make `attn_implementation="tensorcast"` known to transformers. No mask is registered: the rule carries it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(INTERFACE, attention_interface)


def install_attention(model) -> int:
    """An attention slot on every module that calls transformers' attention interface. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        sizes = ("scaling", "scale", "head_dim", "num_heads")
        if hasattr(module, "is_causal") and any(hasattr(module, name) for name in sizes):
            install(module, path).slots["attention"] = model.kernels.fill("attention", path)
            count += 1
    return count


def attention_interface(module, q, k, v, attention_mask=None, scaling=None, dropout=0.0, **kwargs):
    """transformers' attention function: q [b, heads, s, d], k and v [b, kv_heads, kv, d] → [b, s, heads, dv], None."""
    rule = rule_for(module, q, k, scaling, kwargs)
    if getattr(k, "_latent", False):
        return attend_latent(module, q, k, v, rule), None
    slot = state_of(module).slots["attention"]
    return slot.kernel(q, k, v, rule), None


def rule_for(module, q, k, scaling, options) -> AttentionRule:
    """What the call and the model's configuration say about the pairs to compute."""
    context = current()
    causal = options.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    layer = getattr(module, "layer_idx", None)
    config = getattr(module, "config", None)
    kind = layer_kind(config, layer) if causal else None
    window = options.get("sliding_window") or 0
    if kind == "sliding_attention" and not window:
        window = getattr(config, "sliding_window", None) or 0
    chosen = options.get("indices")  # [b, s, k]: the keys that sparse attention picked for every query
    fmt = context.model.attention_format or dtype_name(q)
    return AttentionRule(
        scale=float(scaling or q.shape[-1] ** -0.5),
        causal=bool(causal),
        window=int(window),
        chunk=int(config.attention_chunk_size or 0) if kind == "chunked_attention" else 0,
        topk=int(chosen.shape[-1]) if chosen is not None else 0,
        kv_format=context.model.kv_format if causal else dtype_name(k),
        math=fmt,
        phase="decode" if context.phase == "decode" and causal else "prefill",
    )


def layer_kind(config, layer: int | None) -> str | None:
    """The configuration's own word for a layer: sliding_attention, chunked_attention, full_attention …"""
    kinds = getattr(config, "layer_types", None)
    return kinds[layer] if kinds and layer is not None and layer < len(kinds) else None


class InterceptAttention(torch.overrides.TorchFunctionMode):
    """Catches F.scaled_dot_product_attention, which decomposes on meta into something no machine runs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _sdpa(*args, **kwargs)
        return func(*args, **kwargs)


def _sdpa(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    from tensorcast.trace.library import call

    fmt = dtype_name(q)
    out = call.attention(q, k, v, is_causal, 0, 0, 0, dtype_name(k), fmt, "prefill", "flash")
    return out.transpose(1, 2)
