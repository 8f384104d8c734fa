"""Ulysses sequence parallelism: every rank holds a part of the tokens, and inside of attention a part of the heads.

Where tokens are cut and gathered is what the class of the model says (`_cp_plan` of diffusers); what its attention code
passes a `parallel_config` to is exchanged: q, k and v before, the result after.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.local import head_counts, head_modules
from tensorcast.layers.patching import GlobalPatch
from tensorcast.layers.state import Group
from tensorcast.trace.library import call

_DISPATCH = re.compile(r"^dispatch_attention_fn$")


def split_sequence(model) -> int:
    """Cut and gather tokens as the class says, and exchange heads in attention. Returns how many modules that is."""
    plan, group = getattr(model.module, "_cp_plan", None), Group(model.plan.sp, model.plan.tp)
    if not plan:
        raise DeploymentError(
            f"--sp {group.size}: no sequence-parallel plan for {model.architecture}; use --dp, one sample a device"
        )
    _check_heads(model)
    count = 0
    for path, module in list(model.module.named_modules()):
        for pattern, cuts in plan.items():
            if fnmatchcase(path, pattern) and path.count(".") == pattern.count("."):  # a star is one name
                _cut(module, path, cuts, group)
                count += 1
    for _, module in head_modules(model):
        processor = getattr(module, "processor", None)
        if hasattr(processor, "_parallel_config"):
            processor._parallel_config = group
            count += 1
    model.patches.append(GlobalPatch(_DISPATCH, lambda original, name: _exchanging(original)))
    return count


def exchange_guidance(model) -> int:
    """Two groups compute one prediction each: every rank gets the other's from its peer. Returns how many modules."""
    group = Group(model.plan.cfg, model.plan.tp * model.plan.sp)

    def gathered(module, args, result):
        return type(result)((call.all_gather(result[0], 0, group.size, group.stride), *result[1:]))

    model.module.register_forward_hook(gathered)
    return 1


def _check_heads(model) -> None:
    """Every attention's heads, those of one tensor-parallel rank, divide."""
    plan = model.plan
    for path, module in head_modules(model):
        heads = head_counts(module)[0]
        if heads % plan.sp:
            valid = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
            local = f" on each of --tp {plan.tp} ranks" if plan.tp > 1 else ""
            raise DeploymentError(f"--sp {plan.sp}: {path} has {heads} heads{local}; values that divide: {valid}")


def _exchanging(original: Callable) -> Callable:
    """The attention function of diffusers; q, k and v [b, tokens, heads, d] of a parallel attention change hands."""

    def dispatch(query, key, value, *args, parallel_config: Group | None = None, **options):
        if parallel_config is None:
            return original(query, key, value, *args, **options)
        size = parallel_config.size
        query, key, value = (_to_heads(x, parallel_config) for x in (query, key, value))
        out = original(query, key, value, *args, **options)
        batch, tokens, heads, width = out.shape
        sent = call.all_to_all(out.contiguous(), size, parallel_config.stride)
        return sent.view(batch, tokens // size, heads * size, width)

    return dispatch


def _to_heads(x: torch.Tensor, group: Group) -> torch.Tensor:
    """A part of the tokens with all heads → all tokens with a part of the heads."""
    batch, tokens, heads, width = x.shape
    sent = call.all_to_all(x.contiguous(), group.size, group.stride)
    return sent.view(batch, tokens * group.size, heads // group.size, width)


def _cut(module: nn.Module, path: str, cuts: Any, group: Group) -> None:
    """Hooks on one module: cut its arguments or its results, or gather its result."""
    if not isinstance(cuts, Mapping):
        module.register_forward_hook(lambda module, args, result: _gathered(result, cuts, group))
        return
    names = list(inspect.signature(type(module).forward).parameters)[1:]

    def arguments(module, args, kwargs):
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        for name, cut in cuts.items():
            if isinstance(name, str) and not cut.split_output and isinstance(named.get(name), torch.Tensor):
                named[name] = _part(named[name], cut, group, f"{path}.{name}".lstrip("."))
        return (), named

    def results(module, args, result):
        parts = list(result) if isinstance(result, (tuple, list)) else [result]
        for index, cut in cuts.items():
            if isinstance(index, int) and cut.split_output:
                parts[index] = _part(parts[index], cut, group, f"{path}[{index}]")
        return type(result)(parts) if isinstance(result, (tuple, list)) else parts[0]

    if any(isinstance(name, str) for name in cuts):
        module.register_forward_pre_hook(arguments, with_kwargs=True)
    if any(isinstance(name, int) for name in cuts):
        module.register_forward_hook(results)


def _part(x: torch.Tensor, cut: Any, group: Group, name: str) -> torch.Tensor:
    if cut.expected_dims is not None and x.dim() != cut.expected_dims:
        return x
    tokens = x.shape[cut.split_dim]
    if tokens % group.size:
        valid = ", ".join(str(n) for n in range(1, 129) if tokens % n == 0)
        raise DeploymentError(f"--sp {group.size}: {name} has {tokens} tokens; values that divide: {valid}")
    return x.narrow(cut.split_dim, 0, tokens // group.size)


def _gathered(x: torch.Tensor, cut: Any, group: Group) -> torch.Tensor:
    return call.all_gather(x, cut.gather_dim, group.size, group.stride)
