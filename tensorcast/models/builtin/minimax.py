"""MiniMax-01: lightning attention, linear attention whose heads forget at constant rates, beside softmax attention."""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile


def lightning(module, hidden_states, **kwargs):
    """forward of a lightning attention: hidden_states [b, s, hidden] → the same and None."""
    import torch

    from tensorcast.layers.scan import STATE_FORMAT
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    context, (b, s, _), width = current(), hidden_states.shape, module.head_dim
    heads = module.act_fn(module.qkv_proj(hidden_states)).view(b, s, -1, 3 * width)
    q, k, v = heads.split(width, dim=-1)
    recurrent = context.phase == "decode"
    out = call.decay_attention(q, k, v, 0, 0, module.block_size, recurrent, STATE_FORMAT, dtype_name(v))
    kept = v.shape[2] * width * width * item_bytes(STATE_FORMAT)
    context.tracer.note_cache("state", token_bytes=0, sequence_bytes=kept, window=0)
    out = module.norm(out.view(b, s, -1))
    return module.out_proj(torch.sigmoid(module.output_gate(hidden_states)) * out), None


def inputs(model, step):
    """The usual cache, as the class of cache that the model insists on."""
    import sys

    from tensorcast.layers.cache import EmptyCache, build_cache

    cache = build_cache(model.config, step.past)
    own = sys.modules[type(model.module).__module__].MiniMaxCache
    cache.__class__ = type("Cache", (EmptyCache, own), {})
    cache.linear_cache = []
    return {"past_key_values": cache}


register_model_profile(
    ModelProfile(
        model_type="minimax",
        forwards={"MiniMaxLightningAttention.forward": lightning},
        inputs=inputs,
        tp_plan={"*.self_attn.output_gate": "column"},
    )
)
