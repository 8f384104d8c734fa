"""tensorcast.toml: choices that hold for every simulation started in a folder. No torch.

    [kernels]
    attention = "flash"
    "rms_norm@*.q_norm" = "eager"

Keys and values as after `--kernel`; the command line outranks the file. The file of the current directory is read
unless another is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorcast.errors import InputError, near_names
from tensorcast.kernels.choice import KernelRequest

NAME = "tensorcast.toml"
TABLES = ("kernels",)


def kernels_of(named: str | os.PathLike | None) -> tuple[KernelRequest, ...]:
    """The kernels that the file `named` asks for, or ./tensorcast.toml; nothing where neither is."""
    if named is None and not Path(NAME).is_file():
        return ()
    if named is not None and (not isinstance(named, (str, os.PathLike)) or not str(named).strip()):
        raise InputError(f"--config {named!r}: the path of a file such as {NAME}")
    path = Path(NAME if named is None else named)
    tables = read(path)
    return KernelRequest.table(tables.get("kernels", {}), "config", f"{path}, [kernels]")


def read(path: Path) -> dict[str, Mapping[str, Any]]:
    """The tables of a configuration file, checked; InputError naming the file and what is wrong."""
    try:
        content = _toml().loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise InputError(f"--config {path}: {reason.strerror or reason}") from None
    except ValueError as reason:  # no TOML, or no text
        raise InputError(f"{path}: {' '.join(str(reason).split())}") from None
    for name, table in content.items():
        if name not in TABLES:
            near = near_names(name, TABLES, 1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise InputError(f"{path}: unknown table or key {name!r}{hint}; it may have {', '.join(TABLES)}")
        if not isinstance(table, Mapping):
            raise InputError(f'{path}: {name} must be a table, as in [{name}] and below it attention = "flash"')
    return content


def _toml():
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib
    return tomllib
