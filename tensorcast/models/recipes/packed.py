"""Recipe of packed models."""

from __future__ import annotations

from tensorcast.models.recipes import Recipe, Wanted
from tensorcast.models.reference import ModelSource


def recipe(source: ModelSource, wanted: Wanted) -> Recipe | None:
    return None
