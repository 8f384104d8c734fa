"""What one rank sees of a module that is cut over heads: local head counts, sizes and parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tensorcast.layers.mla import is_mla
from tensorcast.layers.state import Group, Shard, has_state, install, state_of


def tp_values(model) -> tuple[int, ...]:
    """Tensor-parallel degrees that divide the heads of every layer of the whole model, before anything is cut."""
    wanted = [head_numbers(module) for _, module in head_modules(model)]
    top = min((max(counts.values(), default=1) for counts in wanted), default=1)
    return tuple(n for n in range(1, top + 1) if all(divides(counts, n) for counts in wanted))


def head_modules(model):
    """(path, module) of every attention and scan layer that tensor parallelism cuts."""
    for path, module in model.module.named_modules():
        if _has_heads(module) and not path.startswith(tuple(model.unsharded)):
            install(module, path)
            yield path, module


def _has_heads(module: nn.Module) -> bool:
    """A scan layer, attention with a slot, or attention written by hand: projections q, k, v and a number of heads."""
    if has_state(module) and ("attention" in state_of(module).slots or is_scan(module)):
        return True
    projections = (getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj"))
    return all(isinstance(p, nn.Linear) for p in projections) and head_counts(module)[0] > 1


def is_scan(module: nn.Module) -> bool:
    """Whether `module` is a state-space or linear-attention layer."""
    return hasattr(module, "A_log")


def head_numbers(module: nn.Module) -> dict[str, int]:
    """What must divide, by name. Those in `_REPLICATED` may also be fewer than the ranks."""
    if is_scan(module):
        return {n: module.__dict__[n] for n in _SCAN_HEADS if n in module.__dict__}
    heads, kv_heads, _ = head_counts(module)
    return {"heads": heads, "KV_heads": kv_heads}


_REPLICATED = ("KV_heads", "n_groups")


def divides(counts: Mapping[str, int], tp: int) -> bool:
    return all(n % tp == 0 or (name in _REPLICATED and tp % n == 0) for name, n in counts.items())


def head_counts(module: nn.Module) -> tuple[int, int, int]:
    """(heads, KV heads, head dim) of an attention module, from the module itself first, then its configuration."""
    config = getattr(module, "config", None)

    def first(*names):
        for source in (module, config):
            for name in names:
                value = getattr(source, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    heads = first(*_HEADS) or 1
    head_dim = first("head_dim", "v_head_dim") or 0
    q_proj = getattr(module, "q_proj", None)
    if not head_dim and isinstance(q_proj, nn.Linear):
        head_dim = q_proj.out_features // heads
    k_proj = getattr(module, "k_proj", None)
    if isinstance(k_proj, nn.Linear) and head_dim and not is_mla(module):
        return heads, max(1, k_proj.out_features // head_dim), head_dim
    kv_heads = heads if is_mla(module) else first(*_KV_HEADS) or heads
    return heads, kv_heads, head_dim


_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head")
_GROUPS = ("num_key_value_groups", "num_kv_groups", "n_rep")
_WIDTHS = ("hidden_size", "embed_dim", "all_head_size", "inner_dim", "d_model")


class _LocalConfig:
    """The configuration as one rank sees it: head counts are local, everything else is the model's."""

    def __init__(self, config, **local) -> None:
        self.__dict__.update(local, _config=config)

    def __getattr__(self, name):
        return getattr(self.__dict__["_config"], name)


def localise(module, heads, local_heads, kv_heads, local_kv) -> None:
    config = getattr(module, "config", None)
    if config is not None and getattr(config, "num_attention_heads", None) == heads:
        module.config = _LocalConfig(config, num_attention_heads=local_heads, num_key_value_heads=local_kv)
    width = head_counts(module)[2]
    for names, old, new in (
        (_HEADS, heads, local_heads),
        (_KV_HEADS, kv_heads, local_kv),
        (_GROUPS, heads // kv_heads, local_heads // local_kv),
        (_WIDTHS, heads * width, local_heads * width),
    ):
        for name in names:
            if module.__dict__.get(name) == old:
                module.__dict__[name] = new


_SCAN_HEADS = ("num_v_heads", "num_k_heads", "num_heads", "n_groups")
_SCAN_WIDTHS = ("key_dim", "value_dim", "conv_dim", "intermediate_size")


def localise_scan(module, tp: int) -> None:
    """Local sizes of a scan layer. Groups fewer than ranks are replicated, which keeps their part of conv_dim whole."""
    old = dict(module.__dict__)
    for name in (*_SCAN_HEADS, *_SCAN_WIDTHS):
        if name in old:
            module.__dict__[name] = max(1, old[name] // tp) if name == "n_groups" else old[name] // tp
    if "n_groups" in old and "intermediate_size" in old:
        local = module.__dict__
        local["conv_dim"] = local["intermediate_size"] + 2 * local["n_groups"] * old["ssm_state_size"]
    conv = module.conv1d
    for part in (module, conv):
        install(part, f"{state_of(module).path}.conv1d").shard = Shard("column", Group(tp, 1), rule="heads")
    channels = module.__dict__["conv_dim"]
    conv._parameters["weight"] = smaller(conv.weight, 0, channels)
    if conv.bias is not None:
        conv._parameters["bias"] = smaller(conv.bias, 0, channels)
    for name in ("dt_bias", "A_log", "D"):
        if name in module._parameters:
            module._parameters[name] = smaller(module._parameters[name], 0, module._parameters[name].shape[0] // tp)
    norm = getattr(module, "norm", None)
    width = old.get("intermediate_size")
    if norm is not None and width and norm.weight.shape[0] == width:
        norm._parameters["weight"] = smaller(norm.weight, 0, width // tp)


def scan_width(module, name, linear, tp) -> int:
    """Local outputs of an input projection: Mamba's one projection holds gate, convolution channels and time steps."""
    if name == "in_proj" and "n_groups" in module.__dict__:
        return module.intermediate_size + module.conv_dim + module.num_heads
    return linear.out_features // tp


def empty_parameter(weight, shape) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=weight.dtype, device=weight.device), requires_grad=False)


def smaller(weight, dim, size) -> nn.Parameter:
    shape = list(weight.shape)
    shape[dim] = size
    return empty_parameter(weight, shape)
