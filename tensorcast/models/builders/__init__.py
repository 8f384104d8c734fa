"""Model classes by architecture: those of users, and those transformers lacks and we have.

    @tc.register_auto_model("MyModelForCausalLM")
    class MyModelForCausalLM(tc.nn.DecoderModelForCausalLM[MyModel, MyConfig]): …

A configuration whose `architectures` names an entry is built with that class, whatever its model type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from tensorcast.catalog import Catalog, Entry
from tensorcast.custom.loading import defined_at
from tensorcast.errors import DuplicateError, InputError
from tensorcast.models.native import is_native

OURS = {"DeciLMForCausalLM": "tensorcast.models.builders.nemotron_nas"}
"""Architectures we have a class for: imported when one is asked for."""


@dataclass(frozen=True)
class Builder:
    """A model class and the class of its configuration (None = transformers knows the model type, or nobody does)."""

    model_class: type
    config_class: type | None = None


BUILDERS: Catalog[Builder] = Catalog("architecture", how="register it with @tensorcast.register_auto_model")


def register_auto_model(
    architecture: str, *, config_class: type | None = None, replace: bool = False
) -> Callable[[type], type]:
    """Class decorator: build configurations whose `architectures` names `architecture` with this class.

    The class is a tensorcast.nn.DecoderModelForCausalLM or a PreTrainedModel. `config_class` makes its configuration
    from config.json; without it, what the class itself names, or transformers has for the model type. An architecture
    that transformers or we have already needs `replace=True` (DuplicateError otherwise).
    """

    def register(model_class: type) -> type:
        _check_class(architecture, model_class)
        _import_ours(architecture)
        theirs = f"transformers {architecture}" if in_transformers(architecture) else None
        if theirs and not replace and BUILDERS.find(architecture) is None:
            raise DuplicateError(f"architecture {architecture!r} is registered already, {theirs}; pass replace=True")
        builder = Builder(model_class, config_class or named_config(model_class))
        BUILDERS.register(architecture, builder, replace=replace, replaces=theirs)
        return model_class

    return register


def builder_for(config: Mapping[str, Any]) -> Entry[Builder] | None:
    """The entry of a configuration's architecture; None when nobody registered it.

    A configuration that names no architecture has those that are registered or usual for its model type.
    """
    asked = (config.get("architectures") or [])[:1] or _architectures_of(config.get("model_type"))
    for architecture in asked:
        _import_ours(architecture)
    return next((entry for entry in BUILDERS.entries() if entry.key in asked), None)


def origin_of(entry: Entry[Builder]) -> str:
    """Where the class was defined, and what it stands in for."""
    name = entry.value.model_class.__name__
    where = f"tensorcast {name}" if entry.origin == "builtin" else defined_at(entry.value.model_class)
    return f"{where}, in place of {entry.replaces}" if entry.replaces else where


def _import_ours(architecture: str) -> None:
    if architecture in OURS:
        importlib.import_module(OURS[architecture])


def _check_class(architecture: str, model_class: Any) -> None:
    from transformers import PreTrainedModel

    from tensorcast.nn import DecoderModelForCausalLM

    if not isinstance(model_class, type) or not issubclass(model_class, (DecoderModelForCausalLM, PreTrainedModel)):
        name = getattr(model_class, "__name__", repr(model_class))
        bases = "tensorcast.nn.DecoderModelForCausalLM or transformers' PreTrainedModel"
        raise InputError(f"register_auto_model({architecture!r}): {name} must be a class derived from {bases}")


def named_config(model_class: type) -> type | None:
    """`config_class` of the class, or the C of DecoderModelForCausalLM[M, C]."""
    own = getattr(model_class, "config_class", None)
    if own is not None:
        return own
    for base in getattr(model_class, "__orig_bases__", ()):
        found = get_args(base)
        if len(found) == 2 and isinstance(found[1], type):
            return found[1]
    return None


def in_transformers(architecture: str) -> bool:
    """Whether the installed transformers exports a class of this name; nothing of it is imported."""
    return architecture in getattr(importlib.import_module("transformers"), "_class_to_module", {})


def _architectures_of(model_type: str | None) -> list[str]:
    """Architectures of a model type: those whose configuration class is registered for it, and transformers' own."""
    if not model_type:
        return []
    if not is_native(model_type):
        for architecture in OURS:
            _import_ours(architecture)
    own = [e.key for e in BUILDERS.entries() if getattr(e.value.config_class, "model_type", None) == model_type]
    modeling = importlib.import_module("transformers.models.auto.modeling_auto")
    usual = modeling.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    return own or ([usual] if isinstance(usual, str) else list(usual))
