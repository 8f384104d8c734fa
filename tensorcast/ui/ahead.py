"""What may be asked next: other values of the control that was moved last, and of what is moved most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensorcast.search.evaluation.cases import VARIABLES
from tensorcast.ui.controls import SCALES, choices

MOST_MOVED = ("tp", "ep")
BESIDE = 2
"""Of what is moved most, so many values that are nearest; of what was moved last, all."""


def neighbours(asked: Mapping[str, Any], moved: str) -> Iterator[dict[str, Any]]:
    """The arguments `asked` of `tc.simulate`, each time with one other value, the likeliest first."""
    others = [(moved, value) for value in _others(moved, asked)]
    others += [(name, value) for name in MOST_MOVED if name != moved for value in _others(name, asked)[:BESIDE]]
    for name, value in others:
        yield {**asked, name: value}


def _others(name: str, asked: Mapping[str, Any]) -> list[Any]:
    """The other values that the control offers, the nearest first; none where no value needs a trace of its own."""
    if name in VARIABLES:
        return []
    stops = SCALES.get(name) or choices(name)
    here = asked.get(name, stops[0] if stops else None)
    at = stops.index(here) if here in stops else 0
    return sorted((stop for stop in stops if stop != here), key=lambda stop: abs(stops.index(stop) - at))
