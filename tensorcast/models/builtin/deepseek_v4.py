"""DeepSeek-V4: attention over a window of tokens and compressed entries, and hyper-connections in place of residuals.

transformers computes all of it from plain products, masks and loops; what runs here are the operators of
ops/compressed.py. Layers differ in `rate`, the tokens of an entry: 4 with an indexer that picks entries, 128 with all
of them, none. The published plan of tensor parallelism keeps the attention whole; serving engines cut its heads and
the groups of its output projection, and keep compressor and indexer on every rank.
"""

from __future__ import annotations

from tensorcast.errors import KernelError, ModelError
from tensorcast.pipelines import ModelProfile, register_model_profile


def attention_forward(module, hidden_states, position_embeddings, past_key_values=None, **kwargs):
    """forward of an attention: hidden_states [b, s, hidden] → the same and None."""
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    context, (b, s, _) = current(), hidden_states.shape
    _require_fused(module)
    table = position_embeddings[module.rope_layer_type][0]
    turned = 2 * table.shape[-1]
    residual = module.q_a_norm(module.q_a_proj(hidden_states))
    q = module.q_b_norm(module.q_b_proj(residual).view(b, s, -1, module.head_dim).transpose(1, 2))
    kv = module.kv_norm(module.kv_proj(hidden_states)).view(b, 1, s, module.head_dim)
    call.rotary(q[..., -turned:], kv[..., -turned:], table)
    if past_key_values is not None:
        layer, fmt = past_key_values.layers[module.layer_idx], context.model.kv_format
        layer.note("kv", token_bytes=module.head_dim * item_bytes(fmt), window=module.sliding_window)
        kv = call.kv_append(kv, kv[..., :0], layer.past, fmt, module.sliding_window)[0]
    rate, topk = 0, 0
    if module.compressor is not None:
        rate, topk = module.compressor.compress_rate, _compressed(module, hidden_states, residual, table, kv.shape[2])
    math = context.model.attention_format or dtype_name(q)
    phase = "decode" if context.phase == "decode" else "prefill"
    rule = (module.sliding_window, rate, topk, context.model.kv_format, math, phase)
    out = call.compressed_attention(q, kv, *rule)
    call.rotary(out[..., -turned:], out[..., :0], table)  # the values were turned with the keys: back again
    return module.o_b_proj(module.o_a_proj(out)), None


def _require_fused(module) -> None:
    """Other kernels know nothing of entries: asked for, they are refused."""
    from tensorcast.layers.state import state_of

    slot = state_of(module).slots["attention"]
    if slot.source != "default":
        raise KernelError(
            f"attention={slot.name} ({slot.source}) does not know compressed entries ({slot.path}); leave it out"
        )


def _compressed(module, hidden_states, residual, table, tokens: int) -> int:
    """The compressor of an attention, and its indexer where it has one. How many entries a query takes, 0 = all."""
    from tensorcast.ops.base import dtype_name
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    context, compressor = current(), module.compressor
    _entries(module, compressor, hidden_states, "kv", context.model.kv_format)
    indexer = getattr(compressor, "indexer", None)
    if indexer is None:
        return 0
    fmt, turned = context.model.index_format, 2 * table.shape[-1]
    _entries(module, indexer, hidden_states, "index", fmt)
    q = indexer.q_b_proj(residual).view(*hidden_states.shape[:2], -1, indexer.head_dim)
    call.rotary(q[..., -turned:], q[..., :0], table)
    weights = indexer.scorer.weights_proj(hidden_states)
    call.compressed_scores(q, weights, tokens, indexer.compress_rate, indexer.index_topk, fmt, dtype_name(q))
    return indexer.index_topk


def _entries(module, compressor, hidden_states, kind: str, fmt: str) -> None:
    """New entries from new tokens, and what the cache keeps: the entries, tokens of the next one, those before it."""
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    kv, gate = compressor.kv_proj(hidden_states), compressor.gate_proj(hidden_states)
    width, rate = compressor.head_dim, compressor.compress_rate
    call.compress_tokens(kv, gate, width, rate, fmt)
    size = item_bytes(dtype_name(kv))
    overlap = kv.shape[-1] - width  # of the window before, one of two series
    note = current().tracer.note_cache
    note(kind, token_bytes=width * item_bytes(fmt) / rate, sequence_bytes=0, window=0)
    note("state", token_bytes=0, sequence_bytes=2 * rate * (kv.shape[-1] + overlap) * size, window=0)


def grouped_forward(module, x):
    """forward of the output projection's first half: x [b, s, heads, d] → [b, s, groups · rank], group by group."""
    from tensorcast.layers.state import state_of
    from tensorcast.ops.base import dtype_name
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    (outputs, inputs), (b, s) = module.weight.shape, x.shape[:2]
    groups = x.shape[2] * x.shape[3] // inputs
    with current().suspended():  # batched products read and write with strides: no copy runs
        tokens = x.reshape(b * s, groups, inputs).transpose(0, 1)
        weights = module.weight.view(groups, outputs // groups, inputs).transpose(1, 2)
    spec, fmt = state_of(module).quant, dtype_name(module.weight)
    y = call.bmm(tokens, weights, spec.weight if spec else fmt, spec.math if spec else fmt)
    with current().suspended():
        return y.transpose(0, 1).reshape(b, s, outputs)


def hyper_forward(module, streams):
    """forward of a hyper-connection: streams [b, s, n, hidden] → weights behind the block, mixing, the block's input.

    The norm has no weights, so it is a factor of the product's result, which hyper_collapse applies.
    """
    from tensorcast.layers.linear import product
    from tensorcast.trace.library import call

    mix = product(streams.flatten(2), module.fn, None, None)
    return call.hyper_collapse(streams, mix, module.hc_sinkhorn_iters)


def layer_forward(module, hidden_states, input_ids=None, **kwargs):
    """forward of a decoder layer over streams [b, s, n, hidden]."""
    from tensorcast.trace.library import call

    if hidden_states.dim() == 3:
        raise ModelError("draft layers that work on several residual streams are not modelled; leave --mtp out")
    post, comb, x = module.attn_hc(hidden_states)
    y, _ = module.self_attn(module.input_layernorm(x), **kwargs)
    hidden_states = call.hyper_expand(hidden_states, y, post, comb)
    post, comb, x = module.ffn_hc(hidden_states)
    y = module.mlp(module.post_attention_layernorm(x), input_ids=input_ids)
    return call.hyper_expand(hidden_states, y, post, comb)


def window_cache(options, past: int):
    """The cache of a layer: its window of tokens; entries and states are noted where they are made."""
    from tensorcast.layers.cache import KvLayer

    return KvLayer(past, options["config"].sliding_window)


register_model_profile(
    ModelProfile(
        model_type="deepseek_v4",
        forwards={
            "DeepseekV4Attention.forward": attention_forward,
            "DeepseekV4GroupedLinear.forward": grouped_forward,
            "DeepseekV4HyperConnection.forward": hyper_forward,
            "DeepseekV4DecoderLayer.forward": layer_forward,
        },
        caches=dict.fromkeys(("compressed_sparse_attention", "heavily_compressed_attention"), window_cache),
        tp_plan={
            **dict.fromkeys(("*.compressor.*", "*.self_attn.q_a_proj", "*.self_attn.kv_proj"), "replicated"),
            **dict.fromkeys(("*.self_attn.q_b_proj", "*.self_attn.o_a_proj"), "column"),
            "*.self_attn.o_b_proj": "row",
        },
    )
)
