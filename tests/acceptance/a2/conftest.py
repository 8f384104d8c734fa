"""transformers' tables as they were before a test, and a class that is registered in them."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoModel

from tests.acceptance.hand_written import CustomConfig, CustomModel


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty folder, a cache of its own, and transformers' tables as they were."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tensorcast.models.objects import model_mappings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / "cache"))
    tables = [CONFIG_MAPPING, *model_mappings()]
    before = [dict(table._extra_content) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table._extra_content.clear()
        table._extra_content.update(content)


@pytest.fixture
def registered():
    AutoConfig.register("hand_written", CustomConfig)
    AutoModel.register(CustomConfig, CustomModel)
