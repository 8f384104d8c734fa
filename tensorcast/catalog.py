"""One class for everything that is known by name: models, profiles, pipelines, kernels, operators, machines.

A `Catalog` maps keys to values, remembers the source line that registered each, and answers the same way whatever
the order of registration: an exact key first, then the most specific pattern, and an error when two patterns fit
equally well.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from tensorcast.errors import AmbiguousMatchError, DuplicateError, InputError, UnknownNameError

T = TypeVar("T")

# Not resolved: code objects carry the path as it was imported, through a symbolic link or not.
_PACKAGE = os.path.join(os.path.dirname(__file__), "")
_BRACKET = re.compile(r"\[!?\]?[^\]]*\]")
_ALL: WeakSet[Catalog] = WeakSet()
_ORIGIN: ContextVar[str] = ContextVar("tensorcast_origin", default="")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a catalog.

    `origin` is for people: "custom_model/my.py:3", "my_package 0.1" or "builtin". `location` is the exact source
    line, absolute. `replaces` is the origin of what a `replace=True` displaced, or None; `displaced` that entry.
    """

    key: str
    value: T
    origin: str
    replaces: str | None = None
    location: str = ""
    displaced: Entry[T] | None = field(default=None, repr=False, compare=False)


class Catalog(Generic[T]):
    """Values by name.

    `noun` names an entry in messages ("kernel"). `patterns` allows keys with `*`, `?` and `[…]`. `normalize` is
    applied to keys and names alike, so that spellings meet. `how` ends the message about an unknown name; by
    default it points to `tensorcast list`.
    """

    def __init__(
        self,
        noun: str,
        *,
        patterns: bool = False,
        normalize: Callable[[str], str] = str,
        how: str | None = None,
    ) -> None:
        self.noun = noun
        self._patterns = patterns
        self._normalize = normalize
        self._how = f"list them with `tensorcast list {noun.split()[-1]}s`" if how is None else how
        # Writers replace the whole dict under the lock, so that readers need none.
        self._entries: dict[str, Entry[T]] = {}
        self._lock = threading.Lock()
        _ALL.add(self)

    def __repr__(self) -> str:
        return f"Catalog({self.noun!r}, {len(self._entries)} entries)"

    def register(
        self, key: str, value: T, *, replace: bool = False, origin: str | None = None, replaces: str | None = None
    ) -> T:
        """Add `value` under `key` and return it.

        An existing key raises `DuplicateError` naming both source lines, except: `replace=True`; the same source
        line running again (a reload); a notebook cell run again, which prints a note. `origin` overrides the
        caller's file and line (a plugin gives its package and version). `replaces` names what the entry displaces that
        is in no catalog. `InputError` for an unusable key.
        """
        key = self._checked_key(key)
        frame = _registering_frame()
        entry_origin, location, interactive = _describe(frame)
        new = Entry(key, value, origin or _ORIGIN.get() or entry_origin, replaces, location)
        with self._lock:
            old = self._entries.get(key)
            if old is not None:
                new = self._succeed(old, new, replace, interactive)
            self._entries = {**self._entries, key: new}
        return value

    def match(self, name: str) -> str | None:
        """The key that `get(name)` would use, or None; `AmbiguousMatchError` when two patterns fit equally well."""
        entry = self._lookup(name)
        return None if entry is None else entry.key

    def get(self, name: str) -> T:
        """The value for `name`; `UnknownNameError` when nothing matches."""
        entry = self._lookup(name)
        if entry is None:
            raise UnknownNameError(self.noun, name, self._entries, self._how)
        return entry.value

    def find(self, name: str) -> T | None:
        """The value for `name`, or None when nothing matches."""
        entry = self._lookup(name)
        return None if entry is None else entry.value

    def entries(self) -> list[Entry[T]]:
        """All entries, sorted by key."""
        return sorted(self._entries.values(), key=lambda entry: entry.key)

    @contextmanager
    def isolated(self) -> Iterator[Catalog[T]]:
        """Undo on exit whatever is registered inside (tests, notebooks)."""
        saved = self._entries
        try:
            yield self
        finally:
            with self._lock:
                self._entries = saved

    def _checked_key(self, key: str) -> str:
        if not isinstance(key, str) or not key.strip():
            raise InputError(f"a {self.noun} key must be a non-empty string, not {key!r}")
        if not is_pattern(key):
            return self._normalize(key)
        if not self._patterns:
            raise InputError(f"{self.noun} {key!r}: patterns are not allowed here, register the exact name")
        return _normalize_pattern(key, self._normalize)

    def _succeed(self, old: Entry[T], new: Entry[T], replace: bool, interactive: bool) -> Entry[T]:
        """`new` in the place of `old`, or `DuplicateError`."""
        if new.location == old.location and not interactive:  # a reloaded line stands where it stood
            return dataclasses.replace(new, replaces=old.replaces, displaced=old.displaced)
        if interactive and not replace:
            print(f"note: {self.noun} {new.key!r} registered again, replaces {old.origin}", file=sys.stderr)
        if replace or interactive:
            return dataclasses.replace(new, replaces=old.origin, displaced=old)
        raise DuplicateError(
            f"{self.noun} {new.key!r} is registered twice: at {_shown(old)} and at {_shown(new)}; "
            "rename one, or pass replace=True"
        )

    def _lookup(self, name: str) -> Entry[T] | None:
        if not isinstance(name, str):
            raise InputError(f"a {self.noun} name must be a string, not {name!r}")
        entries, wanted = self._entries, self._normalize(name)
        # A pattern's own text is never an exact key: asked for "deepseek_*", nobody means one model.
        if wanted in entries and not is_pattern(wanted):
            return entries[wanted]
        if not self._patterns:
            return None
        fits = [entry for key, entry in entries.items() if is_pattern(key) and fnmatchcase(wanted, key)]
        if not fits:
            return None
        fits.sort(key=lambda entry: (specificity(entry.key), entry.key))
        if len(fits) > 1 and specificity(fits[0].key) == specificity(fits[1].key):
            first, second = fits[:2]
            raise AmbiguousMatchError(
                f"{self.noun} {name!r} fits {first.key!r} ({_shown(first)}) and {second.key!r} ({_shown(second)}) "
                f"equally well; register {wanted!r} itself or make one pattern more specific"
            )
        return fits[0]


