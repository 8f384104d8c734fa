"""`--mode disaggregated` against trying every pair of plans, batches and instances, with figures of `simulate`."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import tensorcast as tc
from tensorcast.cost.collective import collective_time
from tensorcast.hardware.load import hardware
from tensorcast.search.optimization.pairs import best_ratio, links

ROOT = Path(__file__).parents[2]
BATCH = (1, 4, 32, 96)
WORK = {"input_len": 2048, "output_len": 128}
LLAMA = {"model": "llama-3.1-8b", "hw": "h100-sxm", **WORK}
KV = 32 * 2 * 8 * 128 * 2
"""Bytes that a token leaves in Llama-3.1-8B: 32 layers, keys and values of 8 heads of 128, bf16."""


@cache
def figures(phase: str, batch: int, **asked) -> dict:
    asked |= {"output_len": 1} if phase == "prefill" else {}
    e = tc.simulate(**asked, phase=phase, batch=batch)
    return {**e.metrics, **e.memory}


def plans(devices: int) -> list[dict]:
    return [{"tp": tp, "pp": pp} for tp, pp in itertools.product((1, 2, 4, 8), repeat=2) if tp * pp <= devices]


def tier_of(machine, devices: int):
    return next(tier for tier in machine.topology.tiers if tier.devices >= devices)


def everything(asked: dict, devices: int, limits: dict) -> list[tuple]:
    """(worst miss, - tokens a second and device, - devices used, P, batch, D, batch, x, y), the best first."""
    machine, prompt = hardware(asked["hw"]), asked["input_len"]
    room = machine.memory_bytes * (1 - limits.get("memory_headroom", 0))
    sizes = [plan for plan in plans(devices) if devices % (plan["tp"] * plan["pp"]) == 0]
    out = []
    for p, d in itertools.product(sizes, repeat=2):
        n_p, n_d = p["tp"] * p["pp"], d["tp"] * d["pp"]
        smaller = min(min(p["tp"], 8) * p["pp"], min(d["tp"], 8) * d["pp"])
        part = KV * prompt / smaller
        for x, y in itertools.product(range(1, devices + 1), repeat=2):
            used = x * n_p + y * n_d
            if used > devices:
                continue
            tier = tier_of(machine, used)
            wide = tier.to_one_peer * tier.efficiency
            best = None
            for b, c in itertools.product(BATCH, BATCH):
                first = figures("prefill", b, **asked, **p)
                second = figures("decode", c, **asked, **d)
                ttft = first["ttft_s"] + tier.latency_s + b * part / wide
                rates = (
                    x * min(b / first["ttft_s"], wide / (KV * prompt / n_p)),
                    y * min(c / (second["tpot_s"] * (asked["output_len"] - 1)), wide / (KV * prompt / n_d)),
                )
                misses = [
                    [first["total_bytes"] / room - 1, ttft / limits.get("ttft_s", np.inf) - 1],
                    [second["total_bytes"] / room - 1, second["tpot_s"] / limits.get("tpot_s", np.inf) - 1],
                ]
                each = [max(0.0, *values) for values in misses]
                value = min(rates) * asked["output_len"] / used
                found = (each, -value, (p, b, d, c, x, y, ttft, second["tpot_s"], used))
                key = (sum(each), float(f"{-value:.10e}"), ttft, second["tpot_s"])  # each side misses least
                if best is None or key < best[0]:
                    best = key, each, found[1], found[2]
            out.append((max(best[1]), best[2], -used, best[3]))
    rest = asked["output_len"] - 1
    out.sort(key=lambda row: (row[0], float(f"{row[1]:.10e}"), row[2], row[3][6] + rest * row[3][7]))
    return out


@pytest.mark.parametrize(
    "limits",
    [{}, {"ttft_s": 0.1, "tpot_s": 0.008}, {"ttft_s": 0.4, "tpot_s": 0.02, "memory_headroom": 0.6}, {"tpot_s": 1e-4}],
    ids=["none", "times", "memory", "missed"],
)
def test_every_pair_of_plans_batches_and_instances(limits: dict) -> None:
    expected = everything(LLAMA, 4, limits)
    found = tc.optimize(**LLAMA, devices=4, mode="disaggregated", batch=list(BATCH), jobs=1, **limits)
    miss, value, _, (p, b, d, c, x, y, ttft, tpot, used) = expected[0]
    row = found.best or found.nearest
    assert (found.best is None) == (miss > 0)
    first, second = row["prefill"], row["decode"]
    assert {**p, "batch": b, "instances": x} == {k: first[k] for k in ("tp", "pp", "batch", "instances")}
    assert {**d, "batch": c, "instances": y} == {k: second[k] for k in ("tp", "pp", "batch", "instances")}
    assert row["ratio"] == f"{x}:{y}" and row["instance_devices"] == used
    shown = [row[k] for k in ("tokens_per_s_per_device", "ttft_s", "tpot_s", "miss")]
    assert shown == pytest.approx([-value, ttft, tpot, miss], rel=1e-9)
    # The other pairs of plans too, each at its best number of instances.
    pairs = {}
    for miss, value, _, (p, _, d, *_) in expected:
        pairs.setdefault((*p.values(), *d.values()), (miss, -value))
    rows = {(*(r.options["prefill"][k] for k in ("tp", "pp")), *(r.options["decode"][k] for k in ("tp", "pp"))): r
            for r in found.rows}  # fmt: skip
    assert rows.keys() == pairs.keys()
    if found.feasible:
        met = {key: worth for key, (miss, worth) in pairs.items() if miss == 0}
        assert {key: rows[key].worth for key in met} == pytest.approx(met, rel=1e-9)
        assert {key for key, r in rows.items() if r.miss == 0} == met.keys()


def test_the_transfer_by_hand() -> None:
    """A prompt of 2,048 tokens leaves 256 MiB; two decode ranks would take half each, one prefill rank sends all."""
    row = tc.optimize(**LLAMA, devices=4, mode="disaggregated", batch=[1], jobs=1, tp=[1, 2], pp=1, top=100)
    one = next(r for r in row.rows if r.options["prefill"]["tp"] == 1 and r.options["decode"]["tp"] == 2)
    two = next(r for r in row.rows if r.options["prefill"]["tp"] == 2 and r.options["decode"]["tp"] == 2)
    assert KV * 2048 == 2**28
    assert one.figures["kv_transfer_bytes"] == 2**28 and two.figures["kv_transfer_bytes"] == 2**27
    for each in (one, two):
        by_hand = collective_time("send_recv", each.figures["kv_transfer_bytes"], each.devices, 1, hardware("h100-sxm"))
        assert each.figures["kv_transfer_s"] == pytest.approx(float(by_hand), rel=1e-12)
        alone = figures("prefill", 1, **LLAMA, tp=each.options["prefill"]["tp"])
        assert each.figures["ttft_s"] == pytest.approx(alone["ttft_s"] + float(by_hand), rel=1e-12)
    assert one.figures["kv_transfer_tier"] == "nvlink"


def test_between_servers_the_slower_network_counts() -> None:
    asked = {**LLAMA, "mode": "disaggregated", "batch": [1], "jobs": 1, "tp": 8}
    row = tc.optimize(**asked, devices=16).best
    machine = hardware("h100-sxm")
    tier = machine.topology.tiers[1]
    assert row["kv_transfer_tier"] == tier.name != machine.topology.tiers[0].name
    expected = tier.latency_s + 2**28 / 8 / (tier.to_one_peer * tier.efficiency)
    assert row["kv_transfer_s"] == pytest.approx(expected, rel=1e-12)


def test_a_batch_goes_over_the_link_one_sequence_after_the_other() -> None:
    one, four = (
        tc.optimize(**LLAMA, devices=2, mode="disaggregated", batch=[b], jobs=1).best["kv_transfer_s"] for b in (1, 4)
    )
    latency = hardware("h100-sxm").topology.tiers[0].latency_s
    assert four - latency == pytest.approx(4 * (one - latency), rel=1e-9)


def test_a_latent_cache_that_every_rank_keeps_is_sent_to_each() -> None:
    """DeepSeek's 576 values a token and layer: eight decode ranks of one group want all of them."""
    asked = {"model": "deepseek-v3", "layers": 4, "hw": "h200-sxm", **WORK, "batch": [8], "jobs": 1}
    found = tc.optimize(**asked, devices=16, mode="disaggregated", tp=[1, 8], dp=[1], pp=1, ep=1, top=100)
    whole = 4 * 576 * 2 * 2048
    sent = {(r.options["prefill"]["tp"], r.options["decode"]["tp"]): r.figures["kv_transfer_bytes"] for r in found.rows}
    assert sent == {(1, 1): whole, (1, 8): 8 * whole, (8, 1): whole, (8, 8): whole}


