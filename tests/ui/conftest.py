"""The web application, called in this process."""

from __future__ import annotations

import pytest

import tensorcast as tc


class Here:
    """A tracer of this process."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.expected: list[dict] = []
        self.wanted: list[bool] = []

    def trace(self, options: dict, wanted=lambda: True) -> None:
        self.asked.append(dict(options))
        self.wanted.append(wanted())
        tc.simulate(**options)

    def expect(self, options) -> None:
        self.expected = list(options.values())


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def client(here):
    pytest.importorskip("fastapi", reason="needs the extra `ui`")
    from starlette.testclient import TestClient

    with TestClient(application(here), base_url="http://127.0.0.1:8765") as client:
        yield client


def application(here: Here):
    from tensorcast.ui import answers, server

    return server.application(answers.Answers({"custom_dir": False}, here))
