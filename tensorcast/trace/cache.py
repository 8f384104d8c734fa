"""Deployed models on disk, so that asking again needs no torch. JSON files, written whole or not at all.

The key covers everything the content depends on: the model's configuration, the deployment, the versions of torch and
transformers, and TensorCast's own code (sizes and times of its files). An entry is a line with format, key and digest,
and the model as JSON; one that cannot be read, or was changed since it was written, is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from tensorcast.deployed import DeployedModel

_FORMAT = 4
_PACKAGES = ("torch", "transformers", "diffusers")
_CATALOGS = (
    ("tensorcast.pipelines", "PIPELINES"),
    ("tensorcast.pipelines", "PROFILES"),
    ("tensorcast.kernels.registry", "KERNELS"),
    ("tensorcast.ops.base", "OPERATORS"),
    ("tensorcast.models.builders", "BUILDERS"),
    ("tensorcast.vision.rules", "IMAGE_RULES"),
)
_TORCH_SIDE = (
    "custom",
    "diffusion",
    "graph",
    "kernels",
    "layers",
    "models",
    "nn",
    "ops",
    "quantization",
    "trace",
    "vision",
)


def folder() -> Path:
    """TENSORCAST_CACHE, or the user's cache folder."""
    named = os.environ.get("TENSORCAST_CACHE")
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("tensorcast")


def key_of(request: Mapping, stamped: Collection[str] = ()) -> str:
    """Digest of a request (plain values only) and of the code that would answer it, the user's included.

    `stamped` are files of user code that the request itself identifies.
    """
    text = json.dumps([_FORMAT, request, _environment(), _registered(stamped)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load(key: str) -> tuple[DeployedModel | None, str]:
    """The entry, or None; and a note when one was there but unusable."""
    path = _path(key)
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if json.loads(head) != _head(key, body):
            raise ValueError("another format, or changed since it was written")
        return DeployedModel.from_dict(json.loads(body)), ""
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        return None, f"cache entry {path.name} was unusable ({type(reason).__name__}) and has been rebuilt"


def known(key: str) -> bool:
    """Whether there is an entry."""
    return _path(key).exists()


def save(key: str, model: DeployedModel) -> str:
    """Write the entry; returns a note when that was not possible (the answer does not depend on it)."""
    path = _path(key)
    body = json.dumps(model.to_dict(), separators=(",", ":")).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(_head(key, body)).encode() + b"\n" + body)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as reason:
        why = reason.strerror or reason
        return f"the traced model could not be cached in {path.parent} ({why}); set TENSORCAST_CACHE"
    return ""


def _head(key: str, body: bytes) -> dict:
    return {"format": _FORMAT, "key": key, "sha256": hashlib.sha256(body).hexdigest()}


def info() -> dict:
    """Where the cache is, how many entries it has and how many bytes they take."""
    entries = _entries()
    return {"folder": str(folder()), "entries": len(entries), "bytes": sum(p.stat().st_size for p in entries)}


def clear() -> int:
    """Remove every entry; returns how many there were."""
    entries = _entries()
    for path in entries:
        path.unlink(missing_ok=True)
    return len(entries)


def _entries() -> list[Path]:
    return sorted(folder().glob("table-*.json"))


def _path(key: str) -> Path:
    return folder() / f"table-{key}.json"


@cache
def _environment() -> list:
    from importlib.metadata import PackageNotFoundError, version

    package = Path(__file__).parent.parent
    files = [p for room in _TORCH_SIDE for p in sorted((package / room).rglob("*.py"))]
    files += sorted(package.glob("*.py"))
    stamps = [(str(p.relative_to(package)), (s := p.stat()).st_size, s.st_mtime_ns) for p in files]
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(version(name))
        except PackageNotFoundError:
            versions.append("")
    return [hashlib.sha256(repr(stamps).encode()).hexdigest(), versions]


def _registered(stamped: Collection[str]) -> list:
    """Every entry that is neither ours nor `stamped`: its name, its source line and when that file was last changed.

    What was registered at a prompt has no file to look at; it is taken for new in every process.
    """
    out = []
    for module, name in _CATALOGS:
        if module not in sys.modules:  # nobody can have registered anything there
            continue
        for entry in getattr(sys.modules[module], name).entries():
            file = entry.location.rpartition(":")[0]
            if entry.origin == "builtin" or file in stamped:
                continue
            try:
                stamp = os.stat(file).st_mtime_ns
            except OSError:
                stamp = (os.getpid(), id(entry.value))
            out.append((name, entry.key, entry.location, stamp))
    return out
