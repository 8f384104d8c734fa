"""`optimize` against trying everything with `simulate`: the same winner, order, figures, limits and nearest miss."""

from __future__ import annotations

import doctest
import itertools
import re
from functools import cache

import numpy as np
import pytest

import tensorcast as tc
from tensorcast.hardware.load import hardware
from tensorcast.report.terminal import optimize as report
from tensorcast.search.optimization import optimum
from tensorcast.search.optimization.optimize import BATCHES
from tensorcast.search.optimization.plans import devices_of
from tensorcast.units import read_seconds

BATCH = (1, 2, 5, 8, 32, 96, 400)
WORK = {"input_len": 1024, "output_len": 256}
DENSE = {"model": "llama-3.1-8b", "hw": "h100-sxm", **WORK}
MOE = {"model": "qwen3-30b-a3b", "hw": "h100-sxm", "layers": 4, **WORK}
TP, PP, DP, EP = "tp", "pp", "dp", "ep"
PLAN = (TP, PP, DP, EP)


def plans(devices: int, moe: bool) -> list[dict[str, int]]:
    """Every plan of up to four devices, written out: instances of 1, 2 and 4 fill 4 devices.

    Experts are spread over all ranks; with one attention group they may be cut into parts instead.
    """
    out = []
    for tp, pp, dp in itertools.product((1, 2, 4), repeat=3):
        size = tp * pp * dp
        if size > devices or (dp > 1 and not moe):
            continue
        for ep in {1, tp} if moe and dp == 1 else {tp * dp if moe else 1}:
            out.append({TP: tp, PP: pp, DP: dp, EP: ep})
    return out


@cache
def simulated(phase: str, clients: int, **asked) -> tc.Estimate:
    more = {"concurrency": clients} if clients else {}
    return tc.simulate(**asked, **more, phase=phase)


def static(asked: dict, plan: dict, batch: int) -> dict:
    e = simulated("auto", 0, **asked, **plan, batch=batch)
    return {**e.metrics, **e.memory}