def snapshot() -> dict[Catalog, dict[str, Entry[Any]]]:
    """What every catalog holds now: built-ins that are imported later make no difference."""
    return {catalog: _own(catalog) for catalog in list(_ALL) if _own(catalog)}


def _own(catalog: Catalog) -> dict[str, Entry[Any]]:
    return {key: entry for key, entry in catalog._entries.items() if entry.origin != "builtin"}


def forget(files: Collection[str]) -> None:
    """Take back what source lines of `files` registered: the files are about to run again."""
    for catalog in list(_ALL):
        kept = {key: _before(entry, files) for key, entry in catalog._entries.items()}
        if kept != catalog._entries:
            catalog._entries = {key: entry for key, entry in kept.items() if entry is not None}


def _before(entry: Entry[Any] | None, files: Collection[str]) -> Entry[Any] | None:
    """The entry, or what stood in its place before a line of `files` displaced it."""
    while entry is not None and entry.location.rpartition(":")[0] in files:
        entry = entry.displaced
    return entry


def restore(saved: Mapping[Catalog, dict[str, Entry[Any]]]) -> None:
    """Every catalog as it was; built-ins that were imported since stay, as their modules do."""
    for catalog in list(_ALL):
        kept = {key: entry for key, entry in catalog._entries.items() if entry.origin == "builtin"}
        catalog._entries = {**kept, **saved.get(catalog, {})}


@contextmanager
def restored_on_error() -> Iterator[None]:
    """Whatever is registered inside is taken back when an exception passes: all of it or nothing."""
    saved = {catalog: catalog._entries for catalog in list(_ALL)}
    try:
        yield
    except BaseException:
        restore(saved)
        raise


@contextmanager
def registered_by(origin: str) -> Iterator[None]:
    """While inside, entries are shown as coming from `origin` (a package and its version)."""
    token = _ORIGIN.set(origin)
    try:
        yield
    finally:
        _ORIGIN.reset(token)


def normalize_model_type(name: str) -> str:
    """The one spelling of a model type.

    >>> normalize_model_type("DeepSeek-V3.2 Exp")
    'deepseek_v3_2_exp'
    """
    return re.sub(r"[-. ]", "_", name.strip().lower())


def is_pattern(key: str) -> bool:
    """Whether `key` has a wildcard.

    >>> is_pattern("deepseek_*"), is_pattern("deepseek_v3")
    (True, False)
    """
    return "*" in key or "?" in key or "[" in key  # a lookup asks this every time


def specificity(pattern: str) -> tuple[int, int, int, int]:
    """Sort key of a pattern, smallest is the most specific: most literal characters, then fewest `*`, `?`, `[…]`.

    >>> specificity("deepseek_v?") < specificity("deepseek_v*")
    True
    """
    plain, brackets = _BRACKET.subn("", pattern)
    stars, marks = plain.count("*"), plain.count("?")
    return -(len(plain) - stars - marks), stars, marks, brackets


def _normalize_pattern(pattern: str, normalize: Callable[[str], str]) -> str:
    """`normalize` outside of brackets and on each character of a bracket, whose range dashes keep their meaning."""

    def bracket(text: str) -> str:
        inner = text[1:-1]
        negation = "!" if inner.startswith("!") else ""
        inner = inner[len(negation) :]
        last = len(inner) - 1
        return f"[{negation}{''.join(c if c == '-' and 0 < i < last else normalize(c) for i, c in enumerate(inner))}]"

    parts, position = [], 0
    for found in _BRACKET.finditer(pattern):
        parts += [normalize(pattern[position : found.start()]), bracket(found.group())]
        position = found.end()
    return "".join([*parts, normalize(pattern[position:])])


def _registering_frame() -> FrameType | None:
    """The frame that asked for the registration: the first outside of tensorcast, or a tensorcast module's body.

    Decorators such as `register_custom_model` lie between the user's line and the catalog, hence the walk.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        ours = _is_ours(frame)
        if not ours or (frame.f_code.co_name == "<module>" and frame.f_code.co_filename != __file__):
            return frame
        frame = frame.f_back
    return None


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _describe(frame: FrameType | None) -> tuple[str, str, bool]:
    """(origin for people, exact location, whether a notebook cell or prompt) of a frame."""
    if frame is None:
        return "builtin", "builtin", False
    filename = frame.f_code.co_filename
    location = f"{filename}:{frame.f_lineno}"
    # A tensorcast module's body is built in; so is a function of ours that ran while a module of ours was imported.
    if _is_ours(frame) or filename.startswith("<frozen importlib"):
        return "builtin", location, False
    interactive = frame.f_globals.get("__name__") == "__main__" and "__file__" not in frame.f_globals
    if not filename.startswith("<"):
        location = f"{Path(filename).absolute()}:{frame.f_lineno}"
    return _relative(location), location, interactive


def _relative(location: str) -> str:
    """`location` relative to the current directory where it lies below it."""
    try:
        return str(Path(location).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return location


def _shown(entry: Entry[T]) -> str:
    """Where an entry comes from, for a message that must name a source line."""
    return entry.origin if entry.origin != "builtin" else f"builtin ({entry.location})"
