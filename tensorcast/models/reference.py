"""What `--model` means: a catalogue name, a folder, a config.json or a hub id becomes one `ModelSource`.

Torch and transformers are never imported here: a cached answer needs the source's digest and nothing more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tensorcast.content import path_of
from tensorcast.custom.loading import Custom
from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models import entries
from tensorcast.models.check import check_config, read_json
from tensorcast.models.overrides import apply_overrides, keep_layers
from tensorcast.models.parts import INDEX, Part, parts_of_entry, parts_of_folder
from tensorcast.models.roles import FORWARD, LANGUAGE, PLAIN, Reading, Role, base_class, stated_role

SIDE_FILE = "hf_quant_config.json"
EMBEDS = "modules.json"
"""File with which sentence-transformers lists what it puts behind a model: pooling, normalisation."""
DENOISE = ("denoise",)
TEXT_ENCODER = ("text_encoder",)
VAE = ("vae",)
VAE_ENCODER = ("vae_encoder",)
STAGES = (TEXT_ENCODER, VAE_ENCODER, DENOISE, VAE)
"""Of a diffusion pipeline; each model in it has one."""
DENOISERS = ("transformer", "unet")
"""Folders of a diffusers pipeline that its denoiser may lie in; the first that is there is taken."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DROPPED = ("auto_map", "transformers_version", "_diffusers_version", "_name_or_path", "_commit_hash")
"""Fields that say nothing about the model; `auto_map` would make transformers run a repository's own code."""


@dataclass(frozen=True)
class ModelSource:
    """A model's configuration and where it came from.

    `config` is the transformers configuration without `auto_map`; `quant_side` the content of hf_quant_config.json.
    `expected_parameters` is the published count of the unchanged catalogue model. `has_remote_code` tells that the
    configuration names Python files of its own (`auto_map`). `digest` is equal exactly when the described model is; ""
    says that nothing identifies it. `custom` is the model given as Python, if it is. `phases` are those it has,
    `reading` how it takes its input. `beside` is what a denoiser's pipeline says: its class as `_class_name`, the
    configuration of its `vae`, and under `usual` the steps and sizes of its requests. `parts` are the pipeline's other
    components, where all of it is meant.
    """

    name: str
    origin: str
    config: dict
    quant_side: dict | None = None
    folder: Path | None = None
    hub_id: str | None = None
    expected_parameters: int | None = None
    gated: bool | None = None
    has_remote_code: bool = False
    notes: tuple[str, ...] = ()
    digest: str = ""
    custom: Custom | None = None
    phases: tuple[str, ...] = LANGUAGE
    reading: Reading = PLAIN
    beside: Mapping[str, object] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def resolve_model(
    ref: str | Mapping | None,
    *,
    overrides: Mapping[str, object] = {},
    layers: int | None = None,
    revision: str | None = None,
    custom: Custom | None = None,
) -> ModelSource:
    """The model `ref` means, with `overrides` (dotted keys) applied and only its first `layers` layers kept.

    `ref` may be the configuration itself, as a mapping. `custom` is a model given as Python: `ref`, if there is one, is
    then where its configuration comes from.

    `revision` is a branch, tag or commit on the hub; it is an error for anything that is not fetched from there.
    Raises `UnknownNameError` (no such model), `ModelError` (a broken configuration), `InputError` (a bad override).
    """
    if custom is not None and ref is None:
        source = _given(custom, None, overrides, layers)
        if source.custom is None:
            return replace(source, digest=_digest(source.config, _beside(source)))
        return replace(source, digest=_digest(source.config, source.custom.stamp) if custom.stamp else "")
    source = from_mapping(ref) if isinstance(ref, Mapping) else _find(str(ref or "").strip(), revision)
    check_config(source.config, _where(source))
    config = _changed(source.config, overrides, layers, source.name)
    if overrides or layers is not None:
        check_config(config, f"{_where(source)} with the changes asked for")
    kept = source.expected_parameters if config == source.config else None
    parts = tuple(  # other denoisers of a pipeline change with the first
        part if part.stage or part.config is None
        else replace(part, config=_changed(part.config, overrides, layers, source.name))
        for part in source.parts
    )  # fmt: skip
    source = replace(source, config=config, parts=parts, expected_parameters=kept)
    source = replace(source, digest=_digest(config, _beside(source)))
    if "_class_name" in config:
        source = replace(source, phases=DENOISE)
    if custom is None:
        return source
    own = _given(custom, source, overrides, layers)
    return replace(own, digest=_digest(own.config, [_beside(source), own.custom.stamp]) if custom.stamp else "")


