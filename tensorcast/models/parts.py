"""What a diffusion pipeline consists of besides its denoiser: from its folder, or from the catalogue."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensorcast.errors import ModelError
from tensorcast.models import entries
from tensorcast.models.check import read_json

INDEX = "model_index.json"
STAGES = ("text_encoder", "vae")
_RUN = re.compile(r"(text_encoder(_\d+)?|vae|(transformer|unet)_\d+)")
_WEIGHTLESS = re.compile(r"Tokenizer|Scheduler|Processor|FeatureExtractor|Guider")


@dataclass(frozen=True)
class Part:
    """One component. `config` is None where its file is missing, with `where` the place it was looked for.

    `dtype` is what it is published to run in where that is not the pipeline's own. `parameters` is the published count.
    """

    name: str
    class_name: str
    config: Mapping[str, Any] | None
    where: str
    dtype: str | None = None
    parameters: int | None = None
    note: str = ""

    @property
    def stage(self) -> str:
        """text_encoder, vae, or "" for another denoiser that takes some of the steps."""
        return next((stage for stage in STAGES if self.name.startswith(stage)), "")

    @property
    def stub(self) -> bool:
        """Whether the configuration names its class and nothing more: sizes left out would be another model's."""
        return self.config is not None and set(self.config) <= {"architectures", "_class_name", "model_type"}


def parts_of_folder(folder: Path, denoiser: str, config: Mapping[str, Any]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The components that the pipeline's index names besides `denoiser`, whose configuration is `config`; and notes on
    those that have weights and are not costed."""
    if not (folder / INDEX).exists():
        return (), ()
    index, parts, idle = read_json(folder / INDEX), [], []
    for name, kind in index.items():
        if name == denoiser or kind == [None, None]:
            continue
        if _RUN.fullmatch(name):
            if not isinstance(kind, list) or len(kind) != 2 or not all(isinstance(part, str) for part in kind):
                raise ModelError(f'{folder / INDEX}: {name} is {kind!r}; it must be ["library", "class"]')
            parts.append(_from_folder(folder, name, kind[1]))
        elif isinstance(kind, list) and not _WEIGHTLESS.search(str(kind[-1])):
            idle.append(f"{name} ({kind[-1]}) of this pipeline is not costed and not in memory")
    if any(part.stub for part in parts):
        parts = [_from_twin(part, index.get("_class_name"), config) for part in parts]
    return tuple(parts), tuple(idle)


def _from_folder(folder: Path, name: str, class_name: str) -> Part:
    file = folder / name / "config.json"
    config = read_json(file) if file.exists() else None
    return Part(name, class_name, config, str(file))


def _from_twin(part: Part, pipeline: str | None, denoiser: Mapping[str, Any]) -> Part:
    """A component that states its class only, as the catalogue has it for a pipeline with the same denoiser."""
    if not part.stub:
        return part
    for entry in entries.all_pipelines():
        if entry.pipeline["class"] != pipeline or entry.config != {k: v for k, v in denoiser.items() if k != "dtype"}:
            continue
        twin = next((p for p in parts_of_entry(entry) if p.name == part.name and p.class_name == part.class_name), None)
        if twin is not None:
            said = f"states only its class: taken from the catalogue's {entry.name}, whose denoiser is equal"
            return replace(twin, where=part.where, note=f"{part.where} {said}")
    return part


def parts_of_entry(entry: entries.Entry) -> Iterator[Part]:
    """The components that a catalogue entry names; `self` is another denoiser with the entry's own configuration."""
    for name, said in entry.pipeline["components"].items():
        if said == "self":
            yield Part(name, entry.config["_class_name"], entry.config, entry.name, None, entry.parameters)
            continue
        found = entries.read_part(said)
        class_name = found["config"].get("_class_name") or found["config"]["architectures"][0]
        dtype = entry.pipeline.get("dtypes", {}).get(name)
        yield Part(name, class_name, found["config"], f"{entry.name}: {said}", dtype, found["parameters"])
