"""Attention: transformers' attention interface leads here, and the slot of the calling module decides the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from tensorcast.errors import ModelError, TransformationError
from tensorcast.layers.context_parallel import attend_shared
from tensorcast.layers.masks import INTERFACE_TABLE
from tensorcast.layers.mla import attend_latent
from tensorcast.layers.packed import attend_packed
from tensorcast.layers.patching import GlobalPatch, Replacement, patched
from tensorcast.layers.state import has_state, install, state_of
from tensorcast.models.library import library
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.vision.rules import PROMPT, pairs_ahead, together

INTERFACE = "tensorcast"
_EAGER = re.compile(r"^eager_attention_forward$")


@dataclass(frozen=True)
class AttentionRule:
    """Which pairs are computed, in which formats. 0 = no limit. `bias` [1 or b, heads, s, kv] is added to the scores.

    `shards`: of the keys, this rank has one in so many (decode context parallelism).
    `ahead`: pairs of a sequence in which a query sees a later key all the same, as image tokens may.
    `window`: keys at most `window` - 1 back, and where attention is not causal as many ahead.
    """

    scale: float
    causal: bool
    window: int
    chunk: int
    topk: int
    kv_format: str
    math: str
    phase: str
    bias: torch.Tensor | None = None
    ahead: int = 0
    shards: int = 1


def register_interface() -> None:
    """Make `attn_implementation="tensorcast"` known to transformers. No mask is registered: the rule carries it."""
    library("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS.register(INTERFACE, attention_interface)


def install_attention(model) -> int:
    """An attention slot on every module that calls transformers' attention interface. Returns how many."""
    found = list(attention_modules(model))
    for path, module in found:
        install(module, path).slots["attention"] = model.kernels.fill("attention", path)
    model.patches.append(GlobalPatch(_EAGER, _through_slot))
    return len(found)


def _through_slot(original, module_name):
    """What stands in for a model file's own `eager_attention_forward`, called without transformers' choice of one."""

    def attend(module, *args, **kwargs):
        if has_state(module) and "attention" in state_of(module).slots:
            return attention_interface(module, *args, **kwargs)
        return original(module, *args, **kwargs)

    return attend


def attention_modules(model):
    """(path, module) of every module that calls transformers' attention interface."""
    sizes = ("scaling", "scale", "head_dim", "num_heads")
    for path, module in model.module.named_modules():
        named = hasattr(module, "is_causal") and any(hasattr(module, name) for name in sizes)
        # `set_processor` is how attention looks in diffusers
        if named or calls_interface(module) or hasattr(module, "set_processor"):
            yield path, module


def calls_interface(module) -> bool:
    """Whether the module's forward looks its attention function up in transformers' table."""
    code = getattr(type(module).forward, "__code__", None)
    return code is not None and INTERFACE_TABLE in code.co_names


def attention_interface(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, **kwargs):
    """transformers' attention function: q [b, heads, s, d], k and v [b, kv_heads, kv, d] → [b, s, heads, dv], None."""
    q, k, v = query, key, value
    rule = rule_for(module, q, k, scaling, {"mask": attention_mask, **kwargs})
    if getattr(k, "_latent", False):
        return attend_latent(module, q, k, v, rule), None
    slot = state_of(module).slots.get("attention") if has_state(module) else None
    if slot is None:
        model = current().model.blueprint
        what = f"{type(module).__name__} has no attention kernel"
        raise TransformationError(f"{model.source.name}: {what}; the pipeline must run patch_attention")
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is not None and not bounds.is_meta:
        return attend_packed(lambda q, k, v: slot.kernel(q, k, v, rule), q, k, v, bounds), None
    return attend_shared(slot, q, k, v, rule), None


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
    fmt = context.model.attention_format or dtype_name(q)
    joined = together(context.model, kind) if causal and context.phase == "prefill" else ""
    kept = bool(causal) or context.phase == "decode"  # an encoder-decoder's decode step reads what was kept for it
    return AttentionRule(
        scale=float(scaling or q.shape[-1] ** -0.5),
        causal=bool(causal) and joined != PROMPT,
        window=int(window),
        chunk=int(config.attention_chunk_size or 0) if kind == "chunked_attention" else 0,
        topk=_picked(options),
        kv_format=context.model.kv_format if kept else dtype_name(k),
        math=fmt,
        phase="decode" if context.phase == "decode" else "prefill",
        bias=_bias(options),
        ahead=pairs_ahead(context.model.image_counts, joined),
    )


def _picked(options) -> int:
    """Keys that sparse attention picks for every query, one by one or in blocks of `_block`; 0 where it picks none."""
    chosen = next((c for name in ("indices", "block_indices") if (c := options.get(name)) is not None), None)
    return chosen.shape[-1] * getattr(chosen, "_block", 1) if chosen is not None else 0


def _bias(options) -> torch.Tensor | None:
    """What is added to the scores for the sake of positions; a mask, which is one for all heads, is none."""
    found = options.get("position_bias")
    mask = options.get("mask")
    if found is None and mask is not None and mask.dim() == 4 and mask.shape[1] > 1 and mask.is_floating_point():
        return mask
    return found


def layer_kind(config, layer: int | None) -> str | None:
    """The configuration's own word for a layer: sliding_attention, chunked_attention, full_attention …"""
    kinds = getattr(config, "layer_types", None)
    return kinds[layer] if kinds and layer is not None and layer < len(kinds) else None


_STOCK = torch.nn.functional.scaled_dot_product_attention


class InterceptAttention(torch.overrides.TorchFunctionMode):
    """Catches F.scaled_dot_product_attention, which decomposes on meta into something no machine runs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _sdpa(*args, **kwargs)
        if func is torch.nn.functional.multi_head_attention_forward:  # what a function calls inside passes modes by
            inside = Replacement(vars(torch.nn.functional), "scaled_dot_product_attention", _STOCK, _sdpa)
            with patched([inside]):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _sdpa(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    if current().model.blueprint.kind == "packed":
        how = "attend with tensorcast.nn.attend, or a tensorcast.nn.Attention"
        raise ModelError(f"scaled_dot_product_attention does not know the sequences of packed tokens; {how}")
    if query.dim() == 3:  # one head, which has no axis of its own
        parts = (x.unsqueeze(1) for x in (query, key, value))
        return _sdpa(*parts, None, dropout_p, is_causal, scale).squeeze(1)
    q, k, v, slot = query, key, value, calling_slot()
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    context = current()
    math = context.model.attention_format or dtype_name(q)
    # One new token sees all keys whether the call says causal or not; engines have a kernel of its own for that.
    decoding = context.phase == "decode" and (is_causal or q.shape[-2] == 1)
    phase, kv_format = ("decode", context.model.kv_format) if decoding else ("prefill", dtype_name(k))
    rule = AttentionRule(float(scale), is_causal or decoding, 0, 0, 0, kv_format, math, phase)
    if slot is not None and q.dim() == 4:
        return slot.kernel(q, k, v, rule).transpose(1, 2)
    from tensorcast.trace.library import call

    limits = (rule.causal, rule.window, rule.chunk, rule.topk)
    return call.attention(q, k, v, *limits, rule.kv_format, dtype_name(q), rule.phase, "flash").transpose(1, 2)


def calling_slot():
    """The attention slot of the innermost running module that has one; None outside of all."""
    context = current()
    path = context.tracer.here if context.tracer is not None else ""
    while path:
        module = context.model.module.get_submodule(path)
        slot = state_of(module).slots.get("attention") if has_state(module) else None
        if slot is not None:
            return slot
        path = path.rpartition(".")[0]
    return None
