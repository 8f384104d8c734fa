"""Plain nn.Modules: an instance, a class, or a function of the configuration.

A module that takes `past_key_values` is run as a language model, any other for one forward over [batch, tokens] ids, or
over what the file's `__inputs__(workload, config)` returns.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.objects import config_of, is_plain_module
from tensorcast.models.recipes import Recipe, Step, Wanted
from tensorcast.models.recipes.transformers import language_inputs, phases_of_class
from tensorcast.models.reference import ModelSource


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    custom = source.custom
    if custom is None or not is_plain_module(custom.value):
        return None
    config = config_of(source)
    sample = custom.value if isinstance(custom.value, nn.Module) else None
    named = type(sample) if sample is not None else custom.value
    phases = phases_of_class(_class(custom.value, config, source.name))
    return Recipe(
        kind="module",
        make=lambda: on_meta(sample, wanted.dtype) if sample is not None else made(custom.value, config, source.name),
        config=config,
        architecture=named.__name__,
        model_type=normalise_type(str(getattr(config, "model_type", "") or named.__name__)),
        origin=custom.origin,
        inputs=language_inputs if custom.inputs is None else lambda model, step: _own_inputs(model, step, custom),
        notes=("the module was in training mode: costed in eval mode, dropout is absent",)
        if sample is not None and sample.training
        else (),
        phases=phases,
    )


def _class(value: Any, config: Any, name: str) -> type:
    """The module's class; a function has to be called to know it."""
    if inspect.isfunction(value):
        with torch.device("meta"):
            value = made(value, config, name)
    return value if isinstance(value, type) else type(value)


def made(value: Any, config: Any, name: str) -> nn.Module:
    """The module that a class or function gives for `config`; the configuration is left out where it takes none."""
    takes = [p for p in inspect.signature(value).parameters.values() if p.default is p.empty and p.kind in (0, 1)]
    if len(takes) > 1:
        raise ModelError(f"{name}: {value.__name__} takes {len(takes)} arguments; it must take the configuration only")
    if takes and config is None:
        raise ModelError(f"{name}: {value.__name__} takes a configuration; give one with --model FOLDER")
    module = value(config) if inspect.signature(value).parameters and config is not None else value()
    if not isinstance(module, nn.Module):
        raise ModelError(f"{name}: {value.__name__} returned {type(module).__name__}, not an nn.Module")
    return module


def on_meta(module: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of `module` whose tensors are on meta; nothing of the original's weights is copied.

    Where its parameters are of another format than `dtype`, those of its most frequent one become `dtype`.
    """
    formats = Counter(p.dtype for p in module.parameters() if p.dtype.is_floating_point)
    own = max(formats, key=formats.get, default=None)
    memo: dict[int, Any] = {}
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    for tensor in (*module.parameters(), *module.buffers(), *kept):
        to = dtype if dtype is not None and tensor.dtype is own else tensor.dtype
        empty = torch.empty_like(tensor, device="meta", dtype=to)
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def _own_inputs(model, step: Step, custom) -> dict[str, Any]:
    """What the file's `__inputs__` returns."""
    found = custom.inputs(step, model.config)
    if not isinstance(found, dict):
        raise ModelError(f"{custom.origin}: __inputs__ returned {type(found).__name__}, not a dict of arguments")
    return found
