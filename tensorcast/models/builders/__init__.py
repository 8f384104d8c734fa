"""Model classes by architecture: those of users, and those transformers lacks and we have.

    @tc.register_auto_model("MyModelForCausalLM")
    class MyModelForCausalLM(tc.nn.DecoderModelForCausalLM[MyModel, MyConfig]): …

A configuration whose `architectures` names an entry is built with that class, whatever its model type.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from tensorcast.catalog import Catalog, Entry

OURS = {"DeciLMForCausalLM": "tensorcast.models.builders.nemotron_nas"}
"""Architectures we have a class for: imported when one is asked for."""


@dataclass(frozen=True)
class Builder:
    """A model class and the class of its configuration (None = the model class says, or transformers knows)."""

    model_class: type
    config_class: type | None = None


BUILDERS: Catalog[Builder] = Catalog("architecture", how="register it with @tensorcast.register_auto_model")


def register_auto_model(
    architecture: str, *, config_class: type | None = None, replace: bool = False
) -> Callable[[type], type]:
    """Class decorator: build configurations whose `architectures` names `architecture` with this class."""

    def register(model_class: type) -> type:
        BUILDERS.register(architecture, Builder(model_class, config_class), replace=replace)
        return model_class

    return register


def builder_for(architecture: str | None) -> Entry[Builder] | None:
    """The entry of an architecture, ours imported first; None when nobody registered it."""
    if architecture in OURS:
        importlib.import_module(OURS[architecture])
    return next((entry for entry in BUILDERS.entries() if entry.key == architecture), None)
