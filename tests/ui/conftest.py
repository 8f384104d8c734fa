"""The web application, called in this process."""

from __future__ import annotations

import pytest

import tensorcast as tc


class Here:
    """A tracer of this process."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.expected: list[dict] = []

    def trace(self, options: dict) -> None:
        self.asked.append(dict(options))
        tc.simulate(**options)

    def expect(self, options) -> None:
        self.expected = list(options)


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def client(here):
    pytest.importorskip("fastapi", reason="needs the extra `ui`")
    from starlette.testclient import TestClient

    from tensorcast.ui.answers import Answers
    from tensorcast.ui.server import application

    answers = Answers({"custom_dir": False}, here)
    with TestClient(application(answers), base_url="http://127.0.0.1:8765") as client:
        yield client
