"""Charts of searches: the front by its definition, cells by pandas, lines by counting; rows of all kinds."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import tensorcast as tc
from tensorcast.report.charts import as_figure
from tensorcast.report.charts.curve import curve_chart
from tensorcast.report.charts.heatmap import heatmap_chart
from tensorcast.report.charts.limits import limits_chart
from tensorcast.report.charts.palette import LIGHT_INK, ink
from tensorcast.report.charts.parallel import parallel_chart
from tensorcast.report.charts.pareto import pareto_chart
from tests.report.rows import MODELS, dominated, swept
from tests.verify.tiny import TINY

GIB = 2**30


def good(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["fits"].fillna(False).astype(bool)]


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        ("tokens_per_s_per_user", "tokens_per_s_per_device", (True, True)),
        ("ttft_s", "tokens_per_s_per_device", (False, True)),
        ("request_latency_s", "total_bytes", (False, False)),
    ],
)
def test_the_front_is_what_no_row_dominates_and_every_point_has_one_place(x, y, more) -> None:
    frame = swept()
    chart = pareto_chart(frame, x, y, "model")
    *groups, unfit, front = chart["data"]
    there = good(frame).dropna(subset=[x, y])
    scale = [1 / GIB if name == "total_bytes" else 1 for name in (x, y)]
    best = there[~dominated(there, x, y, more)]
    points = sorted({(a * scale[0], b * scale[1]) for a, b in zip(best[x], best[y], strict=True)})
    assert np.array([front["x"], front["y"]]).T == pytest.approx(np.array(points))
    assert [len(group["x"]) for group in groups] == [(there["model"] == name).sum() for name in MODELS]
    assert len(unfit["x"]) == (frame["fits"].eq(False).fillna(False) & frame[[x, y]].notna().all(axis=1)).sum()
    assert unfit["visible"] == "legendonly"
    assert groups[0]["name"] == "model &lt;script&gt;alert(1)&lt;/script&gt;"
    as_figure(chart)


def test_a_hover_says_what_varies_and_main_figures_in_their_units() -> None:
    frame = swept(8)
    trace = pareto_chart(frame, "ttft_s", "total_bytes")["data"][0]
    lines = trace["hovertemplate"].removesuffix("<extra></extra>").split("<br>")
    assert [line.split(" ")[0] for line in lines[:4]] == ["model", "hw", "tp", "batch"]
    assert (
        "memory %{customdata[9]:,.4~r} GiB" in lines
        and "TTFT %{customdata[4]:.3~s}s" in lines
        and "quant" not in trace["hovertemplate"]
    )
    assert trace["customdata"][0][9] == pytest.approx(frame["total_bytes"][0] / GIB)
    assert trace["customdata"][0][0] == "&lt;script&gt;alert(1)&lt;/script&gt;"


@pytest.mark.parametrize(("value", "best"), [("tokens_per_s_per_device", "max"), ("ttft_s", "min")])
def test_a_cell_is_the_best_of_its_rows_that_fit(value: str, best: str) -> None:
    frame = swept()
    chart = heatmap_chart(frame, "batch", "hw", value)
    (cells,) = chart["data"]
    rows = good(frame)[["hw", "batch", value]].astype({"hw": str})
    wanted = rows.groupby(["hw", "batch"])[value].agg([best, "count"])
    assert cells["x"] == ["1", "2", "4", "8", "16"] and cells["y"] == ["h100-sxm", 'own, "odd".yaml']
    for line, hw in enumerate(cells["y"]):
        for at, batch in enumerate(map(int, cells["x"])):
            assert cells["z"][line][at] == wanted[best][hw, batch]
            assert cells["customdata"][line][at] == wanted["count"][hw, batch]
    assert cells["reversescale"] is (best == "min") and ink(cells["colorscale"][-1][1]) == LIGHT_INK
    assert chart["layout"]["xaxis"]["type"] == "category"
    words = {"max": "most tokens/s per device", "min": "least TTFT"}[best]
    assert chart["layout"]["meta"].startswith(f"Each cell: the {words} of the rows with that batch and hw that fit")


def test_an_option_that_some_rows_leave_out_has_a_place_of_its_own() -> None:
    frame = swept().assign(kernel=pd.Categorical([None, "attention=flash"] * 120))
    (cells,) = heatmap_chart(frame, "kernel", "tp", "ttft_s")["data"]
    rows = good(frame)[["kernel", "tp", "ttft_s"]]
    assert cells["x"] == ["attention=flash", "none"]
    assert cells["z"][0][1] == rows[rows["kernel"].isna() & (rows["tp"] == 1)]["ttft_s"].min()
    names = [trace["name"] for trace in pareto_chart(frame, "ttft_s", "tpot_s", "kernel")["data"][:2]]
    assert names == ["kernel attention=flash", "kernel none"]
    parallel = parallel_chart(frame)["data"][0]["dimensions"]
    assert next(axis for axis in parallel if axis["label"] == "kernel")["ticktext"] == ["attention=flash", "none"]


def test_where_nothing_fits_the_front_says_so_and_shows_what_does_not() -> None:
    frame = swept().iloc[2::21]
    chart = pareto_chart(frame, "ttft_s", "tpot_s")
    assert chart["layout"]["meta"] == "No rows fit, so there is no Pareto front; these do not fit."
    assert len(chart["data"][-2]["x"]) == len(frame) and chart["data"][-2]["visible"] is True


def test_parallel_coordinates_have_a_line_for_every_row_that_fits_and_the_best_are_dark_and_drawn_last() -> None:
    frame = swept()
    (lines,) = parallel_chart(frame)["data"]
    have = good(frame)
    axes = {axis["label"]: axis for axis in lines["dimensions"]}
    assert list(axes)[:4] == ["model", "hw", "tp", "batch"] and "latency [s]" not in axes  # not every row has it
    assert axes["tp"]["ticktext"] == ["1", "2", "4"] and axes["model"]["ticktext"] == list(MODELS)
    assert [axes["tp"]["ticktext"][at] for at in axes["tp"]["values"]] == have["tp"].astype(str).tolist()
    assert lines["line"]["color"] == have["tokens_per_s_per_device"].tolist()
    assert ink(lines["line"]["colorscale"][-1][1]) == LIGHT_INK  # the greatest of these lies on top
    assert axes["TPOT [ms]"]["values"] == pytest.approx(have["tpot_s"] * 1e3)
    assert parallel_chart(frame, "ttft_s")["data"][0]["line"]["color"] == (-have["ttft_s"]).tolist()


def test_ticks_of_figures_that_are_nearly_equal_differ() -> None:
    near = swept().assign(tokens_per_s_per_user=lambda rows: 5700 + rows["tokens_per_s_per_user"] / 100)
    forms = {axis["label"]: axis.get("tickformat") for axis in parallel_chart(near)["data"][0]["dimensions"]}
    assert forms["tok/s/user"] == ",.6~r" and forms["TPOT [ms]"] == ",.3~r"


def one_row() -> pd.DataFrame:
    return swept(1)


def all_refused() -> pd.DataFrame:
    return swept().iloc[6::7]


def equal() -> pd.DataFrame:
    frame = swept(30)
    return frame.assign(ttft_s=0.5, tpot_s=0.01)


def no_figures() -> pd.DataFrame:
    return swept(30).assign(ttft_s=np.nan, tpot_s=np.nan)


@pytest.mark.parametrize(
    ("rows", "points", "front"), [(one_row, 1, 1), (all_refused, 0, 0), (equal, 17, 1), (no_figures, 0, 0)]
)
def test_odd_rows_make_charts_too(rows, points: int, front: int) -> None:
    frame = rows()
    chart = pareto_chart(frame, "ttft_s", "tpot_s")
    assert [len(trace["x"]) for trace in (chart["data"][0], chart["data"][-1])] == [points, front]
    for each in (chart, heatmap_chart(frame, "tp", "batch", "ttft_s"), parallel_chart(frame, "ttft_s")):
        json.dumps(each, allow_nan=False)
        as_figure(each)


def test_columns_of_ones_own_are_figures_of_which_more_is_better() -> None:
    frame = swept().assign(joy=lambda rows: rows["ttft_s"] * 2)
    front = pareto_chart(frame, "joy", "tokens_per_s_per_device")["data"][-1]
    there = good(frame).dropna(subset=["joy"])
    best = there[~dominated(there, "joy", "tokens_per_s_per_device", (True, True))]
    assert front["x"] == sorted(set(best["joy"]))


def test_a_line_of_what_nowhere_fits_is_dotted_and_named_once(own_folder) -> None:
    asked = {"model": TINY["llama"], "hw": "h100-sxm", "input_len": 64, "output_len": 4, "values": "1:4"}
    found = tc.compare({"gpu_memory_utilization": 0.001}, {"gpu_memory_utilization": 1.0}, **asked)
    data = curve_chart(found.curve, found.names)["data"]
    assert [(each["name"], each["line"].get("dash")) for each in data if each["showlegend"]] == [
        (found.names[0], "dot"), (found.names[1], None)
    ]  # fmt: skip
    (dots,) = [each for each in data if each["line"].get("dash")]
    assert set(dots["customdata"]) == {", does not fit"} and "%{customdata}" in dots["hovertemplate"]


def test_bars_are_shares_of_the_limits() -> None:
    row = {"ttft_s": 3.0, "tpot_s": 0.01, "total_bytes": 45 * GIB, "capacity_bytes": 100 * GIB}
    limits = {"ttft_s": 2.0, "tpot_s": None, "memory_headroom": 0.1}
    chart = limits_chart({"best": None, "nearest": row, "limits": limits})
    (bars,) = chart["data"]
    assert bars["y"] == ("TTFT", "memory") and bars["x"] == pytest.approx((1.5, 0.5))
    assert bars["text"] == ("3.00 s of 2.00 s", "45.0 GiB of 90.0 GiB")
    assert bars["marker"]["color"][0] != bars["marker"]["color"][1]
    assert chart["layout"]["xaxis"]["range"][1] > 1.5
    far = limits_chart({"best": None, "nearest": row, "limits": {**limits, "ttft_s": 1e-6}})  # leaves room for others
    assert far["layout"]["xaxis"]["range"][1] == 3 and far["data"][0]["x"] == pytest.approx((3e6, 0.5))
    assert far["data"][0]["text"][0] == "3.00 s of 1.00 us: 3,000,000 times as much"
