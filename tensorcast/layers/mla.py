"""Multi-head latent attention: the cache holds latents; keys and values are expanded, or absorbed into the query.

Found by structure: a module with kv_b_proj, kv_lora_rank and an `expand_kv` method.
"""

from __future__ import annotations

from tensorcast.layers.block_indexer import block_indexer_forward, picks_blocks
from tensorcast.layers.context_parallel import over_shares
from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def is_mla(module) -> bool:
    return all(hasattr(module, name) for name in ("kv_b_proj", "kv_lora_rank", "expand_kv"))


def install_mla(model) -> int:
    """An mla slot on every latent attention module. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        if not is_mla(module):
            continue
        state = install(module, path)
        state.slots["mla"] = model.kernels.fill("mla", path)
        module.__dict__["_original_expand_kv"] = module.expand_kv
        module.__dict__["expand_kv"] = _expander(module)
        _tell(model, state.slots)
        count += 1
    return count


def _tell(model, slots) -> None:
    """Say once where a chosen attention kernel does not run: attention over latents has kernels of its own."""
    slot = slots.get("attention")
    if slot is not None and slot.source != "default" and slots["mla"].kernel("decode", False):
        note = f"attention={slot.name} runs where latents are expanded; decode works on them as they are"
        if note not in model.notes:
            model.notes.append(note)


def _expander(module):
    def expand_kv(latent, rope):
        slot = state_of(module).slots["mla"]
        sparse = hasattr(module, "indexer")  # None in a layer that takes the choice of the layer before
        if slot.kernel(current().phase, sparse):
            latent._latent = True
            return latent, rope
        return module.__dict__["_original_expand_kv"](latent, rope)

    return expand_kv


def attend_latent(module, q, latent, rope, rule):
    """Absorbed attention: q [b, heads, s, nope + rope] against latents [b, 1, kv, rank]; result [b, s, heads, v_dim].

    The key half of kv_b_proj moves into the query, its value half behind the attention: two batched products over the
    tokens instead of an expansion over the cache.
    """
    b, heads, s, _ = q.shape
    rank, nope, v_dim = latent.shape[-1], module.qk_nope_head_dim, module.v_head_dim
    # Engines keep the two halves in 16 bits even when the projection is quantised: batched products have no scales.
    weight = module.kv_b_proj.weight.view(heads, nope + v_dim, -1)
    fmt = dtype_name(q)
    with current().suspended():  # batched products read and write with strides: no copy runs
        tokens = q.transpose(0, 1).reshape(heads, b * s, -1)
    absorbed = call.bmm(tokens[..., :nope], weight[:, :nope], fmt, fmt)
    query = absorbed.view(heads, b, s, rank).transpose(0, 1)
    formats = (rule.kv_format, rule.math, rule.phase, "flash")

    def attend(query, turned, rule):
        limits = (rule.causal, rule.window, rule.topk)
        return call.mla_attention(query, turned, latent, rope, *limits, *formats, rule.shards)

    out = over_shares(attend, (query, q[..., nope:]), latent, rule, heads_dim=1)
    values = weight[:, nope:].transpose(1, 2)
    with current().suspended():
        tokens = out.transpose(0, 1).reshape(heads, b * s, rank)
    out = call.bmm(tokens, values, fmt, fmt)
    with current().suspended():
        return out.view(heads, b, s, v_dim).permute(1, 2, 0, 3).contiguous()


_INDEXER = ("wq_b", "wk", "k_norm", "weights_proj", "index_topk")


def install_indexers(model) -> int:
    """The indexer of sparse attention as products, a cache write and one scoring operator. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        indexer = getattr(module, "indexer", None)
        if picks_blocks(indexer):
            install(indexer, f"{path}.indexer", block_indexer_forward)
            count += 1
        if indexer is None or not all(hasattr(indexer, name) for name in _INDEXER):
            continue
        install(indexer, f"{path}.indexer", indexer_forward)
        install(module, path, _with_mask)
        count += 1
    return count


def _with_mask(module, *args, attention_mask=None, **kwargs):
    """The model slices a mask that our attention rule replaces: give it one without memory."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    if attention_mask is None:
        with current().suspended():
            attention_mask = hidden.new_empty(1).expand(hidden.shape[0], 1, hidden.shape[1], 1)
    return original_forward(module, *args, attention_mask=attention_mask, **kwargs)


def indexer_forward(module, hidden_states, q_resid, position_embeddings, attention_mask, *args, **kwargs):
    """forward of an indexer: the top-k key indices [b, s, topk] of every query."""
    context = current()
    b, s, _ = hidden_states.shape
    q = module.wq_b(q_resid).view(b, s, -1, module.head_dim)
    k = module.k_norm(module.wk(hidden_states)).unsqueeze(2)
    q, k = call.rotary(q, k, position_embeddings[0])
    cache = kwargs.get("past_key_values")
    k = k.squeeze(2)
    if cache is not None:
        k = cache.update_indexer(k, module.layer_idx)
    weights = module.weights_proj(hidden_states)
    return call.index_scores(q, weights, k, module.index_topk, context.model.index_format, dtype_name(q))
