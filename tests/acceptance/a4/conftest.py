"""User code in a folder of its own, with nothing of it left registered afterwards."""

from __future__ import annotations

import pytest

from tensorcast.cli.main import cli


@pytest.fixture(autouse=True)
def clean(own_folder):
    """Every test has a folder of its own."""


@pytest.fixture
def run(capsys):
    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(args), "tensorcast")
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
