"""The values of one axis, from what Python or a file gives: each of the option's own kind, each once."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from reprlib import repr as short
from typing import Any

from tensorcast.errors import InputError
from tensorcast.options import LISTS, SHARES, SWITCHES, WHOLE, flag
from tensorcast.search.axes.ranges import MOST_VALUES, numbers

LARGEST = 1 << 62  # of whole numbers: they stand in columns of 64 bits


def axis(name: str, given: Any) -> tuple[Any, ...]:
    """The values of the option `name`, in order, each once; None leaves it out. InputError."""
    alternatives = _alternatives(name, given)
    if len(alternatives) > MOST_VALUES:
        raise InputError(f"{flag(name)}: {len(alternatives):,} values; give at most {MOST_VALUES:,}")
    found = [value for each in alternatives for value in _values(name, each)]
    if not found:
        raise InputError(f"{flag(name)}: an empty list; give a value, or leave the option out")
    return distinct(found)


def distinct(found: Iterable[Any]) -> tuple[Any, ...]:
    """Each value once, where it stands first; 1 and True and 1.0 are three values."""
    first: dict[Any, Any] = {}
    for value in found:
        written = isinstance(value, (tuple, Mapping))
        plain = isinstance(value, (str, int, float, type(None)))
        first.setdefault(repr(value) if written else (type(value), value if plain else id(value)), value)
    return tuple(first.values())


def _alternatives(name: str, given: Any) -> list[Any]:
    """What is given for one configuration after the other."""
    if hasattr(given, "tolist"):
        given = given.tolist()  # an array or a column of a frame
    if isinstance(given, (set, frozenset)):
        raise InputError(f"{flag(name)} {short(given)}: a set has no order; give a list")
    if not isinstance(given, (list, tuple, range)):
        return [given]
    if isinstance(given, range) and len(given) > MOST_VALUES:
        raise InputError(f"{flag(name)}: {len(given):,} values; give at most {MOST_VALUES:,}")
    given = [value.tolist() if type(value).__module__ == "numpy" else value for value in given]
    several = name not in LISTS or any(value is None or isinstance(value, (list, tuple, Mapping)) for value in given)
    return given if several else [given]


def _values(name: str, given: Any) -> Iterable[Any]:
    """The values that one alternative stands for: several, where it is a text of numbers."""
    if given is None:
        return (None,)
    if name in WHOLE or name in SHARES:
        return _numbers(name, given)
    return (_value(name, given),)


def _numbers(name: str, given: Any) -> Iterable[Any]:
    whole = name in WHOLE
    if isinstance(given, str):
        try:
            found = numbers(given, whole=whole)
        except InputError as error:
            raise InputError(f"{flag(name)}: {error}") from None
    else:
        found = (given,)
    for value in found:
        fit = isinstance(value, int) and abs(value) < LARGEST if whole else isinstance(value, (int, float))
        if value is not None and (isinstance(value, bool) or not fit or not math.isfinite(value)):
            what = "a whole number" if whole else "a number"
            raise InputError(f"{flag(name)} {short(value)}: {what}, a list of them, or a range such as '1:512:x2'")
    return found if whole else [None if value is None else float(value) for value in found]


def _value(name: str, given: Any) -> Any:
    if isinstance(given, os.PathLike):
        given = os.fspath(given)
    if name in SWITCHES:
        if not isinstance(given, bool):
            raise InputError(f"{flag(name)} {short(given)}: true or false")
        return given
    if name in LISTS:
        return _list(name, given)
    if name == "overrides" and not isinstance(given, Mapping):
        raise InputError(f'--set {short(given)}: a mapping such as {{"num_hidden_layers": 4}}, or a list of them')
    if name not in ("model", "hw", "overrides") and not isinstance(given, str):
        raise InputError(f"{flag(name)} {short(given)}: a text or a list of texts")
    if isinstance(given, str) and not given.strip():
        raise InputError(f"{flag(name)}: an empty text; give a value, or leave the option out")
    return given


def _list(name: str, given: Any) -> Any:
    """One value that is a list by nature, as a tuple; a mapping of kernels as texts."""
    if name == "kernel" and isinstance(given, Mapping):
        given = [f"{key}={value}" for key, value in given.items()]
    items = [given] if isinstance(given, (str, int)) else given
    items = [os.fspath(item) if isinstance(item, os.PathLike) else item for item in items]
    kind, what = (int, "whole numbers") if name == "seq_lens" else (str, "texts")
    if not items or not all(isinstance(item, kind) and not isinstance(item, bool) for item in items):
        raise InputError(f"{flag(name)} {short(given)}: a list of {what}, or a list of such lists")
    return tuple(items)
