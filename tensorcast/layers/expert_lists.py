"""MoE blocks that hold their experts as a list of modules, as code from outside of transformers does.

A profile names the block's class and parts. The list becomes one module of stacked parameters, the same numbers in the
form that layers/experts.py runs, cuts and quantises; the block's own forward, which loops over the experts that some
token chose, becomes: gate, selection, experts, shared experts. Routing is uniform over the experts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tensorcast.errors import TransformationError
from tensorcast.layers.experts import experts_weights
from tensorcast.layers.named import Parts, config_value, fault, modules_named, returned_values
from tensorcast.trace.library import call

LISTS = (nn.ModuleList, nn.ModuleDict)
_KEY = "moe_num_experts_key"
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k")


class StackedExperts(nn.Module):
    """Experts of equal sizes. gate_up_proj [experts, 2·inter, hidden] (up_proj [experts, inter, hidden] where there is
    no gate), down_proj [experts, hidden, inter], and biases [experts, …] where the experts have them."""

    def __init__(self, parameters: dict[str, nn.Parameter], top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)


def named_blocks(model) -> dict[str, nn.Module]:
    """Path → block of the class that the profile names; {} when it names none."""
    name = model.profile.moe_module_name
    return dict(modules_named(model, name)) if name is not None else {}


def adapt(model, blocks: dict[str, nn.Module]) -> dict[str, Callable]:
    """Check the named blocks against the profile and stack lists of experts. Path → forward of the blocks changed."""
    forwards = {}
    for path, block in blocks.items():
        parts = Parts(model, path, block, model.profile.moe_fields, "moe_field_names_override")
        experts, gate = parts("experts"), parts("gate")
        shared, shared_gate = parts("shared_experts"), parts("shared_experts_gate")
        parts("norm_topk_prob", elsewhere=lambda name, gate=gate: getattr(gate, name, None) or _said(model, name))
        count = _count(model, path, experts)
        own = model.profile.custom_expert_module_type
        if experts_weights(experts) is not None and own is None:
            continue
        name = model.profile.moe_fields.experts
        listed = _listed(model, f"{path}.{name}", experts, count, own)
        top_k = _top_k(model, path, parts, gate)
        stacked = StackedExperts(_stack(model, f"{path}.{name}", listed), top_k)
        if own is None:
            _require_equal(model, f"{path}.{name}", experts, stacked)
        model.replace_module(f"{path}.{name}", stacked)
        _mark_gate(gate, count, top_k)
        if parts.left():
            what = "; name them with moe_field_names_override, or give moe_block_forward"
            raise fault(model, f"{path} ({type(block).__name__}) has other parts: {', '.join(parts.left())}{what}")
        forwards[path] = _forward(model, block, gate, stacked, shared, shared_gate)
    return forwards


def require_none(model) -> None:
    """A list of equal experts behind a gate that nobody named would be run expert by expert, as it stands."""
    for path, block in unnamed(model).items():
        kind, key = type(block).__name__, model.blueprint.model_type
        raise TransformationError(
            f"{path}: a list of equal experts behind a gate in {kind}; register "
            f"ModelProfile(model_type={key!r}, moe_module_name={kind!r}) so that routing is known"
        )


def unnamed(model) -> dict[str, nn.Module]:
    """Path → block of what looks like a list of experts: equal modules, and a weight with one row for each."""
    return {
        path: block
        for path, block in model.module.named_modules()
        for experts in block.children()
        if isinstance(experts, nn.ModuleList)
        and len(experts) > 1
        and any(_gate_of(gate, len(experts)) for gate in block.children())
        and _alike(experts)
    }


def _gate_of(module: nn.Module, count: int) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.shape[0] == count


def _alike(modules) -> bool:
    shapes = [[(n, tuple(p.shape)) for n, p in module.named_parameters()] for module in modules]
    return bool(shapes[0]) and all(s == shapes[0] for s in shapes)


# -- checks against the configuration ----------------------------------------------------------------------------------


def _count(model, path: str, experts) -> int:
    """How many experts the module holds; the configuration must say the same."""
    weights = experts_weights(experts)
    if weights is not None:
        count = weights[0].shape[0]
    elif isinstance(experts, LISTS):
        count = len(_members(experts))
    else:
        count = getattr(experts, "num_experts", None)
    key = model.profile.moe_num_experts_key
    if key is None:
        said = getattr(model.text_config, "num_experts", None)
    else:
        said = config_value(model, model.config, key, _KEY)
    if count is None:
        count = said
    if not isinstance(count, int):
        raise fault(model, f"{path}: nothing says how many experts {type(experts).__name__} holds; set {_KEY}")
    if said is not None and said != count:
        asked = ".".join(key or ("num_experts",))
        raise fault(model, f"{_KEY} {asked!r} is {said!r}, but {path} has {count} experts")
    return count


def _top_k(model, path: str, parts: Parts, gate) -> int:
    """Experts of a token: from the block, its gate, or the configuration."""
    found = parts("top_k", elsewhere=lambda name: getattr(gate, name, None))
    found = found if found is not None else next((v for n in _TOP_K if (v := _said(model, n)) is not None), None)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        tried = f"{model.profile.moe_fields.top_k!r} of the block or its gate, {', '.join(_TOP_K)} of the configuration"
        raise fault(model, f"{path}: nothing says how many experts a token uses; looked for {tried}")
    return found


def _said(model, name: str):
    return getattr(model.text_config, name, None)


# -- one module of stacked parameters ----------------------------------------------------------------------------------


def _listed(model, path: str, experts, count: int, own: type | None) -> list[nn.Module]:
    """The experts one by one; `own(experts, index)` makes each where the profile gives a class."""
    if own is not None:
        from tensorcast.pipelines import call_own

        return [call_own(f"{own.__name__}({path}, {i})", own, experts, i) for i in range(count)]
    listed = _members(experts) if isinstance(experts, LISTS) else []
    if not listed:
        kind = type(experts).__name__
        raise fault(model, f"{path} ({kind}) is neither a list of experts nor stacked; give custom_expert_module_type")
    if not _alike(listed):
        raise fault(model, f"{path}: its experts have different sizes; give moe_block_forward or a moe_layer")
    return listed


def _members(experts: nn.Module) -> list[nn.Module]:
    """The experts of a list or dict; a dropout that is kept among them is none."""
    return [child for child in experts.children() if any(True for _ in child.parameters())]


def _stack(model, path: str, experts: list[nn.Module]) -> dict[str, nn.Parameter]:
    """Stacked parameters of experts that are each two or three linears."""
    first, count = experts[0], len(experts)
    linears = [m for m in first.modules() if isinstance(m, nn.Linear)]
    held, known = (sum(p.numel() for part in parts for p in part.parameters()) for parts in ([first], linears))
    shape = _shape(linears)
    if held != known or shape is None:
        sizes = ", ".join(f"{m.in_features}→{m.out_features}" for m in linears)
        raise fault(
            model,
            f"{path}: an expert of class {type(first).__name__} ({sizes or 'no linears'}) is not a gate, up and down "
            "product; custom_expert_module_type can say what one expert is",
        )
    name, wide, hidden, inter, ups, down = shape
    like = down.weight
    out = {name: _empty(like, count, wide, hidden), "down_proj": _empty(like, count, hidden, inter)}
    if any(m.bias is not None for m in ups):
        out[f"{name}_bias"] = _empty(like, count, sum(m.out_features for m in ups if m.bias is not None))
    if down.bias is not None:
        out["down_proj_bias"] = _empty(like, count, hidden)
    return out


def _shape(linears: list[nn.Linear]):
    """(name of the first weight, its outputs, hidden, inter, the linears of the first product, the last one)."""
    if len(linears) not in (2, 3):
        return None
    for i, down in enumerate(linears):
        ups = linears[:i] + linears[i + 1 :]
        hidden, inter = down.out_features, down.in_features
        if any(m.in_features != hidden for m in ups):
            continue
        outputs = [m.out_features for m in ups]
        if outputs in ([inter, inter], [2 * inter]):
            return "gate_up_proj", 2 * inter, hidden, inter, ups, down
        if outputs == [inter]:
            return "up_proj", inter, hidden, inter, ups, down
    return None


def _empty(like: torch.Tensor, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=like.dtype, device=like.device), requires_grad=False)


def _require_equal(model, path: str, old: nn.Module, new: nn.Module) -> None:
    before, after = (sum(p.numel() for p in m.parameters()) for m in (old, new))
    if before != after:
        raise fault(model, f"{path}: {before} parameters would become {after}; give custom_expert_module_type")


# -- the block's forward -----------------------------------------------------------------------------------------------


def _mark_gate(gate: nn.Module, count: int, top_k: int) -> None:
    """The gate's weight is a router's: never quantised, and known to send a token to `top_k` experts."""
    for module in gate.modules():
        if _gate_of(module, count) and getattr(module, "top_k", None) is None:
            module.top_k = top_k


def _forward(model, block, gate, experts, shared, shared_gate) -> Callable:
    """forward of a block: hidden_states [batch, tokens, hidden] → the same, and the gate's result if its code does."""
    # Looked up by name at run time: the block keeps its parts, and copies of it have their own.
    raw = model.profile.moe_gate_returns_raw_logits
    values = returned_values(model, type(block))
    if type(gate) is nn.Linear and not raw:
        note = (
            f"{type(block).__name__}: its gate is a plain linear, and nothing picks the experts from its logits; "
            "moe_gate_returns_raw_logits adds softmax and top-k"
        )
        model.notes += [note] if note not in model.notes else []

    def stacked_forward(module, hidden_states, *args, **kwargs):
        from tensorcast.layers.moe import is_router

        routed = gate(hidden_states)
        if raw and not is_router(gate):  # a router of known form has chosen already
            logits = routed[0] if isinstance(routed, tuple) else routed
            call.moe_route(logits.reshape(-1, logits.shape[-1]), experts.top_k)
        result = experts(hidden_states)
        if shared is not None:
            extra = shared(hidden_states)
            result = result + (extra if shared_gate is None else torch.sigmoid(shared_gate(hidden_states)) * extra)
        return (result, routed)[:values] if values > 1 else result

    return stacked_forward
