"""What a sweep covers: a union of products of axes, cut into shards that one deployed model prices together.

An axis is an option of `simulate` with the values that it takes; None leaves the option out. `Space.of` takes them from
Python, `Space.read` from a YAML file; `a * b` is every configuration of `a` with every one of `b`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tensorcast.errors import InputError
from tensorcast.options import SHARES, SWITCHES, flag, short_name
from tensorcast.search.axes import values
from tensorcast.search.evaluation.cases import VARIABLES

MOST_CONFIGURATIONS = 10**9
MOST_ROWS = 1 << 18
"""Configurations of a shard."""
NO_GRAPH = ("micro_batches", "runtime", "pp", "hw")
"""Options whose values mostly share one graph: they vary fastest, so that groups with equal graphs are neighbours."""
DEFAULTS = {
    "tp": 1, "ep": 1, "dp": 1, "pp": 1, "sp": 1, "quant": "auto", "kv_cache_dtype": "auto",
    **dict.fromkeys(SWITCHES, False), "reuse": True, "custom_dir": True,
}  # fmt: skip
"""What leaving an option out means, where that is the same for every model."""

Axes = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Shard:
    """Rows `start` … `stop` - 1 of one group: the options in `fixed`, and the product of `axes`, the first slowest.

    `axes`: options of `cases.VARIABLES` → their values. `options`: all that the space names. Plain values can be sent
    to another process; a model given as an object only where it can be pickled.
    """

    index: int
    fixed: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    start: int
    stop: int
    options: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return self.stop - self.start

    def variables(self) -> dict[str, np.ndarray]:
        """Each option of `axes` → its values, one a row."""
        number = np.arange(self.start, self.stop)
        found = {}
        for name, axis in reversed(self.axes.items()):
            number, place = np.divmod(number, len(axis))
            found[name] = np.asarray(axis, dtype=float if name in SHARES else np.int64)[place]
        return dict(reversed(found.items()))


class Space:
    """Configurations, each once. `len(space)` counts them; iterate over `space.shards()`."""

    def __init__(self, products: Iterable[Axes]) -> None:
        """A union of products; what a later one shares with an earlier one is left out of it. InputError: too many."""
        self.products: list[Axes] = []
        for axes in products:
            rest = [axes]
            for earlier in self.products[:]:
                rest = [part for axes in rest for part in _without(axes, earlier)]
            self.products += rest
        if self._count > MOST_CONFIGURATIONS:
            raise InputError(f"{self._count:,} configurations; give at most {MOST_CONFIGURATIONS:,}")

    @classmethod
    def of(cls, **options: Any) -> Space:
        """Options of `tc.simulate` → a value, or a list, tuple, range or array of values.

        A number may be a text of values and ranges too: "1,2,8:64:x2" (ranges.py). Where one value is a list
        by nature (exclude, kernel, image, seq_lens, custom, no_plugin), a list of lists gives several. InputError.
        """
        axes: Axes = {}
        for asked, value in options.items():
            if value is None:
                continue
            name, value = _renamed(asked, value)
            if name in axes:
                raise InputError(f"{flag(asked)}: given twice, as {flag(name)} too; give it once")
            axes[name] = values.axis(name, value)
        return cls([axes])

    @classmethod
    def read(cls, path: str | os.PathLike) -> Space:
        """The space of a YAML file: options → values as for `of`, or a list of such mappings, whose union it is."""
        from tensorcast.search.axes.file import content

        found = content(path)
        try:
            return cls(axes for part in found for axes in cls.of(**part).products)
        except InputError as error:
            raise InputError(f"{Path(path).name}: {error}") from None

    def __mul__(self, other: Space) -> Space:
        """Every configuration of one with every configuration of the other; InputError where both name an option."""
        if twice := [name for name in self.options if name in other.options]:
            raise InputError(f"{flag(twice[0])} is given twice, as a flag and in the space; give it once")
        return Space({**one, **two} for one in self.products for two in other.products)

    def check(self) -> None:
        """InputError unless every configuration has a model and a machine."""
        for axes in self.products:
            if None in _axis(axes, "model") and None in _axis(axes, "custom"):
                raise InputError("--model is missing: give a name, a folder or a config.json, or --custom")
            if None in _axis(axes, "hw"):
                raise InputError("no machine; give hw (--hw), a known name or a YAML file")
        if not self.products:
            raise InputError("the space is empty; give a model (--model) and a machine (--hw)")

    @property
    def _count(self) -> int:
        return sum(_size(axes) for axes in self.products)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def options(self) -> tuple[str, ...]:
        """Every option that the space names, in order."""
        return tuple(dict.fromkeys(name for axes in self.products for name in axes))

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The options that are not the same in all configurations."""
        found = {name: {_key(name, v) for axes in self.products for v in _axis(axes, name)} for name in self.options}
        return tuple(name for name, keys in found.items() if len(keys) > 1)

    @cached_property
    def plain(self) -> bool:
        """Whether all values are texts, numbers and lists of them: no model and no machine given as an object."""
        return all(_is_plain(value) for axes in self.products for axis in axes.values() for value in axis)

    @cached_property
    def digest(self) -> str:
        """Equal for equal spaces; InputError unless `plain`."""
        if not self.plain:
            raise InputError("a model given as an object cannot be told from another; give a name or a file")
        axes = [(name, axis) for product in self.products for name, axis in product.items()]
        said = [len(self.products), *([name, [_key(name, value) for value in axis]] for name, axis in axes)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]

    @cached_property
    def groups(self) -> int:
        """Deployed models with their machines."""
        return sum(_size({n: axis for n, axis in axes.items() if n not in VARIABLES}) for axes in self._parts())

    def shards(self, most: int = MOST_ROWS) -> Iterator[Shard]:
        """All configurations, at most `most` in a shard; groups in the order of the options as given.

        The batch varies slowest among the rows of a group, `hw` and `pp` fastest among the groups (`NO_GRAPH`).
        """
        number = itertools.count()
        for axes in self._parts():
            fixed = sorted(
                (n for n in axes if n not in VARIABLES), key=lambda n: NO_GRAPH.index(n) if n in NO_GRAPH else -1
            )
            varied = {n: axes[n] for n in sorted((n for n in axes if n in VARIABLES), key=lambda n: n != "batch")}
            rows = _size(varied)
            for chosen in itertools.product(*(axes[name] for name in fixed)):
                told = {name: value for name, value in zip(fixed, chosen, strict=True) if value is not None}
                for start in range(0, rows, most):
                    yield Shard(next(number), told, varied, start, min(start + most, rows), self.options)

    def _parts(self) -> Iterator[Axes]:
        """The products, cut where a variable is left out of some configurations: its column has numbers only."""
        for axes in self.products:
            parts = [axes]
            for name in [n for n in axes if n in VARIABLES and None in axes[n]]:
                rest = tuple(value for value in axes[name] if value is not None)
                without = [{n: axis for n, axis in part.items() if n != name} for part in parts]
                parts = without + [{**part, name: rest} for part in parts if rest]
            yield from parts


