"""Bounds of `optimize`: no plan is worth more, and leaving plans out by them changes no answer."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import tensorcast as tc
from tensorcast.search.evaluation.group import Group
from tensorcast.search.execution.models import Models
from tensorcast.search.optimization.bounds import Bounds
from tensorcast.search.optimization.objective import Limits
from tensorcast.search.optimization.optimize import GRIDS
from tensorcast.search.optimization.optimum import best_row
from tensorcast.search.optimization.plans import candidate_plans, devices_of
from tensorcast.search.optimization.variant import Variant
from tests.later import later

LLM = Path(__file__).parents[3] / "shared/model_configs/llm"
PLAN = ("tp", "pp", "dp", "ep")
WORK = {"input_len": 1024, "output_len": 64}
DENSE = {"model": "llama-3.1-8b", "hw": "h100-sxm", **WORK}
MOE = {"model": "qwen3-30b-a3b", "hw": "h100-sxm", "layers": 4, **WORK}
BATCH = np.array([1, 3, 8, 64, 512, 2048])


SKEWED = {
    "dense": DENSE,
    "long prompts, two tokens": {"model": "llama-3.1-8b", "hw": "a100-sxm-80g", "input_len": 8192, "output_len": 2},
    "tied embeddings": {"model": "llama-3.2-1b", "hw": "h100-sxm", "input_len": 64, "output_len": 512},
    "int4 weights": {**DENSE, "hw": "h200-sxm", "quant": "w4a16"},
    "Ascend": {**DENSE, "hw": "ascend-910b2", "quant": "w8a8"},
    "MLA, drafts": {"model": "deepseek-v3", "hw": "h200-sxm", "layers": 4, "mtp": 3, "acceptance_rate": 1.0, **WORK},
    "shared caches": {**DENSE, "model": "deepseek-v2-lite", "layers": 4, "dcp": 2},
    "parts of the tokens": {**DENSE, "sequence_parallel": True, "input_len": 64},
    "prefix": {"model": "llama-3.1-8b", "hw": "h100-sxm", "prefix_len": 4095, "input_len": 4096, "output_len": 4},
    "uneven experts": {**MOE, "moe_imbalance": "power-law:1.2"},
    "state space": {
        "model": str(LLM / "nvidia--Nemotron-H-56B-Base-8K_config.json"), "hw": "h200-sxm", "layers": 12, **WORK,
    },
}  # fmt: skip


def unpruned(asked: dict, mode: str, devices: int, batch: np.ndarray, *several: Limits):
    """For each of several limits: (plan, the most its bound allows, its best row) of every plan, each priced alone."""
    variant = Variant(asked, GRIDS[mode], True, Models())
    answer = variant.answer(None)
    columns = {name: np.full(len(batch), value) for name, value in variant.variables.items()} | {"batch": batch}
    plans = [*candidate_plans(answer.facts, devices, 8, {})]
    priced = [Group({**variant.options, **plan}, kind=GRIDS[mode]).columns(columns) for plan in plans]
    for limits in several:
        bounds = Bounds(answer, batch, limits, **variant.within)
        rows = [best_row(p, found, limits, 1.0, {}, devices_of(p)) for p, found in zip(plans, priced, strict=True)]
        yield [(p, bounds.throughput(p)[0], row) for p, row in zip(plans, rows, strict=True) if row is not None]


LATER = {
    "shared caches", "state space", "parts of the tokens", "int4 weights", "tied embeddings",
    "long prompts, two tokens",
}  # fmt: skip


@pytest.mark.parametrize("name", later(SKEWED, LATER))
def test_no_plan_beats_its_bound_and_the_pruned_search_agrees(name: str) -> None:
    asked = SKEWED[name]
    devices = 2 if "experts" in name or "MLA" in name else 4
    if "/" in asked["model"] and not Path(asked["model"]).is_file():
        pytest.skip("the folder of published configurations is not here")
    several = (Limits(), Limits(0.6, 0.02, 0.1))
    modes = ("static",) if "prefix_len" in asked else ("static", "aggregated")
    found_of = {mode: unpruned(asked, mode, devices, BATCH, *several) for mode in modes}
    for mode, limits in itertools.product(modes, several):
        found = next(found_of[mode])
        assert found
        for plan, most, row in found:
            assert row.miss > 0 or row.worth <= most, (mode, limits, plan)
        best = sorted((row for _, _, row in found), key=lambda row: row.order)
        said = {"ttft_s": limits.ttft_s, "tpot_s": limits.tpot_s, "memory_headroom": limits.headroom}
        searched = tc.optimize(**asked, devices=devices, mode=mode, batch=BATCH, top=2, jobs=1, **said)
        met = [row for row in best if row.miss == 0][:2] or best[:1]
        for row, other in zip(searched.rows[: len(met)], met, strict=True):
            assert [row.options[n] for n in PLAN] == [other.options[n] for n in PLAN]
            assert (row.worth, row.miss) == pytest.approx((other.worth, other.miss), rel=1e-12)
            assert row.binding == other.binding


def test_plans_that_are_ruled_out_are_worse_than_those_shown() -> None:
    limits = {"ttft_s": 1.0, "tpot_s": 0.02}
    searched = tc.optimize(**MOE, devices=8, top=2, jobs=1, batch=BATCH, **limits)
    assert searched.ruled_out > 0
    shown = {tuple(row.options[n] for n in PLAN) for row in searched.rows}
    (found,) = unpruned(MOE, "aggregated", 8, BATCH, Limits(1.0, 0.02))
    out = [row for plan, _, row in found if tuple(plan[n] for n in PLAN) not in shown]
    assert len(out) == searched.ruled_out
    assert all(row.miss > 0 or row.worth <= searched.rows[1].worth for row in out)
