"""Models of transformers: by their own code, from a configuration, a class, or what a user registered there."""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any

from tensorcast.errors import ModelError, near_names
from tensorcast.models import native
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.defaults import require_stated
from tensorcast.models.fixups import apply_fixup
from tensorcast.models.recipes import Recipe, Step, Wanted
from tensorcast.models.reference import ModelSource

if TYPE_CHECKING:
    import torch

BUILDERS = {"nemotron-nas": "tensorcast.models.builders.nemotron_nas"}
"""Published types that transformers has no class for and we do: type → the module with its classes."""


def recipe(source: ModelSource, wanted: Wanted) -> Recipe:
    """Every source that is left: transformers has a class for its configuration, or it is a ModelError."""
    described, note = apply_fixup(source.config, source.name)
    config, model_class, origin = _classes(source, described, wanted.trust_remote_code)
    notes = require_stated(config, described, source.name)
    options = {"dtype": wanted.dtype, "attn_implementation": wanted.attn_implementation}
    if wanted.experts_implementation is not None:
        options["experts_implementation"] = wanted.experts_implementation

    architectures = described.get("architectures")
    return Recipe(
        kind="transformers",
        make=lambda: model_class._from_config(config, **options),
        config=config,
        architecture=architectures[0] if architectures else model_class.__name__,
        model_type=normalise_type(config.model_type),
        origin=origin,
        inputs=language_inputs,
        finish=lambda module: _keep_fp32(module, wanted.dtype),
        explain=lambda reason: _tied_list(model_class),
        notes=((note,) if note else ()) + notes,
    )


def language_inputs(model, step: Step) -> dict[str, Any]:
    """Logits are asked for the last token of each sequence, in decode for every new token (drafts are verified)."""
    import torch

    from tensorcast.layers.cache import build_cache
    from tensorcast.layers.mtp import block_kinds

    shape = (step.batch, step.tokens)
    return {
        "input_ids": torch.empty(shape, dtype=torch.long),
        "position_ids": torch.empty(shape, dtype=torch.long),
        "past_key_values": build_cache(
            model.config, step.past, block_kinds(model.text_config) * len(model.drafts or ())
        ),
        "use_cache": True,
        "logits_to_keep": step.tokens if step.phase == "decode" else 1,
    }


def _classes(source: ModelSource, described: dict, trust_remote_code: bool) -> tuple[object, type, str]:
    """A fresh config object, the model class and where that class came from."""
    kind = described.get("model_type") or _type_of_architecture(described["architectures"][0], source.name)
    if kind in BUILDERS:
        return importlib.import_module(BUILDERS[kind]).load_classes(source, described)
    if not native.is_native(kind) and not _registered(kind):
        if source.has_remote_code and trust_remote_code:
            from tensorcast.models import remote

            return remote.load_classes(source, described)
        raise ModelError(_unknown_type(source, kind))
    config_class = _config_class(kind)
    try:
        config = config_class.from_dict({**copy.deepcopy(described), "model_type": kind})
    except Exception as reason:
        text = f"{config_class.__name__} refuses the configuration: {_one_line(reason)}"
        raise ModelError(f"{source.name}: {text}") from reason
    model_class = _model_class(config, kind, described.get("architectures"), source.name)
    return config, model_class, f"transformers {model_class.__name__}"


def config_object(source: ModelSource) -> Any:
    """transformers' configuration object for a source, or None where it does not know the model type."""
    kind = source.config.get("model_type")
    if kind is None or not (native.is_native(kind) or _registered(kind)):
        return None
    return _config_class(kind).from_dict(copy.deepcopy(source.config))


def _config_class(kind: str) -> type:
    name = native.config_class_names().get(kind)
    if name is not None:
        module = _import(f"transformers.models.{native.module_of(kind)}")
        if hasattr(module, name):
            return getattr(module, name)
    return _import("transformers.models.auto.configuration_auto").CONFIG_MAPPING[kind]


def _registered(kind: str) -> bool:
    """Whether a user's code registered `kind` with transformers' AutoConfig."""
    import sys

    auto = sys.modules.get("transformers.models.auto.configuration_auto")
    return auto is not None and kind in auto.CONFIG_MAPPING._extra_content


