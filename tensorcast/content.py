"""Where the folders a user adds to are found: hardware profiles, drop-in models, report templates."""

from __future__ import annotations

import os
from pathlib import Path

from tensorcast.errors import InputError, UnknownNameError

KINDS = ("hardware_profiles", "custom_model", "reports")
LONGEST = 255  # bytes that a file system takes for one part of a path


def folder(kind: str) -> list[Path]:
    """The existing folders of `kind`, in the order they are searched, without duplicates.

    First the current directory's own, then what ships with TensorCast: the checkout's folder in a development
    install, the copy inside the package in an installed wheel. `UnknownNameError` for a kind not in `KINDS`.
    """
    if kind not in KINDS:
        raise UnknownNameError("content folder", kind, KINDS, f"one of {', '.join(KINDS)}")
    found: list[Path] = []
    for candidate in (Path.cwd() / kind, shipped_root() / kind):
        if candidate.is_dir() and not any(candidate.samefile(other) for other in found):
            found.append(candidate)
    return found


def path_of(text: str | Path, what: str) -> Path:
    """The path that a user wrote, `~` expanded; InputError, naming `what` it is of, for one that no file can have."""
    path = Path(text)
    if "\0" in str(path) or any(len(os.fsencode(part)) > LONGEST for part in path.parts):
        raise InputError(f"{what} {str(text)[:20]!r}…: no file can have that name ({len(str(text)):,} characters)")
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(f"{what} {str(text)!r}: there is no such user's home folder") from None


def shipped_root() -> Path:
    """The folder that holds the shipped content: `tensorcast/_content` in a wheel, else the checkout's root."""
    package = Path(__file__).resolve().parent
    inside = package / "_content"
    return inside if inside.is_dir() else package.parent
