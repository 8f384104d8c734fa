"""A model source becomes a module on the meta device, by transformers' own model code and no weights."""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tensorcast.errors import InputError, ModelError, near_names
from tensorcast.models import native
from tensorcast.models.blueprint import Blueprint, normalise_type
from tensorcast.models.check import parts
from tensorcast.models.defaults import require_stated
from tensorcast.models.fixups import apply_fixup
from tensorcast.models.reference import ModelSource

if TYPE_CHECKING:
    import torch

DTYPES = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16", "half": "float16",
    "float32": "float32", "fp32": "float32", "float": "float32",
}  # fmt: skip

BUILDERS = {"nemotron-nas": "tensorcast.models.builders.nemotron_nas"}
"""Published types that transformers has no class for and we do: type → the module with its classes."""


def build_blueprint(
    source: ModelSource,
    *,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str = "eager",
    experts_implementation: str | None = None,
) -> Blueprint:
    """The model of `source` on the meta device: tied, eval, no gradients, no byte of weight memory.

    `dtype` overrides what the configuration says (bfloat16 where it says nothing). The two implementation names select
    functions registered with transformers. `trust_remote_code` lets a local folder's own classes be imported.
    Raises `ModelError` when no class can hold the configuration.
    """
    import torch

    described, note = apply_fixup(source.config, source.name)
    wanted = _dtype(described, dtype, source.name)
    extra = {} if experts_implementation is None else {"experts_implementation": experts_implementation}
    with _library_messages() as messages:
        config, model_class, origin = _classes(source, described, trust_remote_code)
        notes = require_stated(config, described, source.name)
        try:
            with torch.device("meta"), torch.no_grad():
                module = model_class._from_config(
                    config, dtype=wanted, attn_implementation=attn_implementation, **extra
                )
                module.tie_weights()
        except Exception as reason:
            raise _build_error(source, model_class, reason) from reason
    _keep_fp32(module, wanted)
    module.eval().requires_grad_(False)
    _require_meta(module, source.name)
    architectures = described.get("architectures")
    return Blueprint(
        module=module,
        config=module.config,
        kind="transformers",
        model_type=normalise_type(config.model_type),
        architecture=architectures[0] if architectures else model_class.__name__,
        origin=origin,
        dtype=wanted,
        source=source,
        notes=source.notes + ((note,) if note else ()) + notes + tuple(dict.fromkeys(messages)),
    )


def count_parameters(module: torch.nn.Module) -> int:
    """Elements of the distinct parameters of `module`: a tied tensor counts once, buffers not at all."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _library_messages() -> Iterator[list[str]]:
    """What transformers warns about while a model is built, as lines for the report instead of on stderr."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append("transformers: " + " ".join(record.getMessage().split()))
    _import("transformers.utils.logging").get_logger("transformers")  # installs the library's own handler first
    logger = logging.getLogger("transformers")
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield lines
    finally:
        logger.handlers, logger.propagate = handlers, propagate


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


def _dtype(described: dict, asked: str | None, name: str) -> torch.dtype:
    import torch

    stated = [asked] if asked is not None else [
        value for _, part in parts(described) for value in (part.get("dtype"), part.get("torch_dtype"))
    ]  # fmt: skip
    text = next((value for value in stated if value is not None), "bfloat16")
    key = str(text).removeprefix("torch.").lower()
    if key not in DTYPES:
        error = InputError if asked is not None else ModelError
        raise error(f"{name}: dtype {text!r} is not one a model is built in; use bfloat16, float16 or float32")
    return getattr(torch, DTYPES[key])


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


def _require_meta(module: torch.nn.Module, name: str) -> None:
    tensors = (*module.named_parameters(), *module.named_buffers())
    real = [path for path, tensor in tensors if tensor.device.type != "meta"]
    if real:
        raise ModelError(f"{name}: {real[0]} was allocated in real memory; its code must build on the meta device")


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


def _build_error(source: ModelSource, model_class: type, reason: Exception) -> ModelError:
    text = f"{type(reason).__name__}: {_one_line(reason)}"
    if isinstance(getattr(model_class, "_tied_weights_keys", None), list):
        keys = model_class._tied_weights_keys
        text = f"_tied_weights_keys uses a list; transformers >= 5 needs {{{keys[0]!r}: '<source>'}}" if keys else text
    return ModelError(f"{source.name}: {model_class.__name__} cannot be built: {text}")


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())[:300] or type(reason).__name__