def served(asked: dict, plan: dict, batch: int) -> dict:
    """Under load: `simulate --concurrency`, and the memory of the two largest steps."""
    tokens, out = asked["input_len"], asked["output_len"]
    loaded = simulated("auto", batch, **asked, **plan, batch=plan[DP]).metrics
    ttft, tpot = loaded["ttft_loaded_s"], loaded["tpot_loaded_s"]
    rate = batch * out / (ttft + (out - 1) * tpot)
    whole = simulated("decode", 0, **asked, **plan, batch=batch).memory
    group = -(-batch // plan[DP])
    prompts = max(1, min(8192 // tokens, -(-group // min(plan[PP], group))))  # of a step of 8,192 tokens
    step = simulated("prefill", 0, **asked, **plan, batch=prompts * plan[PP] * plan[DP]).memory
    peak, workspace = (max(whole[k], step[k]) for k in ("activation_peak_bytes", "workspace_bytes"))
    total = whole["total_bytes"] - whole["activation_peak_bytes"] - whole["workspace_bytes"] + peak + workspace
    return {
        "ttft_s": ttft, "tpot_s": tpot, "total_bytes": total, "capacity_bytes": whole["capacity_bytes"],
        "tokens_per_s_per_device": rate / devices_of(plan),
    }  # fmt: skip


def tried(asked: dict, plan: dict, how, limits: dict) -> dict:
    """The best batch of a plan: the least miss first, then the most tokens a device."""
    rows = []
    for batch in BATCH:
        try:
            figures = how(asked, plan, batch)
        except tc.TensorcastError:
            continue
        room = figures["capacity_bytes"] * (1 - limits.get("memory_headroom", 0.0))
        misses = {"memory": figures["total_bytes"] / room - 1}
        misses |= {k: figures[k] / limits[k] - 1 for k in ("ttft_s", "tpot_s") if k in limits}
        miss = max(0.0, *misses.values())
        order = miss, -figures["tokens_per_s_per_device"]
        rows.append({**plan, "batch": batch, **figures, "miss": miss, "order": order})
    return min(rows, key=lambda row: row["order"])


def everything(asked: dict, moe: bool, how, limits: dict) -> list[dict]:
    return sorted((tried(asked, plan, how, limits) for plan in plans(4, moe)), key=lambda row: row["order"])


def same(found: dict, expected: dict) -> bool:
    names = ("ttft_s", "tpot_s", "tokens_per_s_per_device", "total_bytes", "miss")
    assert {n: found[n] for n in names} == pytest.approx({n: expected[n] for n in names}, rel=1e-9, abs=1e-9)
    return [found[n] for n in (*PLAN, "batch")] == [expected[n] for n in (*PLAN, "batch")]


LOOSE: dict = {}
TIGHT = {"ttft_s": 0.25, "tpot_s": 0.012, "memory_headroom": 0.3}


@pytest.mark.parametrize("limits", [LOOSE, TIGHT], ids=["loose", "tight"])
@pytest.mark.parametrize("mode", ["static", "aggregated"])
def test_a_dense_model_as_by_trying_every_plan_and_batch(mode: str, limits: dict) -> None:
    expected = everything(DENSE, False, {"static": static, "aggregated": served}[mode], limits)
    found = tc.optimize(**DENSE, devices=4, mode=mode, batch=list(BATCH), jobs=1, **limits)
    assert found.considered == len(expected) == 6
    met = [row for row in expected if row["miss"] == 0][:5]
    assert met
    for row, other in zip([found.best, *found.runners_up], met, strict=True):
        assert same(row, other)
    if len(met) > 1:
        ratio = met[0]["tokens_per_s_per_device"] / met[1]["tokens_per_s_per_device"]
        assert found.lead == pytest.approx(ratio - 1, rel=1e-6)


@pytest.mark.parametrize("limits", [LOOSE, TIGHT], ids=["loose", "tight"])
def test_a_mixture_of_experts_as_by_trying_every_plan_and_batch(limits: dict) -> None:
    expected = everything(MOE, True, static, limits)
    found = tc.optimize(**MOE, devices=4, mode="static", batch=list(BATCH), jobs=2, **limits)
    assert found.considered == len(expected) == 13
    met = [row for row in expected if row["miss"] == 0][:5]
    for row, other in zip([found.best, *found.runners_up], met, strict=True):
        assert same(row, other)


@pytest.mark.parametrize("mode", ["static", "aggregated"])
def test_the_nearest_miss_is_the_one_whose_worst_excess_is_least(mode: str) -> None:
    limits = {"ttft_s": 1e-4, "tpot_s": 1e-3}
    expected = everything(DENSE, False, {"static": static, "aggregated": served}[mode], limits)
    found = tc.optimize(**DENSE, devices=4, mode=mode, batch=list(BATCH), jobs=1, **limits)
    assert not found.feasible and found.best is None and found.runners_up == [] and found.lead is None
    assert same(found.nearest, expected[0])
    assert found.ruled_out == 0


def test_what_would_do_really_does() -> None:
    asked = {**DENSE, "devices": 2, "batch": list(BATCH), "jobs": 1}
    found = tc.optimize(**asked, ttft_s=1e-4, tpot_s=1e-3)
    words = " ".join(found.what_would).split()
    given = {words[i].removeprefix("--") + "_s": read_seconds(words[i + 1]) for i in range(0, len(words), 2)}
    assert set(given) == {"ttft_s", "tpot_s"}
    assert tc.optimize(**asked, **given).feasible


def test_the_headroom_that_would_do_does() -> None:
    asked = {**DENSE, "devices": 1, "batch": 1, "jobs": 1}
    found = tc.optimize(**asked, memory_headroom=0.9)
    share = float(found.what_would[0].split()[1])
    assert found.what_would[0].startswith("--memory-headroom") and tc.optimize(**asked, memory_headroom=share).feasible
    assert not tc.optimize(**asked, memory_headroom=share + 0.001).feasible


def test_notebooks_show_the_report_and_the_limits() -> None:
    found = tc.optimize(**DENSE, devices=1, batch=[1, 2, 4], jobs=1, mode="static", ttft_s=10.0)
    assert repr(found).startswith("Optimum('") and repr(found).endswith(", devices=1, plans=1, feasible=True)")
    cell, figure = found._repr_html_(), found.plot_limits()
    assert cell.startswith("<pre") and "limit 10.0 s" in cell and "1 considered · 1 priced" in cell
    shares = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    assert shares["TTFT"] == pytest.approx(found.best["ttft_s"] / 10, rel=1e-5)


def test_what_does_not_fit_at_all_says_how_much_it_needs() -> None:
    found = tc.optimize(model="llama-3.1-405b", hw="h100-sxm", devices=1, batch=1, jobs=1, **WORK)
    memory = tc.simulate(model="llama-3.1-405b", hw="h100-sxm", phase="decode", **WORK).memory
    assert found.what_would == [f"memory for {memory['total_bytes'] / 2**30:.0f} GiB a device (it has 74.5 GiB)"]


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        ({}, "memory"),
        ({"tpot_s": 0.012}, "TPOT"),
        ({"ttft_s": 0.2}, "TTFT"),
        ({"tpot_s": 9.0, "ttft_s": 99.0}, "memory"),
    ],
)
def test_the_limit_that_binds_is_the_one_the_next_larger_batch_misses(limits: dict, binding: str) -> None:
    asked = {**DENSE, "mode": "static", "devices": 1, "jobs": 1}
    batch = list(range(1, 1024, 8))
    found = tc.optimize(**asked, **limits, batch=batch)
    assert found.best["binding"] == binding
    grown = found.best["batch"] + 8
    figures = static(DENSE, {TP: 1}, grown)
    missed = {
        "memory": figures["total_bytes"] > figures["capacity_bytes"],
        "TTFT": figures["ttft_s"] > limits.get("ttft_s", np.inf),
        "TPOT": figures["tpot_s"] > limits.get("tpot_s", np.inf),
    }
    assert [name for name, miss in missed.items() if miss] == [binding]


def test_nothing_binds_where_every_batch_is_allowed() -> None:
    found = tc.optimize(**DENSE, devices=1, batch=[1, 2, 4], jobs=1, mode="static")
    assert found.best["batch"] == 4 and found.best["binding"] == ""


# -- the space ---------------------------------------------------------------------------------------------------------


def test_precision_and_machine_are_searched_too() -> None:
    asked = {"model": "llama-3.1-8b", **WORK, "batch": list(BATCH), "jobs": 1}
    found = tc.optimize(**asked, hw=["h100-sxm", "h200-sxm"], quant=["none", "fp8"], devices=1, top=4)
    each = [
        tc.optimize(**asked, hw=hw, quant=quant, devices=1).best
        for hw, quant in itertools.product(("h100-sxm", "h200-sxm"), ("none", "fp8"))
    ]
    each.sort(key=lambda row: -row["tokens_per_s_per_device"])
    assert [(row.options["hw"], row.options["quant"]) for row in found.rows] == [(r["hw"], r["quant"]) for r in each]
    assert [row.worth for row in found.rows] == [row["tokens_per_s_per_device"] for row in each]


def test_costs_and_energy_are_those_of_a_device_hour() -> None:
    asked = {**DENSE, "devices": 2, "batch": list(BATCH), "jobs": 1}
    cheap, lean = tc.optimize(**asked, objective="cost", price_per_hour=3.6), tc.optimize(**asked, objective="energy")
    each = cheap.best["tokens_per_s_per_device"]
    assert cheap.best["cost_per_million_tokens"] == pytest.approx(3.6 / 3600 / each * 1e6)
    assert lean.best["joules_per_token"] == pytest.approx(
        hardware("h100-sxm").tdp_w / lean.best["tokens_per_s_per_device"]
    )
    fast = tc.optimize(**asked).best
    assert [fast[n] for n in PLAN] == [cheap.best[n] for n in PLAN] == [lean.best[n] for n in PLAN]


def test_batches_are_each_up_to_256_then_eight_an_octave() -> None:
    assert BATCHES[:256] == tuple(range(1, 257)) and BATCHES[-1] == 16384
    assert BATCHES[256:265] == (288, 320, 352, 384, 416, 448, 480, 512, 576)


def test_an_instance_takes_whole_numbers() -> None:
    row = tc.optimize(**MOE, devices=4, dp=[4], jobs=1).best
    assert type(row["batch"]) is int and type(row["input_len"]) is int and row["copies"] == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"devices": 0}, "--devices 0: a whole number, 1 to"), ({"devices": 2.5}, "--devices 2.5"),
        ({"ttft_s": 0}, "--ttft 0: seconds above 0"), ({"tpot_s": float("nan")}, "--tpot nan"),
        ({"ttft_s": "2s"}, "--ttft '2s': seconds above 0"), ({"memory_headroom": 1.0}, "--memory-headroom 1.0"),
        ({"mode": "fast"}, "--mode 'fast': one of aggregated, static, disaggregated"),
        ({"objective": "fun"}, "--objective 'fun': one of throughput, cost, energy"),
        ({"objective": "cost"}, "--objective cost: the profile of h100-sxm has no price; give --price"),
        ({"price_per_hour": -1}, "--price -1"), ({"input_len": [1, 2]}, "--input-len: 2 values"),
        ({"model": ["llama-3.1-8b", "qwen3-8b"]}, "--model: 2 values; optimize takes one at a time"),
        ({"concurrency": 4}, "--concurrency is what optimize looks for; limit it with --batch"),
        ({"phase": "decode"}, "--phase: what is run follows from --mode"), ({"tp": 3}, "no plan of the degrees asked"),
        ({"prefix_len": 8}, "--prefix-len: not under load; --mode static takes it"), ({"hw": None}, "no machine"),
        ({"quant": "w8a9"}, "w8a9"), ({"output_len": 2**30}, "--output-len"), ({"batsh": 3}, "unknown option 'batsh'"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(more: dict, said: str) -> None:
    with pytest.raises(tc.TensorcastError, match=re.escape(said)) as error:
        tc.optimize(**{**DENSE, "devices": 2, "jobs": 1, **more})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", [optimum, report])
def test_docstring_examples(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_a_frame_has_a_row_a_plan_and_nothing_is_started_that_misses() -> None:
    found = tc.optimize(**DENSE, devices=2, batch=[1, 2], jobs=1)
    assert len(found.frame) == found.priced == 3
    assert list(found.frame["tokens_per_s_per_device"]) == sorted(found.frame["tokens_per_s_per_device"], reverse=True)
    assert isinstance(found, tc.Optimum) and found.start_line("vllm").startswith("vllm serve")
    missed = tc.optimize(**DENSE, devices=2, batch=[1, 2], jobs=1, tpot_s=1e-6)
    with pytest.raises(tc.InputError, match="nothing to start"):
        missed.start_line("vllm")
    with pytest.raises(tc.UnknownNameError):
        found.start_line("ollama")


def test_strict_refuses_figures_and_not_the_search() -> None:
    """An assumed figure (ranges of the Ascend profile) is refused plan by plan, in simulate's words."""
    asked = {"model": "llama-3.1-8b", "hw": "ascend-910b2", **WORK}
    with pytest.raises(tc.TensorcastError) as one:
        tc.simulate(**asked, strict=True)
    with pytest.raises(tc.TensorcastError) as all_of_them:
        tc.optimize(**asked, devices=1, batch=[1], jobs=1, strict=True, mode="static")
    assert str(one.value) in str(all_of_them.value)
