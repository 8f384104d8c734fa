"""The models known by name: one YAML file of facts each, in `catalogue/`.

An entry states `name`, `aliases`, `hub_id`, `gated`, `source`, `parameters` (to the digit), `dtype` and `config`. A
lookup by name parses one file only; one by alias or hub id first scans the files' text for the line that names it.

That of a diffusion model is about its denoiser, and names the `pipeline` around it: its `class`, `steps`, `image`,
`frames` and `prompt_tokens` where they are not what the class says, and its `components`, which are files of `parts/`
because pipelines share them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tensorcast.errors import ModelError

FOLDER = Path(__file__).parent / "catalogue"
PARTS = FOLDER / "parts"
FIELDS = (
    "name", "aliases", "hub_id", "gated", "license", "source", "parameters", "dtype", "config", "notes", "pipeline",
)  # fmt: skip
PIPELINE = ("class", "components", "steps", "image", "frames", "prompt_tokens", "dtypes")


@dataclass(frozen=True)
class Entry:
    """One catalogue file. `parameters` counts tied weights once; `gated` says whether the hub asks for a licence."""

    name: str
    hub_id: str
    gated: bool
    source: str
    parameters: int
    dtype: str
    config: dict
    aliases: tuple[str, ...] = ()
    license: str | None = None
    notes: tuple[str, ...] = ()
    pipeline: dict | None = None  # of a diffusion model

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, int) or self.parameters <= 0:
            raise ModelError(f"catalogue entry {self.name!r}: parameters is {self.parameters!r}; state the exact count")
        if not self.source or not isinstance(self.config, dict):
            raise ModelError(f"catalogue entry {self.name!r}: needs a source and a config mapping")
        if strange := sorted(set(self.pipeline or ()) - set(PIPELINE)):
            raise ModelError(f"catalogue entry {self.name!r}: unknown field pipeline.{strange[0]}")


def normalise(name: str) -> str:
    """Names are equal up to case and the choice of `-`, `_`, `.` and space."""
    return name.strip().lower().replace("_", "-").replace(".", "-").replace(" ", "-")


def find_entry(ref: str) -> Entry | None:
    """The entry called `ref`: its name, an alias, or its hub id; None when there is none."""
    wanted = normalise(ref)
    path = _files().get(wanted) or _other_names().get(wanted)
    return read_entry(path) if path else None


def all_entries() -> Iterator[Entry]:
    """Every model of transformers, by name."""
    return (entry for entry in _all() if entry.pipeline is None)


def all_pipelines() -> Iterator[Entry]:
    """Every diffusion model, by name."""
    return (entry for entry in _all() if entry.pipeline is not None)


def _all() -> Iterator[Entry]:
    for _, path in sorted(_files().items()):
        yield read_entry(path)


@cache
def read_part(name: str) -> dict:
    """A component that pipelines share: its `source`, `parameters` and `config`."""
    return _yaml(PARTS / f"{name}.yaml")


def known_names() -> list[str]:
    """What a user may type: names, aliases and hub ids, as the files spell them."""
    return [path.name.removesuffix(".yaml") for path in _files().values()] + [name for name, _ in _scan()]


def list_models() -> list[dict]:
    """Rows for `tensorcast list models`: what each entry states, without its configuration."""
    return [
        {
            "name": entry.name,
            "aliases": list(entry.aliases),
            "hub_id": entry.hub_id,
            "gated": entry.gated,
            "parameters": entry.parameters,
            "architecture": entry.config.get("_class_name") or entry.config["architectures"][0],
            "model_type": entry.config.get("model_type") or entry.pipeline["class"],
            "dtype": entry.dtype,
            "origin": "builtin",
            "source": entry.source,
        }
        for entry in _all()
    ]


def read_entry(path: Path) -> Entry:
    """Parse one catalogue file."""
    raw = _yaml(path)
    strange = sorted(set(raw) - set(FIELDS)) if isinstance(raw, dict) else ["(not a mapping)"]
    if strange:
        raise ModelError(f"{path.name}: unknown field {strange[0]!r}; fields are {', '.join(FIELDS)}")
    try:
        raw["aliases"], raw["notes"] = tuple(raw.get("aliases") or ()), tuple(raw.get("notes") or ())
        return Entry(**raw)
    except TypeError as reason:
        raise ModelError(f"{path.name}: {str(reason).removeprefix('Entry.__init__() ')}") from None


def _yaml(path: Path) -> Any:
    import yaml

    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def _files() -> dict[str, Path]:
    return {normalise(path.name.removesuffix(".yaml")): path for path in FOLDER.glob("*.yaml")}


@cache
def _other_names() -> dict[str, Path]:
    return {normalise(name): path for name, path in _scan()}


def _scan() -> Iterator[tuple[str, Path]]:
    """Aliases and hub ids, found by their lines: seventy files are read in a millisecond, parsing them takes fifty."""
    for path in _files().values():
        for line in path.read_text(encoding="utf-8").split("config:", 1)[0].splitlines():
            if line.startswith("hub_id:"):
                yield line.removeprefix("hub_id:").strip().strip("\"'"), path
            elif line.startswith("aliases:"):
                for name in line.removeprefix("aliases:").strip().strip("[]").split(","):
                    if name.strip():
                        yield name.strip().strip("\"'"), path