def _late(name: str) -> int:
    return NO_GRAPH.index(name) if name in NO_GRAPH else -1


def _renamed(asked: str, value: Any) -> tuple[str, Any]:
    """(short name, value), with the options that say no turned round."""
    if asked in ("no_reuse", "no_custom_dir"):
        said = value if isinstance(value, (list, tuple)) else [value]
        return asked.removeprefix("no_"), [not each if isinstance(each, bool) else each for each in said]
    return short_name(asked), value


def _size(axes: Axes) -> int:
    return math.prod(map(len, axes.values()))


def _axis(axes: Axes, name: str) -> tuple[Any, ...]:
    return axes.get(name, (None,))


def _without(axes: Axes, other: Axes) -> Iterator[Axes]:
    """Products that are, each configuration once, those of `axes` that are not in `other`."""
    inside = dict(axes)
    for name in dict.fromkeys((*axes, *other)):
        theirs = {_key(name, value) for value in _axis(other, name)}
        both = tuple(value for value in _axis(axes, name) if _key(name, value) in theirs)
        apart = tuple(value for value in _axis(axes, name) if _key(name, value) not in theirs)
        if apart:
            yield {**inside, name: apart} if name in axes else dict(inside)
        if not both:
            return
        if name in axes:
            inside[name] = both


def _key(name: str, value: Any) -> str:
    """Equal for values that mean the same."""
    if value is None:
        value = DEFAULTS.get(name)
    return json.dumps(value, sort_keys=True, default=str) if _is_plain(value) else f"object {id(value)}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))