def test_a_slow_network_binds(plain_folder) -> None:
    """A link that carries fewer prompts a second than the instances could sets the rate, and is what binds."""
    text = (ROOT / "hardware_profiles" / "h100-sxm.yaml").read_text()
    wide, narrow = "devices: 8, bandwidth: 4.5e+11", "devices: 8, bandwidth: 1.0e+9"
    assert wide in text
    (plain_folder / "slow.yaml").write_text(text.replace(wide, narrow).replace("name: h100-sxm", "name: slow"))
    asked = {**LLAMA, "hw": "slow.yaml", "mode": "disaggregated", "batch": list(BATCH), "jobs": 1}
    found = tc.optimize(**asked, devices=2)
    assert found.best["ratio"] == "1:1" and found.best["binding"] == "KV transfer"
    assert found.best["requests_per_s"] == pytest.approx(1.0e9 * 0.88 / (KV * 2048), rel=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_the_best_ratio_is_that_of_trying_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0.1, 20, 2)
    n_first, n_second = (int(2**k) for k in rng.integers(0, 4, 2))
    for link in links(hardware("h100-sxm").topology, 40):
        tried = {
            (x, y): min(x * first, y * second) / (x * n_first + y * n_second)
            for x, y in itertools.product(range(1, 41), repeat=2)
            if link.least <= x * n_first + y * n_second <= link.most
        }
        found = best_ratio(first, n_first, second, n_second, link)
        if not tried:
            assert found is None
            continue
        assert tried[found] == pytest.approx(max(tried.values()), rel=1e-11)
        equal = [x * n_first + y * n_second for (x, y), v in tried.items() if v >= tried[found] * (1 - 1e-13)]
        assert found[0] * n_first + found[1] * n_second == max(equal)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"output_len": 1}, "--mode disaggregated: an output of 1 token needs no decode"),
        ({"devices": 1}, "--devices 2 or more"), ({"tp": 2}, "no two instances"),
        ({"devices": 2**17}, "devices asked for, the machine connects at most"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(more: dict, said: str) -> None:
    with pytest.raises(tc.TensorcastError) as error:
        tc.optimize(**{**LLAMA, "devices": 2, "mode": "disaggregated", "jobs": 1, **more})
    assert said in str(error.value) and "\n" not in str(error.value)
