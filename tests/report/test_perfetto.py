"""The trace of an estimate: a valid document, and every figure of the estimate in it."""

from __future__ import annotations

import gzip
from collections import Counter
from types import SimpleNamespace

import pytest

import tensorcast as tc
from tensorcast.report.perfetto import trace
from tests.report.kinds import KINDS, asked
from tests.report.trace_format import integral, read, tracks_of

SMALL = {"model": "deepseek-v3", "hw": "h200-sxm", "layers": 4, "tp": 2, "batch": 4, "input_len": 256, "output_len": 3}
TRAIN = {"model": "qwen3-8b", "hw": "h200-sxm", "layers": 4, "batch": 8, "phase": "train"}
BOTH = "a kernel on both streams"
ALIKE = ("language", "served", "encoder", "vision")  # passes as of the other kinds
FULL = ("streams", "halves")  # with --overlap the streams are busy at the same time
RATES = {
    ("FLOP/s", "matrix"): ("matrix_flops",),
    ("FLOP/s", "vector"): ("vector_flops",),
    ("memory bandwidth", "bytes/s"): ("read_bytes", "write_bytes"),
    ("link bandwidth", "message bytes/s"): ("comm_bytes",),
}


def simulated(kind: str, folder):
    if kind == BOTH:
        return tc.simulate(**asked("experts", folder), kernel=["row_linear=fused"])
    return tc.simulate(**asked(kind, folder))


@pytest.fixture(scope="module", params=[kind for kind in (*KINDS, BOTH) if kind not in ALIKE])
def case(request, tmp_path_factory):
    """An estimate, its dictionary, and its trace as read back: phase → track."""
    folder = tmp_path_factory.mktemp("trace")
    estimate, path = simulated(request.param, folder), folder / "trace.json"
    estimate.to_trace(path)
    document, figures = read(path), estimate.to_dict()
    tracks = dict(zip(figures["phases"], tracks_of(document).values(), strict=True))
    return SimpleNamespace(name=request.param, document=document, tracks=tracks, estimate=estimate, figures=figures)


def operators(track) -> list:
    """Every call once, in order of time."""
    threads = (track.threads.get(stream, []) for stream in ("compute", "communication"))
    found = [span for thread in threads for span in thread if span.category == "operator"]
    return sorted(found, key=lambda span: (span.begin, span.end))


def test_older_readers_that_cut_off_what_is_below_a_nanosecond_see_the_same_nesting(case) -> None:
    tracks = tracks_of(case.document, lambda microseconds: int(microseconds * 1000.0))
    for old, new in zip(tracks.values(), case.tracks.values(), strict=True):
        for name, spans in new.threads.items():
            assert [(span.name, span.depth) for span in spans] == [(s.name, s.depth) for s in old.threads[name]]


def test_phases_follow_each_other_and_last_as_long_as_they_do(case) -> None:
    clock = 0
    for name, track in case.tracks.items():
        whole = track.threads["modules"][0]
        assert (whole.name, whole.category, whole.begin) == (name, "phase", clock)
        assert whole.ns == pytest.approx(case.estimate.timelines[name].end_s * 1e9, abs=2)
        if case.estimate.timelines[name].whole:
            assert whole.ns == pytest.approx(case.figures["phases"][name]["step_time_s"] * 1e9, abs=2)
        else:
            assert "middle" in whole.args["of"] and "middle" in case.document["otherData"]["phases"][name]
        clock = whole.end
        assert f"{case.figures['model']['name']} on {case.figures['hardware']['name']}" in track.name
        assert name in track.name


