"""Experts whose own code runs all of them: a profile says what a serving engine runs, or the model is refused."""

from __future__ import annotations

import pytest

from tensorcast.errors import ModelError
from tensorcast.models.reference import resolve_model
from tensorcast.pipelines import ModelProfile
from tests.verify.deployed import deploy


def test_experts_without_routing_need_a_profile(monkeypatch):
    monkeypatch.setattr("tensorcast.transformer_model.get_model_profile", lambda kind: ModelProfile(model_type=kind))
    with pytest.raises(ModelError, match=r"Llama4TextExperts takes no routing.*moe_block_forward") as refused:
        deploy(resolve_model("llama-4-scout", layers=2))
    assert "\n" not in str(refused.value)
