"""Plain nn.Modules: an instance, a class, or a function of the configuration.

A module that takes `past_key_values` is run as a language model, any other for one forward over [batch, tokens] ids, or
over what the file's `__inputs__(workload, config)` returns.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.objects import config_of, is_plain_module
from tensorcast.models.recipes import Recipe, Step, Wanted
from tensorcast.models.recipes.transformers import language_inputs
from tensorcast.models.reference import ModelSource


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    custom = source.custom
    if custom is None or not is_plain_module(custom.value):
        return None
    config = config_of(source)
    sample = custom.value if isinstance(custom.value, nn.Module) else None
    named = type(sample) if sample is not None else custom.value
    language = "decode" in source.phases
    return Recipe(
        kind="module",
        make=lambda: on_meta(sample) if sample is not None else made(custom.value, config, source.name),
        config=config,
        architecture=named.__name__,
        model_type=normalise_type(str(getattr(config, "model_type", "") or named.__name__)),
        origin=custom.origin,
        inputs=language_inputs if language else lambda model, step: forward_inputs(model, step, custom),
    )


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


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of `module` whose parameters and buffers are on meta; nothing of the original's weights is copied."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def forward_inputs(model, step: Step, custom) -> dict[str, Any]:
    """What `__inputs__` returns; else token ids and positions, those that forward takes."""
    if custom.inputs is not None:
        found = custom.inputs(step, model.config)
        if not isinstance(found, dict):
            raise ModelError(f"{custom.origin}: __inputs__ returned {type(found).__name__}, not a dict of arguments")
        return found
    parameters = inspect.signature(type(model.module).forward).parameters
    ids = torch.empty((step.batch, step.tokens), dtype=torch.long)
    known = {"input_ids": ids, "position_ids": torch.empty_like(ids)}
    needed = [n for n, p in parameters.items() if n != "self" and p.default is p.empty and p.kind in (0, 1, 3)]
    unknown = [n for n in needed if n not in known]
    if unknown:
        names = ", ".join(unknown)
        raise ModelError(f"{custom.origin}: forward takes {names}; define __inputs__(workload, config) that makes them")
    return {name: value for name, value in known.items() if name in parameters}
