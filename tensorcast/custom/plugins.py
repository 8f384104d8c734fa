"""Installed packages that bring models: entry points of the group `tensorcast.plugins`.

An entry point names a module to import or a function without arguments to call. What it registers is shown as coming
from its package and version.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tensorcast.catalog import registered_by
from tensorcast.custom.loading import guarded
from tensorcast.errors import InputError, near_names

GROUP = "tensorcast.plugins"
_loaded: set[tuple[str, str]] = set()


@cache
def found() -> tuple[Any, ...]:
    """Every entry point of the group, by name."""
    from importlib.metadata import entry_points

    return tuple(sorted(entry_points(group=GROUP), key=lambda point: point.name))


def check_names(names: Iterable[str]) -> None:
    """A name that no plugin has is an error: it would be taken for left out."""
    known = [point.name for point in found()] if names else []
    for name in names:
        if name not in known:
            near = near_names(name, known, 1)
            hint = f"nearest: {near[0]}" if near else f"installed: {', '.join(known) or 'none'}"
            raise InputError(f"--no-plugin {name}: no such plugin; {hint}")


def load(without: Collection[str] = ()) -> None:
    """Load every plugin once a process, but for those named; CustomModelError names the package of one that fails."""
    for point in found():
        if point.name in without or (point.name, point.value) in _loaded:
            continue
        origin = _origin(point)
        with guarded(_root(point), f"--no-plugin {point.name}", origin), registered_by(origin):
            value = point.load()
            if callable(value):
                value()
        _loaded.add((point.name, point.value))


def stamps(without: Collection[str] = ()) -> list:
    """Name, package, version and files of every plugin that counts."""
    return [[p.name, p.value, _origin(p), _files(p)] for p in found() if p.name not in without]


def _origin(point: Any) -> str:
    return f"{point.dist.name} {point.dist.version}"


def _root(point: Any) -> Path | None:
    """Folder or file of the entry point's top-level package, without importing it."""
    try:
        spec = importlib.util.find_spec(point.module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _files(point: Any) -> list:
    root = _root(point)
    if root is None:
        return []
    files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
    return [(str(f), s.st_mtime_ns, s.st_size) for f in files for s in [f.stat()]]