def _changed(config: Mapping, overrides: Mapping, layers: int | None, name: str) -> Mapping:
    """The configuration with the changes asked for."""
    if overrides:
        config = apply_overrides(config, overrides, name)
    return config if layers is None else keep_layers(config, layers, name)


def _given(custom: Custom, base: ModelSource | None, overrides: Mapping, layers: int | None) -> ModelSource:
    """The source of a model given as Python. A graph is recorded without torch, any other object needs it."""
    from tensorcast.graph import is_graph

    if is_graph(custom.value):
        from tensorcast.graph.source import graph_source

        return graph_source(custom, base, overrides, layers)
    from tensorcast.models.objects import source_of

    return source_of(custom, base, overrides, layers)


def with_role(source: ModelSource) -> ModelSource | None:
    """The source with its phases and its reading, as its configuration alone tells them; None where it does not.

    It does for a model type of transformers' own; of any other only the class itself knows.
    """
    from tensorcast.models.builders import OURS
    from tensorcast.models.fixups import apply_fixup

    if source.custom is not None or source.origin == "catalogue" or source.phases != LANGUAGE:
        return source
    if (source.config.get("architectures") or [""])[0] in OURS:
        return source
    role = stated_role(apply_fixup(source.config, source.name)[0])
    return as_role(source, role) if role is not None else None


def as_role(source: ModelSource, role: Role) -> ModelSource:
    return replace(source, phases=role.phases, reading=role.reading)


def _find(ref: str, revision: str | None) -> ModelSource:
    if not ref:
        raise InputError("the model's name is empty; list them with `tensorcast list models`")
    path, entry = path_of(ref, "model"), entries.find_entry(ref)
    is_path = path.is_absolute() or ref.startswith((".", "~")) or ref.endswith((".json", "/", "\\"))
    if revision is not None and (entry or is_path or path.exists()):
        raise InputError(f"revision {revision!r} goes with a hub id only; {ref!r} is not fetched from the hub")
    if not is_path and "/" not in ref and entry:
        unused = f"the folder {ref!r} of the current directory was not used; write ./{ref} for it"
        return _from_entry(entry, unused if path.is_dir() else "")
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    if entry and not is_path:
        return _from_entry(entry)
    if HUB_ID.fullmatch(ref) and not is_path:
        return _from_hub(ref, revision)
    if is_path:
        raise ModelError(f"{ref}: no such file or folder; give a folder with a config.json or the path of one")
    how = "list them with `tensorcast list models`, or give a folder, a config.json or a hub id (org/name)"
    raise UnknownNameError("model", ref, entries.known_names(), how)


def _from_entry(entry: entries.Entry, note: str = "") -> ModelSource:
    parts = tuple(parts_of_entry(entry)) if entry.pipeline is not None else ()
    return ModelSource(
        name=entry.name,
        origin="catalogue",
        config={**entry.config, "dtype": entry.dtype},
        hub_id=entry.hub_id,
        expected_parameters=entry.parameters,
        gated=entry.gated,
        notes=entry.notes + ((note,) if note else ()),
        beside=_stated_around(entry.pipeline, parts) if entry.pipeline is not None else {},
        parts=parts,
    )


def _stated_around(pipeline: Mapping, parts: tuple[Part, ...]) -> dict:
    usual = {name: value for name, value in pipeline.items() if name not in ("class", "components", "dtypes")}
    vae = next((_normalise(part.config) for part in parts if part.stage == "vae"), {})
    return {"_class_name": pipeline["class"], "vae": vae, "usual": usual}


