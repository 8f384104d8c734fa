"""What `--model` means: a catalogue name, a folder, a config.json or a hub id becomes one `ModelSource`.

Torch and transformers are never imported here: a cached answer needs the source's digest and nothing more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tensorcast.custom.loading import Custom
from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models import entries
from tensorcast.models.check import check_config, read_json
from tensorcast.models.overrides import apply_overrides, keep_layers

SIDE_FILE = "hf_quant_config.json"
LANGUAGE = ("prefill", "decode")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DROPPED = ("auto_map", "transformers_version", "_name_or_path", "_commit_hash")
"""Fields that say nothing about the model; `auto_map` would make transformers run a repository's own code."""


@dataclass(frozen=True)
class ModelSource:
    """A model's configuration and where it came from.

    `config` is the transformers configuration without `auto_map`; `quant_side` the content of hf_quant_config.json.
    `expected_parameters` is the published count of the unchanged catalogue model. `has_remote_code` tells that the
    configuration names Python files of its own (`auto_map`). `digest` is equal exactly when the described model is; ""
    says that nothing identifies it. `custom` is the model given as Python, if it is. `phases` are those it has.
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


def resolve_model(
    ref: str | None,
    *,
    overrides: Mapping[str, object] = {},
    layers: int | None = None,
    revision: str | None = None,
    custom: Custom | None = None,
) -> ModelSource:
    """The model `ref` means, with `overrides` (dotted keys) applied and only its first `layers` layers kept.

    `custom` is a model given as Python: `ref`, if there is one, is then where its configuration comes from.

    `revision` is a branch, tag or commit on the hub; it is an error for anything that is not fetched from there.
    Raises `UnknownNameError` (no such model), `ModelError` (a broken configuration), `InputError` (a bad override).
    """
    if custom is not None and ref is None:
        from tensorcast.models.objects import source_of

        source = source_of(custom, None, overrides)
        if layers is not None:
            source = replace(source, config=keep_layers(source.config, layers, source.name))
        return replace(source, digest=_digest(source.config, custom.stamp) if custom.stamp else "")
    source = _find(str(ref or "").strip(), revision)
    check_config(source.config, _where(source))
    config = source.config
    if overrides:
        config = apply_overrides(config, overrides, source.name)
    if layers is not None:
        config = keep_layers(config, layers, source.name)
    if overrides or layers is not None:
        check_config(config, f"{_where(source)} with the changes asked for")
    kept = source.expected_parameters if config == source.config else None
    source = replace(source, config=config, expected_parameters=kept, digest=_digest(config, source.quant_side))
    if custom is None:
        return source
    from tensorcast.models.objects import source_of

    own = source_of(custom, source, {})
    return replace(own, digest=_digest(config, [source.quant_side, custom.stamp]) if custom.stamp else "")


def _find(ref: str, revision: str | None) -> ModelSource:
    if not ref:
        raise InputError("the model's name is empty; list them with `tensorcast list models`")
    path, entry = Path(ref).expanduser(), entries.find_entry(ref)
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
    return ModelSource(
        name=entry.name,
        origin="catalogue",
        config={**entry.config, "dtype": entry.dtype},
        hub_id=entry.hub_id,
        expected_parameters=entry.parameters,
        gated=entry.gated,
        notes=entry.notes + ((note,) if note else ()),
    )


def _from_folder(folder: Path) -> ModelSource:
    config_file, side = folder / "config.json", folder / SIDE_FILE
    if not config_file.exists():
        if (folder / "model_index.json").exists():
            raise ModelError(f"{folder}: a diffusers pipeline (model_index.json), not a transformers model")
        raise ModelError(f"{folder}: the folder has no config.json; give the folder a model was downloaded to")
    return _from_files(folder.resolve().name, f"path {folder}", config_file, side, folder)


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
    return ModelSource(
        name=name,
        origin=origin,
        config=_normalise(raw),
        quant_side=quant_side,
        folder=folder,
        has_remote_code="auto_map" in raw,
    )


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
