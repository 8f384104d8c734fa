"""User code in a folder of its own, with nothing of it left registered afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tensorcast.custom import plugins


@pytest.fixture(autouse=True)
def clean(own_folder):
    """Every test has a folder of its own and looks for plugins anew."""
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()


@pytest.fixture
def write(tmp_path) -> Callable[[str, str], Path]:
    """Write a file below the current directory."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write