def test_calls_fill_the_time_of_a_phase(case) -> None:
    """One after another they take the phase's time, less what the device waits for the host; beside each other more."""
    for name, track in case.tracks.items():
        whole, calls = track.threads["modules"][0], operators(track)
        waits = sum(span.ns for span in track.threads["modules"] if span.category == "host")
        taken = sum(span.ns for span in calls) + waits
        assert taken >= whole.ns if case.name in FULL else taken == whole.ns
        if case.name == "streams":  # and op by op: the host is what such a small model waits for
            assert waits > 0.5 * whole.ns
        if case.name not in FULL:
            phase = case.figures["phases"][name]
            idle = phase["step_time_s"] - sum(op["time_s"] for op in phase["ops"])
            assert waits == pytest.approx(idle * 1e9, rel=0.01, abs=2)  # a mean of passes is not the middle one
        for span in calls:
            assert span.ns == pytest.approx(span.args["time_s"] * 1e9, abs=2)  # two ends, each on the grid


def test_every_call_of_a_whole_phase_is_there_once(case) -> None:
    for name, track in case.tracks.items():
        if case.estimate.timelines[name].whole and not case.name.startswith("training"):
            asked = Counter()
            for op in case.figures["phases"][name]["ops"]:
                asked[op["op"]] += op["count"]
            assert Counter(span.name for span in operators(track)) == asked


def test_a_call_lies_in_the_slices_of_its_modules(case) -> None:
    for track in case.tracks.values():
        modules = [span for span in track.threads["modules"] if span.category == "module"]
        for span in operators(track):
            assert "*" not in span.args["module"]
            around = [each for each in modules if each.begin <= span.begin and span.end <= each.end]
            inner = {each.args["module"] for each in around}
            if case.name not in FULL and span.args["module"] and span.ns:
                assert span.args["module"] in inner
                assert ".".join(each.name for each in around if not _same_time_elsewhere(each, span)).endswith(
                    span.args["module"]
                )


def _same_time_elsewhere(each, span) -> bool:
    """A slice of no length at an end of the call."""
    return each.ns == 0 or each.begin == span.end or each.end == span.begin


def test_memory_is_between_what_is_held_and_the_estimate(case) -> None:
    memory = case.figures["memory"]
    kinds = ("weights_bytes", "kv_cache_bytes", "gradients_bytes", "optimizer_bytes")
    held = sum(memory.get(kind, 0) for kind in kinds)
    highest = 0
    for track in case.tracks.values():
        (counter,) = (name for name in track.counters if name[0].startswith("memory ") and name[1] == "bytes")
        values = [value for _, value in track.counters[counter]]
        assert min(values) >= held and values[-1] == held
        highest = max(highest, *values)
        if counter[0] == "memory in use":
            alive = track.counters["activations", "bytes"]
            assert max(value for _, value in alive) + held == max(values) and alive[-1][1] == 0
        assert counter[0] == ("memory held" if "gradients_bytes" in memory else "memory in use")
    assert highest <= memory["total_bytes"] - memory["reserved_bytes"] + 1
    if counter[0] == "memory in use" and case.name != "halves":
        assert highest > held + 0.5 * memory["activation_peak_bytes"]


def test_rates_are_possible_and_add_up(case) -> None:
    hardware = case.figures["hardware"]
    peaks = [
        max(hardware["peak_flops"].values()), max(hardware["vector_flops"].values()), hardware["memory_bandwidth"],
        max(tier["bandwidth"] for tier in hardware["tiers"]),
    ]  # fmt: skip
    for name, track in case.tracks.items():
        phase, end = case.figures["phases"][name], track.threads["modules"][0].end
        for (key, figures), peak in zip(RATES.items(), peaks, strict=True):
            counter = track.counters[key]
            assert counter[-1][1] == 0
            assert max(value for _, value in counter) <= peak * (1 + 1e-12)
            known = [span for span in operators(track) if "time" not in span.args]
            drawn = sum(span.args.get(figure, 0) for span in known for figure in figures)
            # A call's rate is over its exact seconds; its length on the grid is up to a nanosecond off at either end,
            # which is all of the shortest calls of models as small as these.
            blur = sum(
                sum(span.args.get(figure, 0) for figure in figures) / span.args["time_s"] * 2e-9 for span in known
            )
            assert integral(counter, end) == pytest.approx(drawn, abs=blur)
            if case.estimate.timelines[name].whole and len(known) == len(operators(track)):
                assert drawn == pytest.approx(sum(phase[figure] for figure in figures), rel=1e-9)


