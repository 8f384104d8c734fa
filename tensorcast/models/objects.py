"""Models given as Python objects: what configuration they carry, which phases they have, what to call them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tensorcast.custom.loading import Custom
from tensorcast.errors import InputError, ModelError
from tensorcast.models.reference import LANGUAGE, ModelSource

FORWARD = ("forward",)


def source_of(custom: Custom, base: ModelSource | None, overrides: Mapping[str, Any]) -> ModelSource:
    """The source of a model given as Python; `base` is what `--model` names, for its configuration."""
    config = dict(base.config) if base is not None else described(custom.value)
    for key, value in overrides.items():
        if base is None and key not in config:
            raise InputError(f"unknown configuration key {key!r} of {name_of(custom.value)}")
        config[key] = value
    source = replace(base, config=config) if base is not None else ModelSource(name_of(custom.value), "Python", config)
    source = replace(source, custom=custom)
    return replace(source, phases=phases_of(source))


def described(value: Any) -> dict[str, Any]:
    """The configuration that the object carries itself, as a dict; {} when it has none."""
    if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.config_class is not None:
        value = value.config_class
    if isinstance(value, type) and issubclass(value, PreTrainedConfig):
        value = value()
    if isinstance(value, PreTrainedModel):
        value = value.config
    if isinstance(value, PreTrainedConfig):
        return {k: v for k, v in value.to_dict().items() if k not in ("transformers_version", "_name_or_path")}
    return {}


def name_of(value: Any) -> str:
    """`MyNet` for a class or function, the class's name for an instance, the model type for a configuration."""
    if isinstance(value, PreTrainedConfig):
        return value.model_type or type(value).__name__
    return getattr(value, "__name__", None) or type(value).__name__


def is_plain_module(value: Any) -> bool:
    """Whether `value` makes an nn.Module that neither transformers nor tensorcast.nn nor a graph describes."""
    from tensorcast.graph import is_graph

    if isinstance(value, (PreTrainedModel, PreTrainedConfig)) or is_graph(value):
        return False
    if isinstance(value, type):
        return issubclass(value, nn.Module) and not issubclass(value, PreTrainedModel) and not is_packed(value)
    return isinstance(value, nn.Module) or inspect.isfunction(value)


def is_packed(value: Any) -> bool:
    """Whether `value` is a class written with tensorcast.nn."""
    from tensorcast.nn import DecoderModelForCausalLM

    return isinstance(value, type) and issubclass(value, DecoderModelForCausalLM)


def config_of(source: ModelSource) -> Any:
    """What a module is given: transformers' own configuration where it knows the type, else a namespace; or None."""
    if not source.config:
        return None
    from tensorcast.models.recipes.transformers import config_object

    return config_object(source) or SimpleNamespace(**source.config)


def phases_of(source: ModelSource) -> tuple[str, ...]:
    """prefill and decode for a language model, forward for any other module."""
    value = source.custom.value
    if not is_plain_module(value):
        return LANGUAGE
    if inspect.isfunction(value):
        import torch

        from tensorcast.models.recipes.module import made

        with torch.device("meta"):
            value = made(value, config_of(source), source.name)
    module_class = value if isinstance(value, type) else type(value)
    return LANGUAGE if "past_key_values" in inspect.signature(module_class.forward).parameters else FORWARD


def check_model(value: Any) -> None:
    """ModelError for an object that is no model."""
    from tensorcast.graph import is_graph

    classes = (PreTrainedModel, PreTrainedConfig, nn.Module)
    known = isinstance(value, classes) or (isinstance(value, type) and issubclass(value, classes))
    if not (known or is_graph(value) or inspect.isfunction(value)):
        raise ModelError(
            f"{value!r:.80} is no model: give a name, a folder, a configuration or its class, a model class, an "
            f"nn.Module, a function of the configuration, or a ComputeGraph"
        )
