"""Charts: their totals are the estimate's, nothing lies above its roof, names are text."""

from __future__ import annotations

import copy
import json
import re
from math import fsum

import pytest

import tensorcast as tc
from tensorcast.cost.timeline import HOST
from tensorcast.report.charts import as_figure, byte_axis, shown
from tensorcast.report.charts.bounds import bounds_chart
from tensorcast.report.charts.communication import communication_chart
from tensorcast.report.charts.memory import memory_chart
from tensorcast.report.charts.roofline import peaks_of, point_of, roofline_chart
from tensorcast.report.charts.timeline import LANES, MOST, layer_chart, step_chart
from tensorcast.report.charts.treemap import treemap_chart
from tensorcast.units import seconds

LAYERS = {"layers": 4, "input_len": 256, "output_len": 16}
ASKED = {
    "language": {"model": "qwen3-0.6b", "hw": "h100-sxm", "tp": 2, "runtime": "eager", **LAYERS},
    "experts": {"model": "deepseek-v2-lite", "hw": "ascend-910b2", "dp": 4, "ep": 4, "batch": 8, **LAYERS},
    "halves": {
        "model": "deepseek-v2-lite", "hw": "h200-sxm", "dp": 4, "ep": 4, "batch": 16, "overlap": "dual-batch",
        **LAYERS,
    },
    "diffusion": {"model": "pixart-sigma", "hw": "a100-sxm-80g", "layers": 2, "steps": 2},
    "training": {
        "model": "qwen3-0.6b", "hw": "h100-sxm", "phase": "train", "dp": 2, "batch": 4, "layers": 4, "input_len": 256,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=ASKED)
def estimate(request) -> dict:
    return tc.simulate(**ASKED[request.param]).to_dict()


def test_tiles_add_up_to_the_operators_of_each_phase(estimate) -> None:
    for name, phase in estimate["phases"].items():
        tiles = treemap_chart(estimate, name)["data"][0]
        assert fsum(tiles["values"]) == pytest.approx(fsum(op["time_s"] for op in phase["ops"]), rel=1e-12)
        ids = tiles["ids"]
        assert len(set(ids)) == len(ids)
        assert tiles["parents"][0] == "" and set(tiles["parents"][1:]) <= set(ids)
        leaves = {(op["module"], op["op"], op["bound"], op.get("part")) for op in phase["ops"]}
        alike = {(re.sub(r"\.\d+\b", ".0", module), *rest) for module, *rest in leaves}
        assert len(alike) <= sum(value > 0 for value in tiles["values"]) <= len(leaves)


def test_bars_by_bound_are_the_phases_times(estimate) -> None:
    chart = bounds_chart(estimate)
    for place, name in enumerate(chart["data"][0]["y"]):
        times = estimate["phases"][name]["time_by_bound_s"]
        shares = {trace["name"]: trace["x"][place] for trace in chart["data"]}
        assert fsum(shares.values()) == pytest.approx(1)
        for bound, share in shares.items():
            assert share == pytest.approx(times[bound] / fsum(times.values()))


def test_memory_bar_is_the_total(estimate) -> None:
    chart = memory_chart(estimate)
    assert fsum(trace["x"][0] for trace in chart["data"]) == estimate["memory"]["total_bytes"]
    assert chart["layout"]["shapes"][0]["x0"] == estimate["memory"]["capacity_bytes"]


@pytest.mark.parametrize(("capacity", "side"), [(80e9, "right"), (20e9, "left")])
def test_the_end_of_memory_is_named_where_there_is_room(capacity, side) -> None:
    memory = {"weights_bytes": 60e9, "total_bytes": 60e9, "capacity_bytes": capacity}
    assert memory_chart({"memory": memory})["layout"]["annotations"][0]["xanchor"] == side


def test_no_operator_is_above_its_roof(estimate) -> None:
    hardware = estimate["hardware"]
    for name, phase in estimate["phases"].items():
        drawn = roofline_chart(estimate, name)["data"]
        clouds = [trace for trace in drawn if trace["mode"] == "markers"]
        points = [point for trace in clouds for point in zip(trace["x"], trace["y"], strict=True)]
        counted = [op for op in phase["ops"] if (op["matrix_flops"] or op["vector_flops"]) and op["read_bytes"]]
        assert len(points) == len(counted) > 0
        for op in counted:
            moved = op["read_bytes"] + op["write_bytes"]
            work = op["matrix_flops"] or op["vector_flops"]
            peak = hardware["peak_flops"][op["math"]] if op["matrix_flops"] else max(hardware["vector_flops"].values())
            speed = work / op["time_s"]
            assert speed <= 1.000001 * min(peak, work / moved * hardware["memory_bandwidth"]), op
            assert (pytest.approx(work / moved), pytest.approx(speed)) in points


def test_communication_is_that_of_the_collectives(estimate) -> None:
    talk = [op for phase in estimate["phases"].values() for op in phase["ops"] if "collective" in op]
    data = communication_chart(estimate)["data"]
    times = fsum(fsum(trace["x"]) for trace in data if trace["xaxis"] == "x")
    sent = fsum(fsum(trace["x"]) for trace in data if trace["xaxis"] == "x2")
    assert times == pytest.approx(fsum(op["time_s"] for op in talk))
    assert sent == pytest.approx(fsum(op["comm_bytes"] for op in talk))
    assert bool(data) == bool(talk)


def test_what_is_not_only_talk_is_said() -> None:
    """Kernels that compute as well, time that is hidden, gradients that are added up beside the backward pass."""
    small = {"hw": "h100-sxm", "layers": 2, "input_len": 64}
    fused = tc.simulate(model="qwen3-0.6b", tp=2, kernel=["row_linear=fused"], phase="prefill", **small).to_dict()
    both = fsum(op["time_s"] for op in fused["phases"]["prefill"]["ops"] if op["op"] == "linear_all_reduce")
    said = communication_chart(fused)["layout"]["meta"]
    assert f"{seconds(both)} of that in prefill are kernels that compute at the same time." in said
    halves = tc.simulate(**ASKED["halves"]).to_dict()
    hidden = seconds(halves["phases"]["prefill"]["overlapped_s"])
    assert f"hide {hidden} in prefill." in communication_chart(halves)["layout"]["meta"]
    copies = tc.simulate(model="qwen3-0.6b", dp=2, batch=2, phase="train", **small).to_dict()
    assert "the time that computation does not hide counts" in communication_chart(copies)["layout"]["meta"]


def test_a_step_is_drawn_to_its_end(estimate) -> None:
    """Passes and what else follows them fill the phase, layers and waiting for the host the pass that is shown."""
    for name, phase in estimate["phases"].items():
        drawn = phase["timeline"]
        bars: dict[str, list[tuple[float, float]]] = {}
        for trace in step_chart(estimate, name)["data"]:
            for lane, start, time in zip(trace["y"], trace["base"], trace["x"], strict=True):
                bars.setdefault(lane, []).append((start, start + time))
        assert max(end for lane in bars.values() for _, end in lane) == pytest.approx(drawn["seconds"], rel=1e-5)
        if drawn["passes"] > 1:
            filled = fsum(end - start for start, end in bars["passes"])
            assert filled == pytest.approx(drawn["seconds"], rel=1e-5) and len(bars["passes"]) == drawn["passes"]
        else:
            assert drawn["seconds"] == pytest.approx(phase["step_time_s"], rel=0.02)
        layers = bars.get("layers", bars.get(""))
        if layers:  # two halves of a batch have each their own
            ends = min(layers)[0], max(end for _, end in layers)
            assert ends == pytest.approx((drawn["shown"]["start_s"], drawn["shown"]["end_s"]), rel=1e-5)


def test_a_layer_is_drawn_with_all_that_it_runs(estimate) -> None:
    for name, phase in estimate["phases"].items():
        for kind in phase["timeline"]["kinds"]:
            bars = [x for trace in layer_chart(estimate, name, kind["kind"])["data"] for x in trace["x"]]
            if not any("half" in op for op in kind["ops"]):
                assert len(bars) == sum(op["stream"].count(",") + 1 for op in kind["ops"])
                assert fsum(bars) >= 0.9999 * fsum(op["time_s"] for op in kind["ops"])


def test_of_two_halves_a_layer_of_each_is_drawn_and_what_runs_beside_it() -> None:
    found = tc.simulate(**ASKED["halves"]).to_dict()
    (kind,) = found["phases"]["prefill"]["timeline"]["kinds"]
    layer = [(f" {op['half']}", op["start_s"]) for op in kind["ops"] if op["layer"] == 2]
    traces = layer_chart(found, "prefill", 0)["data"]
    drawn = [bar for trace in traces for bar in zip(trace["y"], trace["base"], strict=True)]
    assert {lane for lane, _ in drawn} == {f"{lane} {half}" for lane in LANES for half in (1, 2)}
    assert len(layer) < len(drawn) < len(kind["ops"])
    said = f"Drawn are the {len(drawn)} operators that run while layer 2 of either half does."
    assert layer_chart(found, "prefill", 0)["layout"]["meta"].endswith(said)
    for half, start in layer:
        assert any(lane.endswith(half) and start == pytest.approx(at, rel=1e-5) for lane, at in drawn)
    steps = {trace["name"]: trace for trace in step_chart(found, "prefill")["data"]}
    assert set(steps) == {"half 1 of the batch", "half 2 of the batch"}
    assert sum("<br>" in said and said.startswith("layer ") for said in steps["half 1 of the batch"]["customdata"]) == 4


def test_a_host_that_is_slower_than_the_device_is_drawn() -> None:
    found = tc.simulate(model="qwen3-0.6b", hw="h100-sxm", layers=2, runtime="eager", input_len=64).to_dict()
    chart = step_chart(found, "decode")
    (waiting,) = (trace for trace in chart["data"] if trace["name"] == HOST)
    phase = found["phases"]["decode"]
    busy = fsum(op["time_s"] for op in phase["ops"])
    assert waiting["x"][0] == pytest.approx(phase["host_time_s"] - busy, rel=0.02) and busy < phase["host_time_s"]
    assert f"For {seconds(waiting['x'][0])} of a pass the device waits for the host" in chart["layout"]["meta"]


def test_charts_are_figures_of_the_library_and_plain_json(estimate) -> None:
    phase = next(iter(estimate["phases"]))
    charts = [bounds_chart(estimate), memory_chart(estimate), communication_chart(estimate)]
    charts += [make(estimate, phase) for make in (treemap_chart, roofline_chart, step_chart)]
    for chart in (*charts, layer_chart(estimate, phase, 0)):
        as_figure(chart)
        assert chart["layout"]["meta"] and json.loads(json.dumps(chart, allow_nan=False)) == chart


def test_a_point_by_hand() -> None:
    op = {"op": "linear", "math": "fp8", "matrix_flops": 2e12, "vector_flops": 5e9, "read_bytes": 6e8,
          "write_bytes": 4e8, "time_s": 4e-3}  # fmt: skip
    point = point_of(op)
    assert (point.engine, point.intensity, point.rate) == ("fp8", 2000, 5e14)
    norm = point_of({**op, "matrix_flops": 0})
    assert (norm.engine, norm.intensity, norm.rate) == ("vector", 5, 1.25e12)
    assert point_of({**op, "read_bytes": 0, "write_bytes": 0}) is None
    hardware = {"peak_flops": {"fp8": 2e15, "bf16": 1e15}, "vector_flops": {"fp32": 6e13, "fp16": 1.2e14}}
    assert peaks_of(hardware, [point, norm]) == {"fp8": 2e15, "vector": 1.2e14}


def test_of_a_long_run_the_middle_is_drawn(long_run) -> None:
    chart = layer_chart(long_run, "decode", 0)
    starts = sorted(start for trace in chart["data"] for start in trace["base"])
    assert len(starts) == MOST and starts[0] == 250 and starts[-1] == 250 + MOST - 1
    assert "1,500 operators in 1,500 s. Drawn are the 1,000 operators in its middle." in chart["layout"]["meta"]


@pytest.fixture
def long_run() -> dict:
    op = {"op": "linear", "module": "m", "stream": "compute", "bound": "matrix", "time_s": 1.0}
    ops = [{**op, "start_s": float(second)} for second in range(1500)]
    return {"phases": {"decode": {"timeline": {"kinds": [{"kind": 0, "name": "all", "count": 1, "ops": ops}]}}}}


def test_blocks_of_a_list_that_are_alike_are_one_tile() -> None:
    """A block with other operators stays alone; no time is lost."""
    work = dict.fromkeys(("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes"), 0.0)
    ops = [
        {"op": op, "module": f"up.{block}.{name}", "time_s": 2.0**block, "bound": "matrix", "count": 1, **work}
        for block in range(6)
        for op, name in [("linear", "proj"), ("linear", "fc")] + [("conv", "skip")] * (block == 2)
    ]
    chart = treemap_chart({"phases": {"denoise": {"ops": ops}}}, "denoise")
    assert "linear in up.0 … 5 × 5.proj takes most: 45.4 %." in chart["layout"]["meta"]
    tiles = chart["data"][0]
    assert fsum(tiles["values"]) == fsum(op["time_s"] for op in ops)
    found = dict(zip(tiles["labels"], tiles["customdata"], strict=True))
    assert found["0 … 5 × 5"].startswith("up.0 … 5 × 5<br>118 s") and found["2"].startswith("up.2<br>12.0 s")
    assert tiles["labels"].count("linear") == 4


def test_layers_are_one_tile_with_their_number(estimate) -> None:
    labels = [label for name in estimate["phases"] for label in treemap_chart(estimate, name)["data"][0]["labels"]]
    n = 24 if "denoise" in estimate["phases"] else 4  # of the T5 encoder, which --layers leaves whole
    stacked = [label for label in labels if "*" in label]
    assert stacked and any(label.endswith(f"* × {n}") for label in stacked)


HOSTILE = "<b onclick=alert(1)>&lt;x</b><script>alert(1)</script>"


def test_names_are_text_in_every_chart(estimate) -> None:
    hostile = copy.deepcopy(estimate)
    for phase in hostile["phases"].values():
        for row in [*phase["ops"], *(op for kind in phase["timeline"]["kinds"] for op in kind["ops"])]:
            row["op"], row["module"] = HOSTILE, f"a.{HOSTILE}"
            if "tier" in row:
                row["tier"] = row["collective"] = HOSTILE
        for run in (*phase["timeline"]["runs"], *phase["timeline"]["kinds"]):
            run["name"] = HOSTILE
    phase = next(iter(hostile["phases"]))
    charts = [communication_chart(hostile)]
    charts += [make(hostile, phase) for make in (treemap_chart, roofline_chart, step_chart)]
    for chart in (*charts, layer_chart(hostile, phase, 0)):
        text = json.dumps({**chart, "layout": {**chart["layout"], "meta": ""}})  # meta is plain text, not a label
        assert "<script" not in text and "<b " not in text
        named = chart["data"] and '"half 1 of the batch"' not in text  # the layers of halves have numbers
        assert not named or "&lt;script&gt;" in text or "&lt;b onclick" in text


def test_a_name_as_it_is_shown() -> None:
    assert shown("a<b>&c") == "a&lt;b&gt;&amp;c"
    assert len(shown("x" * 10_000)) == 120


def test_ticks_of_bytes_are_round_and_reach_the_end() -> None:
    axis = byte_axis(80e9)
    assert axis["ticktext"] == ["0", "16 GiB", "32 GiB", "48 GiB", "64 GiB", "80 GiB"]
    assert axis["tickvals"][1] == 16 * 2**30
    for most in (0, 1, 1023, 1024, 5e3, 3e8, 1.5e12, 9e16):
        assert 1 <= len(byte_axis(most)["tickvals"]) <= 100