def test_nothing_runs_while_the_device_waits_for_the_host(case) -> None:
    for track in case.tracks.values():
        for wait in (span for span in track.threads["modules"] if span.category == "host"):
            for key in RATES:
                before = [value for now, value in track.counters[key] if now <= wait.begin]
                inside = [value for now, value in track.counters[key] if wait.begin < now < wait.end]
                assert before[-1] == 0 and not inside


def test_a_call_on_both_streams_is_drawn_on_both_and_counts_once(tmp_path) -> None:
    estimate = simulated(BOTH, tmp_path)
    document = {"traceEvents": _events(estimate)}
    for name, track in zip(estimate.phases, tracks_of(document).values(), strict=True):
        again = [span for span in track.threads["communication"] if span.category == "same operator"]
        first = [span for span in track.threads["compute"] if "streams" in span.args]
        assert again and [(s.name, s.begin, s.end) for s in again] == [(s.name, s.begin, s.end) for s in first]
        assert len(again) == sum(op["count"] for op in estimate.phases[name]["ops"] if op["op"] == again[0].name)


def test_each_half_of_a_batch_runs_every_layer(tmp_path) -> None:
    estimate = simulated("halves", tmp_path)
    for track in tracks_of({"traceEvents": _events(estimate)}).values():
        calls = operators(track)
        first, second = ([span for span in calls if span.args["half"] == half] for half in (1, 2))
        assert len(first) + len(second) == len(calls)
        assert Counter((s.name, s.args["module"]) for s in first) == Counter((s.name, s.args["module"]) for s in second)
        layers = {span.args["module"].split(".")[2] for span in first if ".layers." in span.args["module"]}
        assert layers == {"0", "1", "2", "3"}


def test_calls_say_whom_they_talk_to_and_how_they_compute() -> None:
    estimate = tc.simulate(**{**SMALL, "ep": 2})
    (prefill, _) = tracks_of({"traceEvents": _events(estimate)}).values()
    for key, figures in RATES.items():
        total = sum(estimate.phases["prefill"][figure] for figure in figures)
        assert integral(prefill.counters[key], prefill.threads["modules"][0].end) == pytest.approx(total, rel=1e-3)
    (lookup, *_) = (span for span in operators(prefill) if span.name == "all_reduce")
    assert (lookup.args["collective"], lookup.args["ranks"], lookup.args["tier"]) == ("all_reduce", 2, "nvlink")
    assert lookup.args["bound"] == "communication"
    product = next(span for span in operators(prefill) if span.args["module"].endswith("layers.3.self_attn.o_proj"))
    assert product.args["module"] == "model.layers.3.self_attn.o_proj"
    assert {span.args.get("math") for span in operators(prefill) if span.name == "linear"} == {"fp8", "bf16"}
    assert {span.args.get("kernel") for span in operators(prefill) if span.name == "swiglu"} == {"fused"}


def test_time_that_computation_hides_gives_no_rate() -> None:
    """Collectives of a training step: all bytes in the time that is left would be more than the links can."""
    estimate = tc.simulate(**TRAIN, dp=2, tp=2, zero=3, grad_checkpoint="full")
    (track,) = tracks_of({"traceEvents": _events(estimate)}).values()
    parts = [span for span in operators(track) if "time" in span.args]
    assert parts and all(span.args["comm_bytes"] for span in parts)
    end, done = track.threads["modules"][0].end, sum(span.args.get("matrix_flops", 0) for span in operators(track))
    assert integral(track.counters["FLOP/s", "matrix"], end) == pytest.approx(done, rel=1e-4)
    assert done == pytest.approx(estimate.phases["train"]["matrix_flops"], rel=1e-9)
    fastest = max(tier["bandwidth"] for tier in estimate.to_dict()["hardware"]["tiers"])
    assert any(span.args["comm_bytes"] / span.args["time_s"] > fastest for span in parts)
    for span in parts:
        values = [value for now, value in track.counters["link bandwidth", "message bytes/s"] if now <= span.begin]
        assert values[-1] == 0


