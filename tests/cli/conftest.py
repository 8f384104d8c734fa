"""Running the command with a ready-made estimate in the place of a simulation."""

from __future__ import annotations

import sys
import types

import pytest

from tests.report.sample import sample


class FakeEstimate:
    def __init__(self, content: dict) -> None:
        self.content = content

    def to_dict(self) -> dict:
        return self.content


@pytest.fixture
def simulated(monkeypatch) -> dict:
    """What the fake simulation was asked for (`request`) and answers (`estimate`)."""
    state: dict = {"estimate": sample()}

    def simulate(**request: object) -> FakeEstimate:
        state["request"] = request
        return FakeEstimate(state["estimate"])

    module = types.ModuleType("tensorcast.estimate")
    module.simulate = simulate
    monkeypatch.setitem(sys.modules, "tensorcast.estimate", module)
    return state
