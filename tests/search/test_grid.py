"""Configurations priced together give what `simulate` gives for each."""

from __future__ import annotations

import numpy as np
import pytest

import tensorcast as tc
from tensorcast.search.evaluation.group import Group

LENGTHS = {"batch": [1, 2, 3, 8, 31, 200], "input_len": [2, 17, 129, 1000, 9000], "output_len": [1, 2, 5, 300]}
# Plans, engines and options that change how figures are made, over models of six kinds.
GROUPS = {
    "MLA and experts": (dict(model="deepseek-v3", hw="h200-sxm", tp=4, dp=2, ep=8, pp=4), {}),
    "drafts": (dict(model="deepseek-v3", hw="h200-sxm", tp=8, mtp=1), {"acceptance_rate": [0.5, 0.9]}),
    "chunks, host-bound stages": (
        dict(model="llama-3.1-8b", hw="h100-sxm", pp=3, runtime="eager"),
        {"chunk": [0, 1, 7, 100, 512], "prefix_len": [0, 1, 15], "input_len": [2, 17, 129, 1000]},
    ),
    "windows": (
        dict(model="gemma-3-27b", hw="h100-sxm", tp=2), {"chunk": [0, 512], "gpu_memory_utilization": [0.5, 0.9]},
    ),
    "under load": (dict(model="gpt-oss-120b", hw="h100-sxm", tp=2, engine="vllm"), {"concurrency": [1, 8, 100]}),
    "decode alone": (
        dict(model="qwen3-32b", hw="ascend-910b", tp=4, phase="decode"), {"max_model_len": [20000, 40960, 100]},
    ),
    "states and attention": (dict(model="nemotron-3-nano", hw="h100-sxm", tp=2), {}),
}  # fmt: skip


def same(found: float, asked: float | None) -> bool:
    return np.isnan(found) if asked is None else found == pytest.approx(asked, rel=1e-9, abs=0)


@pytest.mark.parametrize("name", GROUPS)
def test_a_configuration_has_the_figures_of_simulate(name):
    fixed, more = GROUPS[name]
    rng, count = np.random.default_rng(7), 4
    columns = {option: rng.choice(np.array(values), count) for option, values in (LENGTHS | more).items()}
    found = Group(fixed).columns(columns)
    for row in range(count):
        point = {option: values[row].item() for option, values in columns.items()}
        try:
            answer = tc.simulate(**fixed, **point).to_dict()
        except tc.TensorcastError as error:
            assert found["reason"][row] == str(error)
            continue
        assert found["reason"][row] == ""
        figures = answer["metrics"] | answer["memory"]
        figures.pop("suggestions", None)
        assert {key: same(found[key][row], value) for key, value in figures.items()} == dict.fromkeys(figures, True)


@pytest.mark.parametrize("window", [1024])
def test_below_and_at_the_edge_of_a_window(window):
    fixed = dict(model="gemma-3-4b", hw="h100-sxm", phase="decode", output_len=4)
    at = np.array([1, 2, window - 3, window - 2, window - 1, window, window + 1, 5 * window])
    found = Group({k: v for k, v in fixed.items() if k != "output_len"}).columns(
        {"batch": np.full(len(at), 3), "input_len": at, "output_len": np.full(len(at), 4)}
    )
    asked = [tc.simulate(**fixed, batch=3, input_len=int(n)).metrics["tpot_s"] for n in at]
    assert found["tpot_s"] == pytest.approx(asked, rel=1e-12)


def test_a_table_is_traced_further_where_it_does_not_reach():
    """A prompt of one token runs the model's decode branch, which the table of prompts has no piece for."""
    group = Group(dict(model="qwen3-0.6b", hw="h100-sxm", phase="prefill"), cache=False)
    first = group.columns({"batch": np.array([2]), "input_len": np.array([64])})
    pieces = len(group.deployed.tables["prefill"].pieces)
    found = group.columns({"batch": np.array([2, 2]), "input_len": np.array([64, 1])})
    assert len(group.deployed.tables["prefill"].pieces) > pieces
    assert found["ttft_s"][0] == first["ttft_s"][0]
    one = tc.simulate(model="qwen3-0.6b", hw="h100-sxm", phase="prefill", batch=2, input_len=1)
    assert found["ttft_s"][1] == pytest.approx(one.metrics["ttft_s"], rel=1e-12)


def test_a_fault_of_the_plan_is_the_reason_of_every_row():
    found = Group(dict(model="qwen3-0.6b", hw="h100-sxm", tp=3)).columns({"batch": np.arange(1, 4)})
    assert len(set(found["reason"])) == 1 and "tp 3" in found["reason"][0]
    found = Group(dict(model="qwen3-30b-a3b", hw="h100-sxm", dp=4, ep=4)).columns({"batch": np.arange(1, 7)})
    assert [bool(reason) for reason in found["reason"]] == [True] * 3 + [False] * 3
    assert "--dp 4" in found["reason"][0] and np.isnan(found["tpot_s"][0]) and found["tpot_s"][5] > 0


def test_the_slowest_stage_is_that_of_all_passes():
    """The last stage has the head, which is the same in every pass: it counts once for each of them."""
    asked = dict(model="llama-3.1-8b", hw="h100-sxm", pp=3, batch=15, input_len=2, phase="decode")
    steps = [tc.simulate(**asked | {"input_len": n}, output_len=2).metrics["tpot_s"] for n in range(2, 12)]
    together = tc.simulate(**asked, output_len=11).metrics["tpot_s"]
    assert together == pytest.approx(np.mean(steps), rel=1e-9)


def test_a_chunked_prompt_fills_the_pipeline_once():
    asked = dict(model="llama-3.1-8b", hw="h100-sxm", batch=4, input_len=1024, chunk=256, phase="prefill")
    phase = tc.simulate(**asked, pp=4).phases["chunked"]
    bubbles = [op for op in phase["ops"] if op["op"] == "pipeline_bubble"]
    longest = max(tc.simulate(**asked | {"input_len": n, "chunk": 256, "batch": 1}, pp=4).phases["chunked"].step_time_s
                  for n in (256,)) / 4  # fmt: skip
    assert len(bubbles) == 1 and bubbles[0]["time_s"] < 3 * 2 * longest
