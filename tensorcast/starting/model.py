"""A starting model file: classes of another model under a new model type, its numbers, and a test."""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from tensorcast.build import ANY_MACHINE, blueprint_of
from tensorcast.catalog import normalize_model_type
from tensorcast.custom.sources import LEFT_ALONE
from tensorcast.errors import InputError, UnknownNameError
from tensorcast.models import native
from tensorcast.models.blueprint import Blueprint
from tensorcast.models.entries import all_entries, find_entry, known_names
from tensorcast.pipelines import PIPELINES, PROFILES
from tensorcast.request import Request
from tensorcast.starting import rendered

FOLDER = Path("custom_model")
AUTO = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel")
UNSAID = ("model_type", "architectures", "transformers_version", "_name_or_path")
"""What the new classes say themselves."""
WIDTH = 116  # columns of a value that stays on one line


def model_files(asked: str, like: str) -> dict[Path, str]:
    """{file: text} of the model type `asked` and its test, made like `like`: a known model or a model type."""
    name = _checked(asked)
    reference, said = _starting_point(like)
    blueprint = blueprint_of(Request.of(model=reference, hw=ANY_MACHINE, idle=True, custom_dir=False))
    if blueprint.kind != "transformers":
        raise InputError(f"--like {like}: a {blueprint.kind} model; a starting file is made from one of transformers")
    camel = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    text = rendered("model.py", name=name, camel=camel, like=like, said=said, **_classes(blueprint))
    return {
        FOLDER / f"{name}.py": text,
        FOLDER / f"test_{name}.py": rendered("test_model.py", name=name, camel=camel),
    }


def _checked(asked: str) -> str:
    """The model type: a Python name that is not taken and whose file would be loaded."""
    name = normalize_model_type(asked)
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name.startswith(LEFT_ALONE):
        how = "use letters, digits and _, a letter first, such as my_moe; files named test_… are not loaded"
        raise InputError(f"{asked!r} is no name for a model type; {how}")
    if native.is_native(name):
        raise InputError(f"transformers has a model type {name!r} already; choose another name")
    return name


def _starting_point(like: str) -> tuple[Any, str]:
    """(reference or configuration, where its numbers come from)."""
    if find_entry(like) is not None:
        entry = find_entry(like)
        return entry.name, f"the numbers of {entry.name}"
    kind = normalize_model_type(like)
    types = {normalize_model_type(known): known for known in native.config_class_names()}
    if kind not in types:
        known = sorted({*known_names(), *types})
        how = "give a model of `tensorcast list models` or a model type of transformers"
        raise UnknownNameError("model to start from", like, known, how)
    own = [entry for entry in all_entries() if normalize_model_type(entry.config["model_type"]) == kind]
    if own:
        smallest = min(own, key=lambda entry: entry.parameters)
        return smallest.name, f"the numbers of {smallest.name}, the smallest known model of type {types[kind]}"
    from tensorcast.models.recipes.transformers import _config_class

    config_class = _config_class(types[kind])
    return config_class(), f"the defaults of {config_class.__name__}, which no published model needs to have"


def _classes(blueprint: Blueprint) -> dict[str, Any]:
    """What the template says of the classes, the numbers, the profile and the pipeline of the other model."""
    config_class, model_class = type(blueprint.config), type(blueprint.module)
    base = config_class.__name__.removesuffix("Config")
    kind = blueprint.model_type
    published = blueprint.source.config if blueprint.source.hub_id is not None else None
    numbers = _numbers(blueprint.config, published)
    return {
        "config_class": config_class,
        "model_class": model_class,
        "suffix": model_class.__name__.removeprefix(base) if model_class.__name__ != base else "Model",
        "auto": _auto_class(config_class),
        "like_type": kind,
        "profiled": PROFILES.match(kind) is not None,
        "pipeline": PIPELINES.match(kind) is not None,
        "values": [(key, _literal(value, 4)) for key, value in numbers.items()],
    }


def _auto_class(config_class: type) -> str:
    """The first of transformers' auto classes that knows the configuration."""
    import transformers

    return next((name for name in AUTO if config_class in getattr(transformers, name)._model_mapping), AUTO[0])


def _numbers(config: PreTrainedConfig, published: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments that make `config` again: what its file states (without a file, what its class declares), and what
    does not follow from that."""
    everything = _said(config)
    names = getattr(config, "attribute_map", None) or {}
    if published is None:
        stated = {*everything} - {*PreTrainedConfig().to_dict()}
    else:
        stated = {names.get(key, key) for key in published}
    numbers = {key: value for key, value in everything.items() if key in stated}
    follows = _said(type(config)(**numbers))
    numbers |= {key: value for key, value in everything.items() if value != follows.get(key)}
    for key in numbers:
        part = getattr(config, key, None)
        if isinstance(part, PreTrainedConfig):
            inside = published.get(key) if published is not None else None
            numbers[key] = {"model_type": part.model_type, **_numbers(part, inside)}
    return numbers


def _said(config: PreTrainedConfig) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in UNSAID}


def _literal(value: Any, indent: int) -> str:
    """`value` as Python text, one line if it fits."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (Mapping, list, tuple)):
        return repr(value)
    inner = indent + 4
    if isinstance(value, Mapping):
        parts = [f"{_literal(key, inner)}: {_literal(item, inner)}" for key, item in value.items()]
    else:
        parts = [_literal(item, inner) for item in value]
    ends = "{}" if isinstance(value, Mapping) else "[]"
    line = f"{ends[0]}{', '.join(parts)}{ends[1]}"
    if len(line) + indent < WIDTH // 2 and "\n" not in line:
        return line
    lines = [""]
    for part in parts:
        if isinstance(value, Mapping) or len(lines[-1]) + len(part) + 2 > WIDTH - inner:
            lines.append("")
        lines[-1] += f"{part}, "
    body = "\n".join(" " * inner + text.rstrip() for text in lines if text)
    return f"{ends[0]}\n{body}\n{' ' * indent}{ends[1]}"
