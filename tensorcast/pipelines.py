"""Profiles and pipelines by model type: what structure cannot show, and code that replaces the standard steps."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorcast.catalog import Catalog, normalize_model_type
from tensorcast.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """What the structure of a model type does not show. Every field but the key is optional.

    `tp_plan`: module path pattern → column, row, column_gather or replicated. `kernels`: op → kernel name.
    `moe_block_forward`: replaces the forward of the block around the experts (`forward(block, hidden_states)`).
    `mtp_layers_key`: configuration key with the number of draft layers.
    """

    model_type: str
    tp_plan: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)
    moe_block_forward: Callable | None = None
    mtp_layers_key: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model_type, str) or not self.model_type:
            raise InputError("model profile: model_type must be a non-empty string")
        styles = ("column", "row", "column_gather", "replicated")
        for pattern, style in self.tp_plan.items():
            if style not in styles:
                raise InputError(
                    f"model profile {self.model_type!r}: style {style!r} of {pattern!r}; one of {', '.join(styles)}"
                )


PROFILES: Catalog[ModelProfile] = Catalog("model profile", patterns=True, normalize=normalize_model_type)
PIPELINES: Catalog[Callable[[Any], Any]] = Catalog("pipeline", patterns=True, normalize=normalize_model_type)


def register_model_profile(profile: ModelProfile, *, replace: bool = False) -> ModelProfile:
    """Make `profile` known for its model type (a name, or a pattern with `*`)."""
    return PROFILES.register(profile.model_type, profile, replace=replace)


def register_custom_model(model_type: str, *, replace: bool = False) -> Callable[[Callable], Callable]:
    """Decorator: the function is called with the model in place of the nine standard steps."""

    def register(function: Callable) -> Callable:
        return PIPELINES.register(model_type, function, replace=replace)

    return register


def profile_for(model_type: str) -> ModelProfile:
    """The profile of a model type; an empty one where none is registered."""
    load_builtin()
    return PROFILES.find(model_type) or ModelProfile(model_type=model_type)


def list_pipelines() -> list[dict]:
    """One dict per pipeline: model type, origin, what it replaced; user files of ./custom_model included."""
    return _rows(PIPELINES)


def list_profiles() -> list[dict]:
    """One dict per model profile: model type, origin, what it replaced; user files of ./custom_model included."""
    return _rows(PROFILES)


def _rows(catalog: Catalog) -> list[dict]:
    return [{"model_type": e.key, "origin": e.origin, "replaces": e.replaces or ""} for e in catalog.entries()]


def load_builtin() -> None:
    """Import every file of models/builtin once."""
    from tensorcast.models import builtin

    for info in pkgutil.iter_modules(builtin.__path__):
        importlib.import_module(f"{builtin.__name__}.{info.name}")
