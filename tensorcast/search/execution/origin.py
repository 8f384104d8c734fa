"""What the rows of a sweep depend on beside its space: the code that computes them, and the files that it reads.

Rows computed with other code or other files do not belong to one sweep, so a store and the workers of a cluster compare
these first. Contents are compared, not times: two machines have the same file at different times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import tensorcast
from tensorcast.custom import plugins
from tensorcast.custom.sources import Sources
from tensorcast.errors import TensorcastError
from tensorcast.hardware.load import hardware
from tensorcast.models.reference import resolve_model
from tensorcast.options import texts

PACKAGES = ("torch", "transformers", "diffusers", "numpy")
"""Packages whose versions may change a figure."""
CODE = ("custom", "custom_dir", "no_plugin")
"""Options that say which user code counts."""
FILES = ("model", "hw", "config", *CODE)
"""Options that name what is read."""


@cache
def environment() -> dict[str, str]:
    """Package → version, with `tensorcast` its version and a digest of its source."""
    package = Path(tensorcast.__file__).resolve().parent
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        code.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    own = f"{tensorcast.__version__} ({code.hexdigest()[:12]})"
    return {"tensorcast": own, **{name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def inputs_of(products: Iterable[Mapping[str, Iterable[Any]]]) -> dict[str, str]:
    """What the values of options name ("model deepseek-v3", "hw h200-sxm", a file) → digest of its content.

    A name that means nothing has its error for a digest: its rows say the same as their reason. Objects have none.
    """
    products = list(products)

    def named(option: str) -> list[str]:
        values = (value for axes in products for value in axes.get(option, ()))
        return list(dict.fromkeys(value for value in values if isinstance(value, str)))

    found = {f"model {name}": _model(name) for name in named("model")}
    found |= {f"hw {name}": _machine(name) for name in named("hw")}
    found |= {name: _content(Path(name)) for name in named("config")}
    for axes in products:
        for chosen in product(*(axes.get(name, (None,)) for name in CODE)):
            found |= _code(*chosen)
    return found


def difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The first thing that is not the same in both, and how; "" where there is none.

    >>> difference({"torch": "2.12"}, {"torch": "2.13"})
    'torch 2.12 in place of 2.13'
    """
    for name in (*wanted, *found):
        have, want = found.get(name, "none"), wanted.get(name, "none")
        if have != want:
            return f"{name} {have} in place of {want}"
    return ""


def _model(name: str) -> str:
    try:
        source = resolve_model(name)
        code = sorted(source.folder.glob("*.py")) if source.folder else ()
        return _digest(" ".join([source.digest, *map(_content, code)]).encode())
    except TensorcastError as error:
        return str(error)


def _machine(name: str) -> str:
    try:
        return _digest(repr(_plain(hardware(name))).encode())
    except TensorcastError as error:
        return str(error)


def _code(custom: Any, folder: Any, without: Any) -> Iterator[tuple[str, str]]:
    try:
        sources = Sources.of(custom or None, folder=folder is not False, no_plugin=texts("no-plugin", without))
        for point in plugins.found():
            if point.name not in sources.without:
                yield f"plugin {point.name}", f"{point.dist.name} {point.dist.version}"
        yield from ((name, _content(Path(name))) for name in sorted(sources.files()))
    except TensorcastError as error:
        yield f"custom {custom}", str(error)


def _content(file: Path) -> str:
    return _digest(file.read_bytes()) if file.is_file() else "none"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Lists of texts and numbers, equal for equal values; unlike the repr of a set, in every process."""
    if is_dataclass(value):
        return [(each.name, _plain(getattr(value, each.name))) for each in fields(value)]
    if isinstance(value, Mapping):
        return sorted((repr(key), _plain(item)) for key, item in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
