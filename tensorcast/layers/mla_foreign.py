"""Latent attention written outside of transformers: a profile names its class and parts, its forward becomes ours.

The forward is the published one: queries (through their own latents or not), latents and the shared rotary key into the
cache, keys and values expanded from them or the query absorbed, as the mla kernel decides.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import nn

from tensorcast.layers.named import Parts, fault, modules_named, returned_values
from tensorcast.layers.state import install, state_of
from tensorcast.layers.tp_rules import LEAVES
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def named_modules(model) -> dict[str, nn.Module]:
    """Path → latent attention module of the class that the profile names; {} when it names none."""
    name = model.profile.mla_module_name
    return dict(modules_named(model, name)) if name is not None else {}


def adapt(model, modules: dict[str, nn.Module]) -> None:
    """Check the named modules against the profile; those without transformers' form get our forward."""
    for path, module in modules.items():
        parts = Parts(model, path, module, model.profile.mla_fields, "mla_field_names_override")
        found = {f.name: parts(f.name, alternative=True) for f in fields(parts.names)}
        if found["q_proj"] is None and None in [found[name] for name in parts.names.LATENT_QUERY]:
            needs = ", ".join(parts.names.LATENT_QUERY)
            raise fault(model, f"{path} ({type(module).__name__}) has neither q_proj nor all of {needs}")
        if hasattr(module, "expand_kv"):
            continue
        if found["q_a_proj"] is not None:
            found["q_proj"] = None
        heads, nope, v_dim = found["num_heads"], found["qk_nope_head_dim"], found["v_head_dim"]
        if found["kv_b_proj"].out_features != heads * (nope + v_dim):
            wide = found["kv_b_proj"].out_features
            raise fault(model, f"{path}: kv_b_proj has {wide} outputs, not {heads} heads x ({nope} + {v_dim})")
        _same_form(model, path, module, found)


def _same_form(model, path: str, module: nn.Module, parts: dict) -> None:
    """Give the module the names that layers/mla.py knows, and the forward."""
    for name, value in parts.items():
        if isinstance(value, nn.Linear) and name not in module._modules:
            value.tensor_parallel_mode = LEAVES[name]  # the rule goes by the part it is, whatever it is called
        if name not in module._modules and name not in module.__dict__:
            module.__dict__[name] = value  # not registered again: parameters keep their paths
    module.__dict__["expand_kv"] = lambda latent, rope: expand(module, latent, rope)
    module.__dict__.setdefault("is_causal", True)
    values = returned_values(model, type(module))
    install(module, path, lambda module, *args, **kwargs: latent_forward(module, values, *args, **kwargs))
    if "attention" not in state_of(module).slots:
        state_of(module).slots["attention"] = model.kernels.fill("attention", path)


def expand(module, latent, rope):
    """Keys and values [b, heads, kv, …] of latents [b, 1, kv, rank] and the shared rotary keys [b, 1, kv, rope]."""
    b, _, kv, _ = latent.shape
    nope, v_dim = module.qk_nope_head_dim, module.v_head_dim
    both = module.kv_b_proj(latent).view(b, kv, -1, nope + v_dim).transpose(1, 2)
    k_nope, values = both.split((nope, v_dim), dim=-1)
    keys = torch.cat((k_nope, rope.expand(-1, k_nope.shape[1], -1, -1)), dim=-1)
    return keys, values


def latent_forward(module, values: int, hidden_states, *args, **kwargs):
    """forward of a foreign latent attention: hidden_states [b, s, hidden] → the same and `values` - 1 more results."""
    from tensorcast.layers.attention import attention_interface

    b, s, _ = hidden_states.shape
    nope, turned = module.qk_nope_head_dim, module.qk_rope_head_dim
    if module.q_proj is not None:
        q = module.q_proj(hidden_states)
    else:
        q = module.q_b_proj(module.q_a_layernorm(module.q_a_proj(hidden_states)))
    q = q.view(b, s, -1, nope + turned).transpose(1, 2)
    latent, rope = module.kv_a_proj_with_mqa(hidden_states).split((module.kv_lora_rank, turned), dim=-1)
    latent = module.kv_a_layernorm(latent).view(b, 1, s, module.kv_lora_rank)
    rope = rope.view(b, 1, s, turned)
    q_rot, rope = call.rotary(q[..., nope:], rope, _table(hidden_states, turned, kwargs))
    cache = next((v for v in (*args, *kwargs.values()) if hasattr(v, "get_seq_length")), None)
    if cache is not None:
        latent, rope = cache.update(latent, rope, module.layer_idx)
    q = torch.cat((q[..., :nope], q_rot), dim=-1)
    keys, states = module.expand_kv(latent, rope)
    scaling = getattr(module, "scaling", None) or getattr(module, "softmax_scale", None)
    out, _ = attention_interface(module, q, keys, states, scaling=scaling)
    out = module.o_proj(out.reshape(b, s, -1).contiguous())
    return out if values == 1 else (out, None, cache)[:values]


def _table(hidden_states, width: int, options: dict):
    """Cosines [b, s, width]: the model's own where it hands them on, else one of the size it looks up."""
    given = options.get("position_embeddings")
    if given is not None:
        return given[0] if isinstance(given, tuple) else given
    with current().suspended():
        return hidden_states.new_empty((*hidden_states.shape[:2], width))
