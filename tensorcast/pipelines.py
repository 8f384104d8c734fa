"""Profiles and pipelines by model type: what structure cannot show, and code that replaces the standard steps."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Callable
from typing import Any

from tensorcast.catalog import Catalog, Entry, normalize_model_type
from tensorcast.errors import InputError, TensorcastError, TransformationError
from tensorcast.profiles import ModelProfile

PROFILES: Catalog[ModelProfile] = Catalog("model profile", patterns=True, normalize=normalize_model_type)
PIPELINES: Catalog[Callable[[Any], Any]] = Catalog("pipeline", patterns=True, normalize=normalize_model_type)


def register_model_profile(profile: ModelProfile, *, replace: bool = False) -> ModelProfile:
    """Make `profile` known for its model type (a name, or a pattern with `*`)."""
    if not isinstance(profile, ModelProfile):
        raise InputError(f"register_model_profile takes a ModelProfile, not {profile!r:.80}")
    return PROFILES.register(profile.model_type, profile, replace=replace)


def register_custom_model(model_type: str, *, replace: bool = False) -> Callable[[Callable], Callable]:
    """Decorator: the function is called with the model in place of the nine standard steps."""
    if callable(model_type):
        raise InputError("register_custom_model needs the model type: @register_custom_model('my_type')")

    def register(function: Callable) -> Callable:
        if not callable(function):
            raise InputError(f"pipeline {model_type!r} must be a function of the model, not {function!r:.80}")
        return PIPELINES.register(model_type, function, replace=replace)

    return register


def get_model_profile(model_type: str) -> ModelProfile:
    """The profile of a model type; an empty one where none is registered."""
    load_builtin()
    return PROFILES.find(model_type) or ModelProfile(model_type=model_type)


def profile_origin(model_type: str) -> str:
    """Where the profile of a model type comes from: file and line, "builtin", or "" where none is registered."""
    key = PROFILES.match(model_type)
    return next((entry.origin for entry in PROFILES.entries() if entry.key == key), "")


def pipeline_of(model_type: str) -> Entry[Callable[[Any], Any]] | None:
    """The pipeline registered for a model type, with where it comes from."""
    key = PIPELINES.match(model_type)
    return next((entry for entry in PIPELINES.entries() if entry.key == key), None)


def patch_config(model_type: str, config: Any) -> str:
    """Let the profile of `model_type` change the configuration before the module is built. A note, or ""."""
    patch = get_model_profile(model_type).config_patch
    if patch is None:
        return ""
    if config is None:
        raise TransformationError(f"profile {model_type!r}: config_patch, but the model has no configuration")
    call_own(f"profile {model_type!r}: config_patch", patch, config)
    return f"configuration changed by config_patch of profile {model_type!r}"


def call_own(what: str, function: Callable, *args: Any) -> Any:
    """Call a user's function; its exception becomes one line with `what`, file and line."""
    try:
        return function(*args)
    except TensorcastError:
        raise
    except Exception as fault:
        text = " ".join(str(fault).split())[:300]
        raise TransformationError(f"{what}{_place(function, fault)}: {type(fault).__name__}: {text}") from fault


def _place(function: Callable, fault: BaseException) -> str:
    """` (file:line)` that the fault went through last in the file of `function`."""
    from pathlib import Path

    from tensorcast.custom.loading import shown

    file, place, trace = getattr(getattr(function, "__code__", None), "co_filename", None), "", fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            place = f" ({shown(Path(file))}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place


def list_pipelines() -> list[dict]:
    """One dict per pipeline: model type, origin, what it replaced; user files of ./custom_model included."""
    return _rows(PIPELINES)


def list_profiles() -> list[dict]:
    """One dict per model profile: model type, origin, what it replaced; user files of ./custom_model included."""
    families = {entry.key: entry.value.model_family or "" for entry in PROFILES.entries()}
    return [{**row, "family": families[row["model_type"]]} for row in _rows(PROFILES)]


def _rows(catalog: Catalog) -> list[dict]:
    return [{"model_type": e.key, "origin": e.origin, "replaces": e.replaces or ""} for e in catalog.entries()]


def load_builtin() -> None:
    """Import every file of models/builtin once; the first brings in transformers."""
    from tensorcast.models import builtin

    with warnings.catch_warnings():
        # In a notebook without ipywidgets tqdm, which transformers imports, warns of bars that nobody here shows.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401

    for info in pkgutil.iter_modules(builtin.__path__):
        importlib.import_module(f"{builtin.__name__}.{info.name}")
