"""Folders of small pipelines."""

from __future__ import annotations

import pytest

from tests.models.pipelines import FLUX, FLUX_PARTS, WAN, WAN_PARTS, written


@pytest.fixture
def flux(tmp_path):
    return written(tmp_path / "flux", FLUX, FLUX_PARTS)


@pytest.fixture
def wan(tmp_path):
    return written(tmp_path / "wan", WAN, WAN_PARTS)
