"""Served models: what an engine adds to a step, batches that change while they run, and tables of served models."""

from __future__ import annotations

from tensorcast.serving.engines import ENGINES, Engine, engine_named

__all__ = ["ENGINES", "Engine", "engine_named"]
