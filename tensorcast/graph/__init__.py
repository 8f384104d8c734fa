"""ComputeGraph: a model described in one file by named operators on named weights."""

from __future__ import annotations

from typing import Any


class ComputeGraph:
    """Base of a described model; subclasses override `build`."""

    def build(self) -> None:
        raise NotImplementedError


def is_graph(value: Any) -> bool:
    """Whether `value` is a ComputeGraph class or object, or one of its make: `build()` and `graph`."""
    named = value if isinstance(value, type) else type(value)
    return issubclass(named, ComputeGraph)
