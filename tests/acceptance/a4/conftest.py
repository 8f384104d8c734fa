"""User code in a folder of its own, with nothing of it left registered afterwards."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean(own_folder):
    """Every test has a folder of its own."""
