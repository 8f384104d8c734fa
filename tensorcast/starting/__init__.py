"""Starting files: what `tensorcast new` writes, from templates and from what is known of another model or machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorcast.errors import InputError

TEMPLATES = Path(__file__).parents[1] / "templates"


def rendered(template: str, **values: object) -> str:
    """The text of a template with its values; a value that the template names and nobody gave is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.get_template(f"{template}.jinja").render(**values)


def write_all(files: Mapping[Path, str], *, force: bool) -> None:
    """Write all files or none; one that exists is an InputError unless `force`."""
    from tensorcast.cli.output import write_atomic

    for path in files:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; choose another name")
        if path.exists() and not force:
            raise InputError(f"{path}: exists; --force replaces it, or choose another name")
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    done: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            done.append(path)
            write_atomic(str(path), text)
    except BaseException as fault:
        for path in done:
            _restore(path, before[path])
        if isinstance(fault, OSError):
            raise InputError(f"{done[-1]}: cannot be written: {fault.strerror or fault}") from fault
        raise


def _restore(path: Path, content: bytes | None) -> None:
    with suppress(OSError):
        if content is not None:
            path.write_bytes(content)
        elif path.exists():
            os.unlink(path)
