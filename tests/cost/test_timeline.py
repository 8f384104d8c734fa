"""The timeline of a phase: the same calls, the same seconds, in an order that can be."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

import tensorcast as tc
from tensorcast.cost import timeline

SMALL = {"model": "deepseek-v3", "hw": "h200-sxm", "layers": 6, "tp": 2, "batch": 4, "input_len": 256, "output_len": 2}
CASES = {
    "experts": SMALL,
    "eager, host bound": {**SMALL, "runtime": "eager"},
    "streams": {**SMALL, "ep": 2, "overlap": "streams"},
    "two halves": {**SMALL, "ep": 2, "overlap": "dual-batch"},
    "draft tokens": {**SMALL, "mtp": 1},
    "chunks on two stages": {**SMALL, "tp": 1, "pp": 2, "chunk": 100},
    "training": {"model": "qwen3-8b", "hw": "h200-sxm", "layers": 4, "dp": 2, "pp": 2, "batch": 8, "phase": "train"},
    "pipeline of models": {"model": "flux.1-dev", "hw": "h200-sxm", "steps": 2, "layers": 2},
}


@pytest.fixture(scope="module", params=CASES)
def estimate(request):
    return tc.simulate(**CASES[request.param])


def test_a_phase_ends_when_its_timeline_does(estimate) -> None:
    for name, phase in estimate.phases.items():
        line = estimate.timelines[name]
        assert line.end_s == pytest.approx(phase.step_time_s, rel=1e-9)


def test_every_call_is_drawn_once(estimate) -> None:
    """Sums by operator, over all modules: components of a pipeline carry their own prefix in the phase."""
    for name, phase in estimate.phases.items():
        line = estimate.timelines[name]
        if not line.whole:
            continue
        drawn: Counter = Counter()
        for _, _, piece in line.slices:
            drawn[piece.call.op] += piece.call.seconds
        asked: Counter = Counter()
        for op in phase["ops"]:
            asked[op["op"]] += op["time_s"]
        assert drawn == pytest.approx(
            {op: seconds for op, seconds in asked.items() if seconds or op in drawn}, rel=1e-9
        )


def test_a_stream_does_one_thing_at_a_time(estimate) -> None:
    for line in estimate.timelines.values():
        for stream in ("compute", "communication"):
            held = [piece for _, _, piece in line.slices if stream in piece.call.stream.split(", ")]
            held.sort(key=lambda piece: (piece.start_s, piece.end_s))
            for one, next_ in pairwise(held):
                assert next_.start_s >= one.end_s - 1e-12


def test_the_passes_follow_each_other(estimate) -> None:
    for line in estimate.timelines.values():
        clock = 0.0
        for each in line.passes:
            assert each.start_s == clock
            assert all(each.start_s <= run.start_s and run.end_s <= each.end_s + 1e-12 for run in each.runs)
            clock = each.end_s
        assert line.end_s == clock


def test_decode_is_drawn_as_a_step_in_the_middle() -> None:
    answer = tc.simulate(**{**SMALL, "output_len": 101})
    line, phase = answer.timelines["decode"], answer.phases["decode"]
    alone = tc.simulate(**{**SMALL, "input_len": 256 + 50, "output_len": 2})
    assert not line.whole and line.passes[0].past == 256 + 50
    assert line.end_s == pytest.approx(alone.phases["decode"].step_time_s, rel=1e-12)
    assert line.end_s == pytest.approx(phase.step_time_s, rel=1e-3)


def test_a_backward_pass_runs_from_the_last_layer_to_the_first() -> None:
    (line,) = tc.simulate(**{**CASES["training"], "dp": 1, "pp": 1}).timelines.values()
    layers = [run.layer for run in line.passes[0].runs if run.layer is not None]
    assert layers == [0, 1, 2, 3, 3, 2, 1, 0]


def test_layers_are_named_and_alike_where_their_calls_are() -> None:
    (each, *_) = tc.simulate(**SMALL).timelines["prefill"].passes
    named = {run.name: run.kind for run in each.runs}
    assert list(named) == ["before the layers", *(f"model.layers.{n}" for n in range(6)), "after the layers"]
    dense, routed = {named[f"model.layers.{n}"] for n in range(3)}, {named[f"model.layers.{n}"] for n in range(3, 6)}
    assert len(dense) == len(routed) == 1 and dense != routed


def test_the_dictionary_shows_the_longest_pass() -> None:
    answer = tc.simulate(**{**SMALL, "chunk": 100})
    shown = answer.to_dict()["phases"]["chunked"]["timeline"]
    assert (shown["passes"], shown["shown"]["past"], shown["shown"]["tokens"]) == (3, 100, 100)
    assert [part["name"] for part in shown["parts"]] == ["pass 1 of 3", "pass 2 of 3", "pass 3 of 3"]
    assert shown["shown"]["start_s"] == shown["parts"][1]["start_s"]
    length = shown["shown"]["end_s"] - shown["shown"]["start_s"]
    kinds = {kind["kind"]: sum(op["time_s"] for op in kind["ops"]) for kind in shown["kinds"]}
    assert sum(kinds[run["kind"]] for run in shown["runs"]) == pytest.approx(length, rel=1e-9)


def test_the_dictionary_shows_layers_though_the_optimizer_takes_longer() -> None:
    small = {"layers": 4, "batch": 1, "input_len": 16}
    answer = tc.simulate(model="deepseek-v3", hw="h200-sxm", quant="none", phase="train", **small)
    assert answer.metrics["optimizer_time_s"] > answer.metrics["step_time_s"] / 2
    shown = answer.to_dict()["phases"]["train"]["timeline"]
    assert (shown["shown"]["batch"], shown["shown"]["tokens"]) == (1, 16)
    assert "model.layers.3" in [run["name"] for run in shown["runs"]]
    assert [part["name"] for part in shown["parts"]] == ["pass 1 of 1", "optimizer_step"]


def test_the_dictionary_looks_for_the_start_of_a_run_once(monkeypatch) -> None:
    """Not for every call of it: two halves of a batch are one run of thousands."""
    asked, start = Counter(), timeline.Run.start_s.fget

    def counted(run):
        asked[id(run)] += 1
        return start(run)

    line = tc.simulate(**CASES["two halves"]).timelines["prefill"]
    monkeypatch.setattr(timeline.Run, "start_s", property(counted))
    line.to_dict()
    assert max(asked.values()) == 2  # in the list of runs, and of its kind
