"""What one rank sees of a module that is cut over heads: local head counts, sizes and parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.mla import is_mla
from tensorcast.layers.scan import is_scan
from tensorcast.layers.scan_sharding import scan_heads
from tensorcast.layers.state import has_state, install, state_of
from tensorcast.layers.tp_rules import FUSED, KEY, QUERY, VALUE
from tensorcast.plan import divisors


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
    """A scan layer, attention with a slot, or attention written by hand: its projections and a number of heads."""
    if is_scan(module) or (has_state(module) and "attention" in state_of(module).slots):
        return True
    parts = {name for name, child in module._modules.items() if isinstance(child, nn.Linear)}
    projected = all(not parts.isdisjoint(names) for names in (QUERY, KEY, VALUE)) or not parts.isdisjoint(FUSED)
    return projected and head_counts(module)[0] > 1


def head_numbers(module: nn.Module) -> dict[str, int]:
    """What must divide, by name. Those in `_REPLICATED` may also be fewer than the ranks."""
    if is_scan(module):
        return scan_heads(module)
    heads, kv_heads, _ = head_counts(module)
    grouped = next((m for m in module.children() if isinstance(m, nn.Linear) and hasattr(m, "n_groups")), None)
    counts = {"heads": heads, "KV_heads": kv_heads}
    return counts if grouped is None else counts | {"output_groups": grouped.n_groups}


_REPLICATED = ("KV_heads", "n_groups")


def divides(counts: Mapping[str, int], tp: int) -> bool:
    return all(n % tp == 0 or (name in _REPLICATED and tp % n == 0) for name, n in counts.items())


def check_shares(plan, path: str, module: nn.Module) -> None:
    """DeploymentError where `dcp` neighbours of the tensor-parallel ranks do not read the same keys.

    `module` is an attention before its heads are cut.
    """
    kv_heads = 1 if is_mla(module) else head_counts(module)[1]
    copies = max(1, plan.tp // kv_heads)
    if copies % plan.dcp:
        valid = ", ".join(map(str, divisors(copies)))
        more = "" if copies > 1 else f"; with more than {kv_heads} tensor-parallel ranks, several share a head"
        what = f"{path} has {kv_heads} KV heads, each on {copies} of {plan.tp} ranks"
        raise DeploymentError(f"--dcp {plan.dcp}: {what}; values that work: {valid}{more}")


def head_counts(module: nn.Module) -> tuple[int, int, int]:
    """(heads, KV heads, head dim) of an attention module, from the module itself first, then its configuration."""
    config = getattr(module, "config", None)

    def first(*names):
        for source in (module, config):
            for name in names:
                value = _stated(source, name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    heads = first(*_HEADS) or 1
    head_dim = first(*_HEAD_DIMS) or 0
    q_proj, k_proj = (
        next((m for n in names if (m := getattr(module, n, None)) is not None), None) for names in (QUERY, KEY)
    )
    if not head_dim and isinstance(q_proj, nn.Linear):
        head_dim = q_proj.out_features // heads
    head_dim = head_dim or (first(*_WIDTHS) or 0) // heads
    if isinstance(k_proj, nn.Linear) and head_dim and not is_mla(module):
        return heads, max(1, k_proj.out_features // head_dim), head_dim
    kv_heads = heads if is_mla(module) else first(*_KV_HEADS) or heads
    return heads, kv_heads, head_dim


def _stated(source, name: str):
    """What a module or configuration says under a name; None where it says nothing, or each layer its own."""
    try:
        return getattr(source, name, None)
    except RuntimeError:  # transformers' way of saying that layers differ
        return None


_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_HEAD_DIMS = ("head_dim", "v_head_dim", "attention_head_size", "head_size", "depth")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads")
_GROUPS = ("num_key_value_groups", "num_kv_groups", "n_rep")
_WIDTHS = (
    "hidden_size", "embed_dim", "all_head_size", "inner_dim", "out_dim", "d_model", "split_size", "d_model_size",
    "n_embd",
)  # fmt: skip
_KV_WIDTHS = ("kv_dim", "inner_kv_dim")


class _LocalConfig:
    """The configuration as one rank sees it: head counts are local, everything else is the model's."""

    def __init__(self, config, **local) -> None:
        self.__dict__.update(local, _config=config)

    def __getattr__(self, name):
        return getattr(self.__dict__["_config"], name)


def localise_heads(part: nn.Module, heads: int, local: int) -> None:
    """A small part of an attention sees the number of local heads."""
    for name in _HEADS:
        if part.__dict__.get(name) == heads:
            part.__dict__[name] = local


def localise(module, heads, local_heads, kv_heads, local_kv, *, widths: bool = True) -> None:
    """Let a module see its local heads; `widths` False where its code finds its part by the ratio of whole widths."""
    config = getattr(module, "config", None)
    if config is not None and _stated(config, "num_attention_heads") == heads:
        module.config = _LocalConfig(config, num_attention_heads=local_heads, num_key_value_heads=local_kv)
    width = head_counts(module)[2]
    for names, old, new in (
        (_HEADS, heads, local_heads),
        (_KV_HEADS, kv_heads, local_kv),
        (_GROUPS, heads // kv_heads, local_heads // local_kv),
        (_WIDTHS * widths, heads * width, local_heads * width),
        (_KV_WIDTHS * widths, kv_heads * width, local_kv * width),
    ):
        for name in names:
            if module.__dict__.get(name) == old:
                module.__dict__[name] = new