def test_passes_are_counted_and_what_runs_beside_them_is_named() -> None:
    estimate = tc.simulate(**TRAIN, dp=2, pp=2)
    (track,) = tracks_of({"traceEvents": _events(estimate)}).values()
    passes = [span for span in track.threads["modules"] if span.category == "pass"]
    assert [span.name for span in passes[:3]] == ["pass 1 of 2", "pass 2 of 2", "pipeline_bubble"]
    assert passes[0].args | {"time_s": None} == {"sequences": 2, "tokens": 4096, "in_cache": 0, "time_s": None}
    first = [span.name for span in track.threads["modules"] if passes[0].begin <= span.begin < passes[0].end]
    assert [name for name in first if name.startswith("layers.")] == ["layers.2", "layers.3", "layers.3", "layers.2"]


def test_the_same_estimate_gives_the_same_bytes_packed_or_not(tmp_path) -> None:
    for name in ("a.json", "b.json", "a.json.gz", "b.json.gz"):
        tc.simulate(**SMALL).to_trace(tmp_path / name)
    first, second, packed, again = ((tmp_path / name).read_bytes() for name in sorted(_files(tmp_path), key=_by_kind))
    assert first == second == gzip.decompress(packed) and packed == again
    assert len(packed) * 5 < len(first)


def test_any_name_is_a_name(tmp_path) -> None:
    estimate = tc.simulate(**{**SMALL, "layers": 1})
    figures = estimate.to_dict()
    name = '</script><script>alert(1)</script> "\\ \n\x1b *.* Ünï \U0001f680'
    figures["model"]["name"] = name
    path = tmp_path / "trace.json"
    path.write_text("".join(trace(figures, estimate.timelines)), "utf-8")
    document = read(path)
    assert document["otherData"]["model"] == name
    assert all(track.name.endswith(f": {name} on h200-sxm") for track in tracks_of(document).values())


def test_command_line(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("simulate", "--model", "qwen3-8b", "--hw", "h100-sxm", "--layers", "1", "--quiet")
    code, out, err = run(*asked, "--trace", "t.json")
    assert (code, out) == (0, "")
    document = read(tmp_path / "t.json")
    assert document["otherData"]["command"] == "tensorcast simulate --model qwen3-8b --hw h100-sxm --layers 1"
    assert [track.name for track in tracks_of(document).values()] == [
        "prefill: qwen3-8b on h100-sxm", "decode: qwen3-8b on h100-sxm",
    ]  # fmt: skip
    code, out, err = run(*asked[:-1], "--trace", "-")
    assert code == 0 and out.encode() == (tmp_path / "t.json").read_bytes()
    (tmp_path / "folder").mkdir()
    before = sorted(_files(tmp_path))
    for path, said in (
        ("folder", "--trace folder: is a folder; give a file in it"),
        ("no/where.json", "--trace no/where.json: there is no folder"),
        ("", "--trace"),
    ):
        code, out, err = run(*asked, "--trace", path)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    code, _, err = run(*asked, "--trace", "x", "--json", "x")
    assert code == 2 and "--json and --trace both write to x" in err
    assert sorted(_files(tmp_path)) == before


def test_python_says_what_is_wrong_with_a_path(tmp_path) -> None:
    with pytest.raises(tc.InputError, match="to_trace"):
        tc.simulate(**{**SMALL, "layers": 1}).to_trace(tmp_path / "no" / "trace.json")


def _events(estimate) -> list:
    import json

    return json.loads("".join(trace(estimate.to_dict(), estimate.timelines)))["traceEvents"]


def _files(folder) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _by_kind(name: str) -> tuple[bool, str]:
    return name.endswith(".gz"), name
