"""Cases of a survey that `make nightly` runs: those that show little that the others do not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def later(cases: Iterable[Any], nightly: Collection[Any]) -> list[Any]:
    """The cases as parameters, those in `nightly` marked so; every name in it must be a case."""
    cases = list(cases)
    unknown = [name for name in nightly if name not in cases]
    assert not unknown, f"no such case: {unknown}"
    return [pytest.param(case, marks=pytest.mark.nightly) if case in nightly else case for case in cases]
