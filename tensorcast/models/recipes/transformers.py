"""Models of transformers: by their own code, from a configuration, a class, or what a user registered there."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tensorcast.errors import ModelError, near_names
from tensorcast.models import native
from tensorcast.models.attention_tables import attention_known, own_attention
from tensorcast.models.blueprint import normalise_type
from tensorcast.models.builders import builder_for, in_transformers, origin_of
from tensorcast.models.defaults import require_stated
from tensorcast.models.fixups import apply_fixup
from tensorcast.models.library import library
from tensorcast.models.recipes import Recipe, Step, Wanted
from tensorcast.models.reference import LANGUAGE, ModelSource
from tensorcast.models.roles import CACHES, FORWARD, Role, role_of
from tensorcast.plan import TRAIN

if TYPE_CHECKING:
    import torch


def recipe(source: ModelSource, wanted: Wanted) -> Recipe:
    """Every source that is left: transformers has a class for its configuration, or it is a ModelError."""
    described, note = apply_fixup(source.config, source.name)
    sample, notes = None, ()
    if source.custom is not None:
        config, model_class, origin, sample = _given(source)
    else:
        config, model_class, origin = _classes(source, described, wanted.trust_remote_code)
        notes = require_stated(config, described, source.name)
    config = own_part(config, model_class)
    notes += tuple(said for said in (own_attention(model_class), _uncached(model_class)) if said)
    if sample is not None and sample.training:
        notes = (*notes, "the model was in training mode: costed in eval mode, dropout is absent")
    architectures, role = described.get("architectures"), role_of_class(config, model_class)
    return Recipe(
        kind="transformers",
        make=lambda: _made(config, model_class, sample, wanted),
        config=config,
        architecture=architectures[0] if architectures else model_class.__name__,
        model_type=normalise_type(config.model_type or model_class.__name__),
        origin=origin,
        inputs=_inputs_of(role),
        finish=lambda module: _keep_fp32(module, wanted.dtype),
        explain=lambda reason: _tied_list(model_class),
        notes=((note,) if note else ()) + notes + _reading_notes(config, model_class, role),
        phases=role.phases,
        reading=role.reading,
    )


def role_of_class(config: Any, model_class: type) -> Role:
    """What a class is run as, from its forward and its configuration."""
    import inspect

    taken = inspect.signature(model_class.forward).parameters
    return role_of(config.model_type or "", model_class.__name__, taken, config.to_dict())


def _inputs_of(role: Role) -> Any:
    from tensorcast.models.recipes.encoders import encoder_inputs, sequence_inputs

    if role.reading.encoder:
        return sequence_inputs
    return encoder_inputs if role.phases == FORWARD else language_inputs


def _reading_notes(config: Any, model_class: type, role: Role) -> tuple[str, ...]:
    from tensorcast.models.recipes.encoders import reading_notes

    return () if role == Role() else reading_notes(config, model_class, role)


def _made(config: Any, model_class: type, sample: Any, wanted: Wanted) -> Any:
    """The module: made from its configuration, or a copy of the user's own without its weights."""
    implementations = {"attn_implementation": wanted.attn_implementation}
    if wanted.experts_implementation is not None:
        implementations["experts_implementation"] = wanted.experts_implementation
    if sample is None:
        with attention_known(model_class, wanted.attn_implementation):
            return model_class._from_config(config, dtype=wanted.dtype, **implementations)
    from tensorcast.models.recipes.module import on_meta

    module = on_meta(sample, wanted.dtype)
    for part in module.modules():
        if hasattr(part, "config") and hasattr(part.config, "_attn_implementation"):
            part.config._attn_implementation = wanted.attn_implementation
    return module


def _given(source: ModelSource) -> tuple[Any, type, str, Any]:
    """Config, model class, origin and, where an instance was given, that instance; of a model given as Python."""
    from transformers import PreTrainedModel

    from tensorcast.models.objects import configuration, described

    value, origin = source.custom.value, source.custom.origin
    if isinstance(value, PreTrainedModel):
        if described(value, value.config) != source.config:
            raise ModelError(f"{source.name}: an instance is costed as it is; give its class for another configuration")
        return value.config, type(value), origin, value
    own = configuration(value)
    config = _settled(copy.deepcopy(own))
    if source.config != described(value, own):
        config = _settled(type(own).from_dict(copy.deepcopy(source.config)))
    if isinstance(value, type) and issubclass(value, PreTrainedModel):
        return config, value, origin, None
    model_class = _model_class(config, config.model_type, None, source.name)
    return config, model_class, f"{model_class.__name__} registered for {type(config).__name__} ({origin})", None