def _from_folder(folder: Path) -> ModelSource:
    config_file, side = folder / "config.json", folder / SIDE_FILE
    if config_file.exists():
        return _from_files(folder.resolve().name, f"path {folder}", config_file, side, folder)
    parts = [folder / name / "config.json" for name in DENOISERS]
    found = next((part for part in parts if part.exists()), None)
    if found is None:
        looked = ", ".join(f"{name}/config.json" for name in DENOISERS)
        kind = "the pipeline" if (folder / INDEX).exists() else "the folder"
        how = "give the folder a model was downloaded to"
        raise ModelError(f"{folder}: {kind} has no config.json; looked for config.json, {looked}; {how}")
    source = _from_files(folder.resolve().name, f"path {found.parent}", found, None, found.parent)
    parts, notes = parts_of_folder(folder, found.parent.name, source.config)
    others = [p.name for p in sorted(folder.glob(f"{found.parent.name}_*")) if (p / "config.json").exists()]
    if others := [name for name in others if name not in [part.name for part in parts]]:
        what = "is not counted: a step runs one of them; give its folder for that one"
        notes = (*notes, f"{', '.join(others)} of this pipeline {what}")
    return replace(source, parts=parts, notes=notes)


def _from_file(path: Path) -> ModelSource:
    stem = path.name.removesuffix(".json").removesuffix("config").rstrip("_-.")
    side = path.with_name(f"{stem}_{SIDE_FILE}" if stem else SIDE_FILE)
    name = stem or path.resolve().parent.name
    return _from_files(name, f"path {path}", path, side, path.parent if path.name == "config.json" else None)


def _from_hub(hub_id: str, revision: str | None) -> ModelSource:
    from tensorcast.models import hub

    config_file, side, note = hub.fetch_config(hub_id, revision)
    origin = f"hub id {hub_id}" + (f" at {revision}" if revision else "")
    source = _from_files(hub_id, origin, config_file, side, None)
    return replace(source, hub_id=hub_id, notes=(note,) if note else ())


def _from_files(name: str, origin: str, config_file: Path, side: Path | None, folder: Path | None) -> ModelSource:
    raw = read_json(config_file)
    quant_side = read_json(side) if side is not None and side.exists() else None
    source = ModelSource(
        name=name,
        origin=origin,
        config=_normalise(raw),
        quant_side=quant_side,
        folder=folder,
        has_remote_code="auto_map" in raw,
        beside=_pipeline_around(folder) if folder is not None and "_class_name" in raw else {},
    )
    return _embedding(source) if folder is not None and (folder / EMBEDS).exists() else source


def _embedding(source: ModelSource) -> ModelSource:
    """A model that a folder of sentence-transformers pools the states of: the base class, one pass, no head."""
    base = base_class(source.config.get("model_type") or "")
    if not base:
        return source
    note = f"{EMBEDS} says that the model embeds: one pass of {base}, without a head; pooling is not counted"
    config = {**source.config, "architectures": [base]}
    return replace(source, config=config, phases=FORWARD, notes=(*source.notes, note))


def from_mapping(config: Mapping) -> ModelSource:
    """A model given as its configuration, a dict."""
    if not all(isinstance(key, str) for key in config):
        raise ModelError("the configuration is a mapping whose keys are not all names")
    plain = _normalise(config)
    named = [config.get("_class_name"), *(config.get("architectures") or ()), config.get("model_type"), "configuration"]
    return ModelSource(str(next(name for name in named if name)), "a dict", plain, has_remote_code="auto_map" in config)


def _pipeline_around(folder: Path) -> dict:
    """What the diffusers pipeline that `folder` is part of says of it; {} where it is part of none."""
    index, vae = folder.resolve().parent / INDEX, folder.resolve().parent / "vae" / "config.json"
    found = {"_class_name": read_json(index).get("_class_name")} if index.exists() else {}
    return found | ({"vae": _normalise(read_json(vae))} if vae.exists() else {})


def _beside(source: ModelSource) -> object:
    """What decides the model besides its configuration."""
    return [source.quant_side, source.beside] if source.beside else source.quant_side


def _normalise(config: Mapping) -> dict:
    return {
        key: _normalise(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in DROPPED
    }


def _digest(config: Mapping, beside: object) -> str:
    """sha256 over what decides the model. Overrides and layers are already in the configuration."""
    text = json.dumps([config, beside], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _where(source: ModelSource) -> str:
    if source.origin == "catalogue":
        return f"catalogue entry {source.name}"
    return source.origin.removeprefix("path ")
