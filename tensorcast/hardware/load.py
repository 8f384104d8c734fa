"""Hardware files -> HardwareProfile.

`hardware(reference)` takes the name of a profile, an alias, or the path of a YAML file. Names are looked up in the
current directory's hardware_profiles/ first, then in those shipped. `_` and `-`, upper and lower case are the same.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from tensorcast.content import folder, path_of
from tensorcast.errors import DuplicateError, HardwareError, UnknownNameError
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.hardware.schema import build, build_universal

UNIVERSAL = "universal"  # shared coefficients, not a device
_ALIASES = re.compile(r"^aliases:[ \t]*\[([^\]\n]*)\][ \t]*(?:#.*)?$", re.MULTILINE)


def normalize(name: str) -> str:
    """The spelling files are named in: lower case, hyphens."""
    return name.strip().lower().replace("_", "-").replace(" ", "-")


def hardware(reference: str | Path | HardwareProfile) -> HardwareProfile:
    """The profile of that name, alias or file. UnknownNameError for a name nobody has, HardwareError for a bad file."""
    if isinstance(reference, HardwareProfile):
        return reference
    return load_file(resolve(reference))


def resolve(reference: str | Path) -> Path:
    """The file behind a name, an alias or a path."""
    if not isinstance(reference, (str, Path)) or not str(reference).strip():
        raise HardwareError(f"hardware must be a name or the path of a YAML file, not {reference!r}")
    path = path_of(reference, "hardware")
    if path.suffix.lower() in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise HardwareError(f"{reference}: no such hardware file; tensorcast list hardware shows known names")
        return path
    return _find(normalize(str(reference)), str(reference))


def _find(name: str, asked: str) -> Path:
    folders = folder("hardware_profiles")
    for place in folders:
        if name != UNIVERSAL and (place / f"{name}.yaml").is_file():
            return place / f"{name}.yaml"
    known = names()
    for stem, path in known.items():  # a file whose own name is spelt with _ or upper case
        if normalize(stem) == name:
            return path
    by_alias = aliases()
    if name in by_alias:
        return known[by_alias[name]]
    raise UnknownNameError("hardware", asked, [*known, *by_alias], "tensorcast list hardware shows all")


def names() -> dict[str, Path]:
    """Profile name -> file, the first folder winning, sorted by name. Reads no file."""
    found: dict[str, Path] = {}
    for place in folder("hardware_profiles"):
        for path in sorted(place.glob("*.yaml")):
            if path.stem != UNIVERSAL:
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def aliases() -> dict[str, str]:
    """Alias (normalised) -> profile name, by a scan of the `aliases:` lines alone.

    DuplicateError when two profiles of one folder claim the same alias; the first folder wins over the others.
    """
    found: dict[str, str] = {}
    places: dict[str, Path] = {}
    for stem, path in names().items():
        for alias in _scan_aliases(path):
            if alias in found and places[alias] == path.parent:
                raise DuplicateError(f"hardware alias {alias!r} is claimed by {found[alias]} and {stem}; keep one")
            if alias not in found or _rank(path.parent) < _rank(places[alias]):
                found[alias], places[alias] = stem, path.parent
    return found


def _rank(place: Path) -> int:
    return [p.resolve() for p in folder("hardware_profiles")].index(place.resolve())


def _scan_aliases(path: Path) -> list[str]:
    match = _ALIASES.search(path.read_text(encoding="utf-8", errors="replace"))
    return [normalize(a.strip(" \"'")) for a in match.group(1).split(",") if a.strip(" \"'")] if match else []


def load_file(path: str | Path) -> HardwareProfile:
    """One YAML file as a profile. Every failure is a HardwareError of one line that names the file."""
    path = Path(path)
    universal = _universal_path(path)
    near = {place for file in (path, universal) if file is not None for place in (file.parent,)}
    stamps = tuple(sorted((str(file), file.stat().st_mtime_ns) for place in near for file in place.glob("*.yaml")))
    return _loaded(path, path.stat().st_mtime_ns if path.exists() else 0, universal, stamps)


@lru_cache(maxsize=64)
def _loaded(path: Path, stamp: int, universal: Path | None, stamps: tuple) -> HardwareProfile:
    """`stamps`: the files it may be made of, with their times, so that a changed one is seen."""
    return _load(path, stamp, universal, ())


def _load(path: Path, stamp: int, universal: Path | None, chain: tuple[str, ...]) -> HardwareProfile:
    data = _read(path, stamp)
    name = normalize(str(data.get("name", "")))
    if name in chain:
        raise HardwareError(f"{path.name}: inherits from itself through {' -> '.join((*chain, name))}")

    def relative(other: str) -> HardwareProfile:
        near = path.parent / f"{normalize(other)}.yaml"
        found = near if near.is_file() else _find(normalize(other), other)
        return _load(found, found.stat().st_mtime_ns, universal, (*chain, name))

    shared = None
    if universal is not None:
        shared = build_universal(_read(universal, universal.stat().st_mtime_ns), universal.name)
    return build(data, path.name, relative, shared)


def _universal_path(path: Path) -> Path | None:
    for place in (path.parent, *folder("hardware_profiles")):
        if (place / f"{UNIVERSAL}.yaml").is_file():
            return place / f"{UNIVERSAL}.yaml"
    return None


def _read(path: Path, stamp: int) -> dict[str, Any]:
    data = _parse(path, stamp)
    if not isinstance(data, dict):
        what = "is empty" if data is None else f"holds a {type(data).__name__}"
        raise HardwareError(f"{path.name}: {what}, a hardware file is a mapping of name, kind, peaks, memory …")
    return data


@lru_cache(maxsize=64)
def _parse(path: Path, stamp: int) -> Any:
    """The file's content; `stamp` (its modification time) keeps a changed file from being served stale."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError) as error:
        raise HardwareError(f"{path.name}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f" (line {line + 1})" if line is not None else ""
        raise HardwareError(f"{path.name}: is not YAML{where}: {getattr(error, 'problem', None) or error}") from None