def _settled(config: Any) -> Any:
    """`config` with the sizes that a user's class may leave null filled in: `getattr(config, name, default)` in model
    code gives None for an attribute that is there and null."""
    heads, width = getattr(config, "num_attention_heads", None), getattr(config, "hidden_size", None)
    derived = {"num_key_value_heads": heads, "head_dim": width // heads if heads and width else None}
    for name, value in derived.items():
        if hasattr(config, name) and getattr(config, name) is None and value is not None:
            setattr(config, name, value)
    return config


def own_part(config: Any, model_class: type) -> Any:
    """`config`, or the part of it that the class is made of: a composite's text class takes its text configuration."""
    wanted = getattr(model_class, "config_class", None)
    if wanted is None or isinstance(config, wanted):
        return config
    parts = (getattr(config, name, None) for name in getattr(type(config), "sub_configs", None) or ())
    return next((part for part in parts if isinstance(part, wanted)), config)


def phases_of_class(model_class: type) -> tuple[str, ...]:
    """prefill and decode for a model that keeps a cache or is a causal language model, forward for any other."""
    return LANGUAGE if keeps_cache(model_class) or _is_causal(model_class) else ("forward",)


def keeps_cache(model_class: type) -> bool:
    """Whether forward takes what it remembers of earlier tokens."""
    import inspect

    return not {*CACHES}.isdisjoint(inspect.signature(model_class.forward).parameters)


def _is_causal(model_class: type) -> bool:
    names = library("transformers.models.auto.modeling_auto").MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return model_class.__module__.startswith("transformers.") and model_class.__name__ in names.values()


def _uncached(model_class: type) -> str:
    if keeps_cache(model_class) or not _is_causal(model_class):
        return ""
    return f"{model_class.__name__} keeps no cache: every decode step runs the whole sequence again"


def language_inputs(model, step: Step) -> dict[str, Any]:
    """The arguments that the model's forward takes, of those a language model may be given.

    Logits are asked for the last token of each sequence, in decode for every new token (drafts are verified).
    """
    import inspect

    import torch

    takes = inspect.signature(type(model.module).forward).parameters
    cached = step.phase not in ("forward", TRAIN) and keeps_cache(type(model.module))
    shape = (step.batch, step.tokens if cached else step.past + step.tokens)
    known = {
        "input_ids": lambda: torch.empty(shape, dtype=torch.long),
        "position_ids": lambda: torch.empty(shape, dtype=torch.long),
        "past_key_values": lambda: _cache(model, step) if cached else None,
        "cache_params": lambda: _cache(model, step) if cached else None,
        "use_cache": lambda: cached,
        "logits_to_keep": lambda: {"decode": step.tokens, "forward": 0, TRAIN: 0}.get(step.phase, 1),
        "attention_mask": lambda: torch.ones((step.batch, step.past + step.tokens), dtype=torch.long),
    }
    plain = [n for n, p in takes.items() if n != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = [name for name in plain if takes[name].default is inspect.Parameter.empty]
    unknown = [name for name in needed if name not in known]
    if unknown or "input_ids" not in plain:
        what, names = type(model.module).__name__, ", ".join(unknown or plain) or "no named argument"
        raise ModelError(
            f"{what}.forward takes {names}, and token ids alone do not run it; give the model in a --custom FILE that "
            "defines __inputs__(workload, config)"
        )
    found = {name: known[name]() for name in plain if name in known and (name != "attention_mask" or name in needed)}
    own = model.profile.inputs
    return found if own is None else found | own(model, step)


def _cache(model, step: Step) -> Any:
    from tensorcast.layers.cache import build_cache
    from tensorcast.layers.mtp import block_kinds

    text = model.text_config
    if not hasattr(text, "num_hidden_layers"):
        raise ModelError(
            f"{model.blueprint.source.name}: the configuration states no num_hidden_layers, so the KV cache has no size"
        )
    return build_cache(model.config, step.past, block_kinds(text) * len(model.drafts or ()))


def _classes(source: ModelSource, described: dict, trust_remote_code: bool) -> tuple[object, type, str]:
    """A fresh config object, the model class and where that class came from."""
    entry = builder_for(described)
    if entry is not None:
        return config_made(entry.value.config_class, described, source.name), entry.value.model_class, origin_of(entry)
    kind = described.get("model_type") or _type_of_architecture(described["architectures"][0], source.name)
    if not native.is_native(kind) and not _registered(kind):
        if source.has_remote_code and trust_remote_code:
            from tensorcast.models import remote

            config, model_class, origin = remote.load_classes(source, described)
            return _settled(config), model_class, origin
        raise ModelError(_unknown_type(source, kind))
    config = config_made(_config_class(kind), {**described, "model_type": kind}, source.name)
    config = config if native.is_native(kind) else _settled(config)
    model_class = _model_class(config, kind, described.get("architectures"), source.name)
    return config, model_class, f"transformers {model_class.__name__}"


def config_made(config_class: type, described: dict, name: str) -> Any:
    """An object of `config_class`, transformers' or a user's, that holds what `described` says."""
    make = getattr(config_class, "from_dict", None) or (lambda fields: config_class(**fields))
    try:
        return make(copy.deepcopy(described))
    except ModelError as reason:
        raise ModelError(f"{name}: {reason}") from reason
    except Exception as reason:
        text = f"{config_class.__name__} refuses the configuration: {_one_line(reason)}"
        raise ModelError(f"{name}: {text}") from reason


def config_object(source: ModelSource) -> Any:
    """transformers' configuration object for a source, or None where it does not know the model type."""
    kind = source.config.get("model_type")
    if kind is None or not (native.is_native(kind) or _registered(kind)):
        return None
    return _config_class(kind).from_dict(copy.deepcopy(source.config))


def _config_class(kind: str) -> type:
    name = native.config_class_names().get(kind)
    if name is not None:
        module = library(f"transformers.models.{native.module_of(kind)}")
        if hasattr(module, name):
            return getattr(module, name)
    return library("transformers.models.auto.configuration_auto").CONFIG_MAPPING[kind]


def _registered(kind: str) -> bool:
    """Whether a user's code registered `kind` with transformers' AutoConfig."""
    import sys

    auto = sys.modules.get("transformers.models.auto.configuration_auto")
    return auto is not None and kind in auto.CONFIG_MAPPING._extra_content


def _model_class(config: object, kind: str, architectures: list[str] | None, name: str) -> type:
    """`architectures[0]` where transformers has it for this configuration, else what is registered for its class: a
    language model with a head, an image-text model, or the base model."""
    library("transformers.models.auto.modeling_auto")
    from tensorcast.models.objects import model_mappings

    asked = architectures[0] if architectures else None
    if asked and native.is_native(kind):
        found = getattr(library(f"transformers.models.{native.module_of(kind)}"), asked, None)
        if found is None:
            found = getattr(library("transformers"), asked, None)
        if found is not None and isinstance(own_part(config, found), getattr(found, "config_class", None) or ()):
            return found
        if any(found in _listed(mapping, config) for mapping in model_mappings(config)):
            return found
        if found is not None and hasattr(found, "config_class"):
            other = getattr(found.config_class, "model_type", None)
            what = f"architectures names {asked}, a class of model_type {other!r}, but model_type is {kind!r}"
            raise ModelError(f"{name}: {what}; make the two agree")
    for mapping in model_mappings(config):
        if listed := _listed(mapping, config):
            return listed[0]
    what = f"transformers has no {asked or 'language model'} for model_type {kind!r}"
    raise ModelError(f"{name}: {what}; describe the model with --custom FILE")


def _listed(mapping: Any, config: object) -> tuple[type, ...]:
    """The classes that one of transformers' tables has for a configuration."""
    found = mapping[type(config)] if type(config) in mapping else ()
    return tuple(found) if isinstance(found, (list, tuple)) else (found,)


def _type_of_architecture(architecture: str, name: str) -> str:
    """The model type whose causal or image-text class is `architecture`: for a configuration without model_type."""
    modeling = library("transformers.models.auto.modeling_auto")
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


def _unknown_type(source: ModelSource, kind: str) -> str:
    if source.has_remote_code:
        how = "add --trust-remote-code to run them"
        how = how if source.folder else "download its folder and " + how
        return f"{source.name}: model_type {kind!r} needs the repository's own Python files; {how}"
    near = near_names(kind, native.config_class_names())
    hint = f"nearest: {', '.join(near)}; " if near else ""
    asked = (source.config.get("architectures") or [None])[0]
    if asked is None or in_transformers(asked):
        what = f"transformers does not know model_type {kind!r}"
        return f"{source.name}: {what}; {hint}describe the model with --custom FILE"
    return (
        f"{source.name}: no builder for architecture {asked!r} (model_type {kind!r}); looked at __model__ of --custom, "
        f"classes of register_auto_model, diffusers, transformers and the repository's own files "
        f"(--trust-remote-code; it names none); {hint}add one with --custom FILE or a file in ./custom_model"
    )


def _tied_list(model_class: type) -> str:
    """What is wrong with a class written for transformers 4, which listed its tied weights; "" for any other."""
    keys = getattr(model_class, "_tied_weights_keys", None)
    if not isinstance(keys, list) or not keys:
        return ""
    return f"_tied_weights_keys uses a list; transformers >= 5 needs {{{keys[0]!r}: '<source>'}}"


def _one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())[:300] or type(reason).__name__