def _model_class(config: object, kind: str, architectures: list[str] | None, name: str) -> type:
    """`architectures[0]` where transformers has it for this configuration, else the type's language-model class."""
    asked = architectures[0] if architectures else None
    if asked and native.is_native(kind):
        found = getattr(_import(f"transformers.models.{native.module_of(kind)}"), asked, None)
        if found is None:
            found = getattr(_import("transformers"), asked, None)
        if found is not None and isinstance(config, getattr(found, "config_class", None) or ()):
            return found
        if found is not None and hasattr(found, "config_class"):
            other = getattr(found.config_class, "model_type", None)
            what = f"architectures names {asked}, a class of model_type {other!r}, but model_type is {kind!r}"
            raise ModelError(f"{name}: {what}; make the two agree")
    modeling = _import("transformers.models.auto.modeling_auto")
    for mapping in (modeling.MODEL_FOR_CAUSAL_LM_MAPPING, modeling.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING):
        if type(config) in mapping:
            return mapping[type(config)]
    what = f"transformers has no {asked or 'language model'} for model_type {kind!r}"
    raise ModelError(f"{name}: {what}; describe the model with --custom FILE")


def _type_of_architecture(architecture: str, name: str) -> str:
    """The model type whose causal or image-text class is `architecture`: for a configuration without model_type."""
    modeling = _import("transformers.models.auto.modeling_auto")
    known: dict[str, str] = {}
    for names in (modeling.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES):
        for kind, classes in names.items():
            for entry in [classes] if isinstance(classes, str) else classes:
                known.setdefault(entry, kind)
    if architecture in known:
        return known[architecture]
    near = near_names(architecture, known)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    what = f"no model_type, and transformers has no architecture {architecture!r}{hint}"
    raise ModelError(f"{name}: {what}; state model_type")


def _keep_fp32(module: torch.nn.Module, wanted: torch.dtype) -> None:
    """Cast the parameters a class keeps in fp32 (`_keep_in_fp32_modules`, and its strict form for bfloat16 too)."""
    import re

    import torch

    names = list(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    if wanted is torch.float16:
        names += list(getattr(module, "_keep_in_fp32_modules", None) or ())
    if not names or wanted is torch.float32:
        return
    pattern = re.compile("|".join(rf"((^|\.){name}($|\.))" for name in names))
    for path, parameter in module.named_parameters():
        if pattern.search(path) and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(torch.float32)


def _import(module: str):
    """Import `module`; a broken installation is explained in one line instead of transformers' own long way round."""
    try:
        return importlib.import_module(module)
    except Exception as reason:
        raise ModelError(_import_reason(module, reason)) from reason


def _import_reason(module: str, reason: Exception) -> str:
    root: BaseException = reason
    while root.__cause__ is not None or root.__context__ is not None:
        root = root.__cause__ or root.__context__
    text = f"{reason} {root}"
    if "torchvision" in text:
        return "torchvision does not match the installed torch; uninstall it or install the matching version"
    return f"{module} cannot be imported: {_one_line(root)}; reinstall torch and transformers"


def _unknown_type(source: ModelSource, kind: str) -> str:
    if source.has_remote_code:
        how = "add --trust-remote-code to run them"
        how = how if source.folder else "download its folder and " + how
        return f"{source.name}: model_type {kind!r} needs the repository's own Python files; {how}"
    near = near_names(kind, native.config_class_names())
    hint = f"nearest: {', '.join(near)}; " if near else ""
    return f"{source.name}: transformers does not know model_type {kind!r}; {hint}describe the model with --custom FILE"


def _tied_list(model_class: type) -> str:
    """What is wrong with a class written for transformers 4, which listed its tied weights; "" for any other."""
    keys = getattr(model_class, "_tied_weights_keys", None)
    if not isinstance(keys, list) or not keys:
        return ""
    return f"_tied_weights_keys uses a list; transformers >= 5 needs {{{keys[0]!r}: '<source>'}}"


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())[:300] or type(reason).__name__
