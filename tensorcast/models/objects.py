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
from tensorcast.errors import ModelError
from tensorcast.models.builders import named_config
from tensorcast.models.check import check_config
from tensorcast.models.defaults import left_at_default
from tensorcast.models.overrides import DEPTH, apply_overrides, keep_layers
from tensorcast.models.reference import ModelSource, as_role, from_mapping
from tensorcast.models.roles import TABLES, tables_for

UNSAID = ("transformers_version", "_name_or_path", "architectures")
"""Fields of a configuration object that say nothing where they are empty."""


def source_of(
    custom: Custom, base: ModelSource | None, overrides: Mapping[str, Any], layers: int | None = None
) -> ModelSource:
    """The source of a model given as Python; `base` is what `--model` names, for its configuration.

    `overrides` and `layers` are what was asked of the configuration; `base` has them already.

    A configuration or a model class of transformers' own says no more than its fields do: it is the source that the
    equal config.json is.
    """
    check_model(custom.value, f"{custom.origin}: ")
    if base is not None:
        return _with_role(replace(base, custom=custom))
    value, name = custom.value, name_of(custom.value)
    own = configuration(value, {k: v for k, v in overrides.items() if "." not in k} if isinstance(value, type) else {})
    config = _changed(described(value, own), own, overrides, name)
    config = keep_layers(config, layers, name) if layers is not None else config
    notes = tuple(n for n in (left_at_default(own) if own is not None else "",) if n)
    if own is not None and not isinstance(value, PreTrainedModel) and is_native(value):
        check_config(config, name)
        return replace(from_mapping(config), notes=notes)
    return _with_role(ModelSource(name, "Python", config, custom=custom, notes=notes))


def _with_role(source: ModelSource) -> ModelSource:
    from tensorcast.models.recipes import role_of_class

    return as_role(source, role_of_class(source))


def configuration(value: Any, fields: Mapping[str, Any] = {}) -> PreTrainedConfig | None:
    """The configuration that an object carries; a class makes one of its defaults and `fields`."""
    if isinstance(value, type) and issubclass(value, PreTrainedModel):
        value = value.config_class
    if is_packed(value):
        value = named_config(value)
    if isinstance(value, type) and issubclass(value, PreTrainedConfig):
        known = {name: given for name, given in fields.items() if hasattr(value(), name)}
        return made(lambda: value(**known), f"{value.__name__}()")
    if isinstance(value, PreTrainedModel):
        return value.config
    return value if isinstance(value, PreTrainedConfig) else None


def described(value: Any, own: PreTrainedConfig | None) -> dict[str, Any]:
    """The configuration `own` as a dict, with what `value` adds to it; a module adds the format of its weights."""
    from tensorcast.models.recipes.diffusers import is_diffusers, library_class

    config: dict[str, Any] = {}
    if own is not None:
        config = {k: v for k, v in own.to_dict().items() if k not in UNSAID or (k == "architectures" and v)}
        if "base_model_tp_plan" in vars(own):  # to_dict leaves plans out
            config["base_model_tp_plan"] = dict(own.base_model_tp_plan or {})
    named = value if isinstance(value, type) else type(value)
    if issubclass(named, PreTrainedModel):
        config["architectures"] = [named.__name__]
    if is_diffusers(value):
        config = {**(getattr(value, "config", None) or {}), "_class_name": library_class(named)}
    if isinstance(value, nn.Module):
        formats = [p.dtype for p in value.parameters() if p.dtype.is_floating_point]
        if formats:
            config["dtype"] = str(max(set(formats), key=formats.count)).removeprefix("torch.")
    return config


def _changed(config: dict, own: PreTrainedConfig | None, overrides: Mapping[str, Any], name: str) -> dict:
    """`config` with the overrides; fewer layers cut the lists with one entry a layer, which the class has filled in."""
    fields = {key: None for key in overrides if key not in config and own is not None and hasattr(own, key)}
    changed = apply_overrides({**config, **fields}, overrides, name)
    for key, value in overrides.items():
        depth = config.get(key)
        if key in DEPTH and isinstance(value, int) and isinstance(depth, int) and 0 < value < depth:
            changed = keep_layers({**changed, key: depth}, value, name)
    return changed


def is_native(value: Any) -> bool:
    """Whether a configuration or model class is transformers' own, and nobody registered another class for it."""
    named = value if isinstance(value, type) else type(value)
    config_class = named.config_class if issubclass(named, PreTrainedModel) else named
    if not all(code.__module__.startswith("transformers.models.") for code in (named, config_class)):
        return False
    return not any(config_class in mapping._extra_content for mapping in model_mappings())


def made(make, what: str) -> Any:
    """What `make()` returns; a failure of the user's constructor in one line."""
    try:
        return make()
    except Exception as reason:
        text = " ".join(str(reason).split())[:300]
        raise ModelError(f"{what} fails: {type(reason).__name__}: {text}") from reason


def name_of(value: Any) -> str:
    """`MyNet` for a class or function, the class's name for an instance, the model type for a configuration."""
    if isinstance(value, PreTrainedConfig):
        return value.model_type or type(value).__name__
    return getattr(value, "__name__", None) or type(value).__name__


def model_mappings(config: PreTrainedConfig | None = None) -> tuple[Any, ...]:
    """transformers' tables of model classes by configuration class, in the order they are asked for `config`."""
    from transformers.models.auto import modeling_auto as auto

    tables = TABLES if config is None else tables_for(config.model_type or "", config.to_dict())
    return tuple(getattr(auto, f"MODEL_FOR_{table}_MAPPING" if table else "MODEL_MAPPING") for table in tables)


def is_plain_module(value: Any) -> bool:
    """Whether `value` makes an nn.Module that neither transformers nor tensorcast.nn nor a graph describes."""
    from tensorcast.graph import is_graph
    from tensorcast.models.recipes.diffusers import is_diffusers

    if isinstance(value, (PreTrainedModel, PreTrainedConfig)) or is_graph(value) or is_diffusers(value):
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


def check_model(value: Any, where: str = "") -> None:
    """ModelError for an object that is no model; `where` it was given begins the message."""
    from tensorcast.graph import is_graph

    classes = (PreTrainedModel, PreTrainedConfig, nn.Module)
    known = isinstance(value, classes) or (isinstance(value, type) and issubclass(value, classes))
    if not (known or is_graph(value) or inspect.isfunction(value)):
        raise ModelError(
            f"{where}{value!r:.80} is no model: give a name, a folder, a configuration or its class, a model class, an "
            f"nn.Module, a function of the configuration, or a ComputeGraph"
        )
