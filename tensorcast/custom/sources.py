"""The sources of user code of one request, and the order they load in.

Installed plugins first, then the files of ./custom_model (alphabetical; names that start with `_`, `.` or `test_` are
left alone), the paths of TENSORCAST_CUSTOM, the `--custom` paths. Stamps say what they are without running them, so
that a cached answer loads none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorcast.content import path_of
from tensorcast.custom import plugins
from tensorcast.custom.loading import Custom, load, shown, stamps_of
from tensorcast.errors import CustomModelError, InputError

FOLDER = "custom_model"
VARIABLE = "TENSORCAST_CUSTOM"
LEFT_ALONE = ("_", ".", "test_")


@dataclass(frozen=True)
class Sources:
    """Where user code comes from in one request. Make one with `Sources.of`."""

    paths: tuple[Path, ...] = ()
    folder: tuple[Path, ...] = ()
    without: frozenset[str] = frozenset()
    with_plugins: bool = True

    @classmethod
    def of(cls, custom: Any = None, *, folder: bool = True, no_plugin: Iterable[str] = ()) -> Sources:
        """`custom`: a path or several; `folder`: ./custom_model counts; `no_plugin`: names of plugins left out."""
        named = [p for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
        asked = custom if isinstance(custom, (list, tuple)) else [] if custom is None else [custom]
        if not all(isinstance(path, (str, os.PathLike)) and str(path) for path in asked):
            raise InputError(f"custom {custom!r}: a path or a list of paths")
        paths = dict.fromkeys(path_of(p, "custom").absolute() for p in (*named, *asked))
        plugins.check_names(no_plugin)
        return cls(tuple(paths), tuple(_files()) if folder else (), frozenset(no_plugin))

    def stamps(self) -> list:
        """What every source is made of: files with time and size, plugins with version; for cache keys."""
        files = [stamp for path in (*self.folder, *self.paths) for stamp in stamps_of(path)]
        return [plugins.stamps(self.without) if self.with_plugins else [], files]

    def files(self) -> frozenset[str]:
        """The files whose registrations the stamps stand for."""
        return frozenset(stamp[0] for path in (*self.folder, *self.paths) for stamp in stamps_of(path))

    def load(self) -> Custom | None:
        """Load what is not loaded yet; the model that a path (not the folder) defines, if any."""
        _load_builtins()
        if self.with_plugins:
            plugins.load(self.without)
        for path in self.folder:
            load(path, "--no-custom-dir")
        found = [loaded for path in self.paths if (loaded := load(path)).custom is not None]
        if len(found) > 1:
            first, second = (shown(loaded.path) for loaded in found[:2])
            raise CustomModelError(f"{first} and {second} both define __model__; give one of them")
        return found[0].custom if found else None


def _load_builtins() -> None:
    """What ships with TensorCast is registered first, so that a name it has is taken whatever the order."""
    from tensorcast.kernels import load_kernels
    from tensorcast.ops import list_ops
    from tensorcast.pipelines import load_builtin

    load_kernels()
    list_ops()
    load_builtin()


NONE = Sources(with_plugins=False)


def _files() -> list[Path]:
    """The files and packages of ./custom_model."""
    folder = Path.cwd() / FOLDER
    if not folder.is_dir():
        return []
    entries = [p for p in folder.iterdir() if not p.name.startswith(LEFT_ALONE)]
    return sorted(p for p in entries if (p.suffix == ".py" and p.is_file()) or (p / "__init__.py").is_file())
