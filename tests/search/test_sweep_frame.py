"""Rows of a sweep stay a SweepFrame through pandas, say what they hold, and draw it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import tensorcast as tc
from tensorcast.search import sweep_frame
from tensorcast.search.sweep_frame import SweepFrame

EVIL = "<script>alert(1)</script>"
NONE, FIT = pd.NA, True


@pytest.fixture
def frame() -> SweepFrame:
    """Eight configurations: five fit, two do not, one is refused."""
    return SweepFrame(
        {
            "model": pd.Categorical([EVIL] * 8),
            "hw": pd.Categorical(["a", "b"] * 4),
            "batch": pd.array([1, 1, 2, 2, 4, 4, 8, 8], dtype="Int64"),
            "ttft_s": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, np.nan],
            "tokens_per_s_per_user": [80.0, 90.0, 60.0, 70.0, 40.0, 30.0, 20.0, np.nan],
            "tokens_per_s_per_device": [10.0, 5.0, 20.0, 15.0, 15.0, 50.0, 60.0, np.nan],
            "total_bytes": pd.array([2**30, 2**30, 2**31, 2**31, 2**32, 2**32, 2**33, NONE], dtype="Int64"),
            "fits": pd.array([FIT, FIT, FIT, FIT, FIT, False, False, NONE], dtype="boolean"),
            "reason": pd.Categorical([""] * 7 + ["batch 8 is too much"]),
        }
    )


def test_rows_of_a_sweep_are_one(own_folder) -> None:
    asked = dict(hw="h100-sxm", input_len=16, output_len=2, cache=False)
    rows = tc.sweep("qwen3-0.6b", batch=[1, 2], **asked)
    assert type(rows) is SweepFrame and type(tc.pareto(rows)) is SweepFrame
    assert "2 configurations" in rows._repr_html_() and len(rows.plot_pareto().data) == 3
    assert rows["tpot_s"].tolist()[1] == pytest.approx(tc.simulate("qwen3-0.6b", batch=2, **asked).metrics["tpot_s"])


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f[f.batch > 1],
        lambda f: f.sort_values("ttft_s").head(3),
        lambda f: f.query("batch == 2"),
        lambda f: f[["hw", "batch"]],
        lambda f: f.iloc[2:4].copy(),
        lambda f: f.assign(own=1.0),
        lambda f: f.drop(columns="hw").reset_index(drop=True),
        lambda f: pd.concat([f, f], ignore_index=True),
        lambda f: f.merge(pd.DataFrame({"hw": ["a"], "price": [2.0]}), on="hw"),
        lambda f: pickle.loads(pickle.dumps(f)),
        lambda f: tc.pareto(f),
    ],
)
def test_pandas_keeps_it(frame, change) -> None:
    changed, plain = change(frame), change(pd.DataFrame(frame))
    assert type(changed) is SweepFrame
    pd.testing.assert_frame_equal(pd.DataFrame(changed), plain)
    assert "<table" in changed._repr_html_()


def test_a_file_gives_it_back(frame, tmp_path) -> None:
    frame.to_parquet(tmp_path / "rows.parquet")
    read = SweepFrame(pd.read_parquet(tmp_path / "rows.parquet"))
    pd.testing.assert_frame_equal(read, frame)
    assert read.plot_pareto().data == frame.plot_pareto().data


def test_the_cell_counts_and_names_the_best(frame) -> None:
    text = frame._repr_html_()
    assert "<b>8 configurations</b>:\n5 fit, 2 do not, 1 refused\n(batch 8 is too much)" in text
    assert "best by tokens_per_s_per_device: hw a · batch 2 · tokens_per_s_per_device 20.0" in text
    assert "100\u00a0ms" in text and "4.00\u00a0GiB" in text and "nan" not in text.lower()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_the_cell_where_none_fits(frame) -> None:
    assert "none fits; least memory: batch 4 " not in frame._repr_html_()
    text = frame[5:7]._repr_html_()
    assert "none fits; least memory: hw b · batch 4" in text


def test_the_cell_of_many_rows_and_columns(frame) -> None:
    wide = pd.concat([frame] * 100, ignore_index=True)
    wide["output_len"] = 1024
    with pd.option_context("display.max_columns", 6, "display.max_rows", 60, "display.min_rows", 10):
        text = wide._repr_html_()
    assert "all have model &lt;script&gt;" in text and "output_len 1024" in text
    assert "<th>output_len" not in text and text.count("<tr") < 15 and "800 rows" in text


def test_figures_keep_their_units_where_columns_are_left_out(frame) -> None:
    rates = ["tokens_per_s_per_user", "tokens_per_s_per_device"]
    with pd.option_context("display.max_columns", 4):
        text = frame[["hw", "batch", *rates, "ttft_s", "total_bytes"]]._repr_html_()
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", text.replace("\u00a0", " "))
    assert cells[:6] == ["", "hw", "batch", "...", "ttft_s", "total_bytes"]
    assert cells[6:12] == ["0", "a", "1", "...", "100 ms", "1.00 GiB"]
    assert cells[-6:] == ["7", "b", "8", "...", "", ""], "what there is not is empty"


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.head(0),
        lambda f: f.tail(1),
        lambda f: f[["hw", "hw"]],
        lambda f: f[["ttft_s", "ttft_s"]],
        lambda f: f.T,
        lambda f: pd.concat([f, f], axis=1),
        lambda f: f.assign(fits="yes"),
        lambda f: f.assign(own=[[1]] * 8),
        lambda f: f.set_axis([("a", name) for name in f.columns], axis=1),
    ],
)
def test_cells_of_odd_frames(frame, change) -> None:
    with pd.option_context("display.max_columns", 8):
        assert "<table" in change(frame)._repr_html_()


def test_pandas_may_be_told_to_show_text(frame) -> None:
    with pd.option_context("display.notebook_repr_html", False):
        assert frame._repr_html_() is None


def test_the_front_is_that_of_pareto(frame) -> None:
    figure = frame.plot_pareto(colour="hw")
    front = figure.data[-1]
    assert [*zip(front.x, front.y, strict=True)] == [(60.0, 20.0), (70.0, 15.0), (80.0, 10.0), (90.0, 5.0)]
    assert sum(len(trace.x) for trace in figure.data[:-1]) == 7
    assert figure.layout.title.text == "tokens_per_s_per_device over tokens_per_s_per_user"


def test_the_heat_map_has_the_best_of_each_pair(frame) -> None:
    (cells,) = frame.plot_heatmap("batch", "hw").data
    assert [list(row) for row in cells.z] == [[10.0, 20.0, 15.0, None], [5.0, 15.0, None, None]]
    assert list(frame.plot_heatmap("batch", "hw", "ttft_s").data[0].z[0])[:2] == [0.1, 0.3]


def test_a_line_for_each_row_that_fits(frame) -> None:
    (lines,) = frame.plot_parallel().data
    assert {len(axis["values"]) for axis in lines.dimensions} == {5}
    assert list(lines.line.color) == [10.0, 5.0, 20.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("plot", "said"),
    [
        (lambda f: f.plot_pareto("tpot_s"), "no figure 'tpot_s'; there is ttft_s"),
        (lambda f: f.plot_pareto(y="hw"), "no figure 'hw'; there is ttft_s, "),
        (lambda f: f.plot_pareto(colour="tp"), "no column 'tp'; there is "),
        (lambda f: f.plot_heatmap("bach", "hw"), "no column 'bach'; there is batch"),
        (lambda f: f.plot_heatmap("batch", "hw", 3), "no figure 3; there is ttft_s"),
        (lambda f: f.plot_parallel(colour="model"), "no figure 'model'; there is "),
        (lambda f: f[["batch", "ttft_s"]].plot_pareto(), "no column 'fits'; there is batch, ttft_s"),
        (lambda f: f[["hw", "fits"]].plot_parallel(), "no column has a figure to draw"),
        (lambda f: f.assign(fits=f.fits.astype(str)).plot_pareto(), "column 'fits' holds no truth values"),
        (lambda f: f.assign(fits=f.batch).plot_heatmap("batch", "hw"), "column 'fits' holds no truth values"),
        (lambda f: pd.concat([f, f], axis=1).plot_parallel(), "two columns have the name 'model'"),
        (lambda f: f.T.plot_pareto(), "no column 'fits'; there is 0, 1, 2, 3, 4, 5, 6, 7"),
        (lambda f: f.head(0).plot_pareto(), "no column has a figure to draw"),
        (lambda f: f.to_report("/nowhere/at/all.html"), "to_report /nowhere/at/all.html: "),
    ],
)
def test_what_cannot_be_drawn_is_said(frame, plot, said: str) -> None:
    with pytest.raises(tc.InputError) as caught:
        plot(frame)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.set_index(["hw", "batch"]),
        lambda f: f.set_index(pd.Index([0] * 8)),
        lambda f: f.assign(fits=f.fits.astype(object).where(f.fits.notna(), np.nan)),
        lambda f: f.assign(fits=f.fits.astype(float)),
        lambda f: f.assign(reason=f.reason.astype(object).replace("", np.nan)),
        lambda f: f.assign(own=[{"a": 1}, [2]] * 4),
        lambda f: f.assign(_row=range(8)),
        lambda f: f.assign(own=1.5).rename(columns={"own": 7}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_whatever_pandas_made_of_the_rows_is_the_same_chart(frame, tmp_path, change) -> None:
    changed, as_before = change(frame), change(frame)
    assert "5 fit, 2 do not, 1 refused" in changed._repr_html_()
    for plot in (lambda f: f.plot_pareto(), lambda f: f.plot_pareto(colour="hw")):
        made, wanted = plot(changed).data, plot(frame).data
        assert [(trace.x, trace.y, trace.name) for trace in made] == [(t.x, t.y, t.name) for t in wanted]
    assert changed.plot_heatmap("batch", "hw").data == frame.plot_heatmap("batch", "hw").data
    assert changed.plot_parallel().data[0].line == frame.plot_parallel().data[0].line
    changed.to_report(tmp_path / "sweep.html")
    pd.testing.assert_frame_equal(changed, as_before)


def test_more_values_than_colours_have_a_scale_or_other_marks(frame) -> None:
    many = pd.concat([frame.assign(batch=frame.batch + 10 * n, plan=f"plan {n}") for n in range(12)])
    (points, unfit, _) = many.plot_pareto(colour="batch").data
    assert [*points.marker.color] == many[many.fits.eq(True).fillna(False)].batch.tolist() and points.marker.colorbar
    assert points.marker.colorbar.title.text == "batch" and len(unfit.x) == 24
    marks = {(n % 8, trace.marker.symbol) for n, trace in enumerate(many.plot_pareto(colour="plan").data[:12])}
    assert len(marks) == 12


def test_where_none_fits_the_points_are_seen(frame) -> None:
    figure = frame[5:7].plot_pareto()
    assert figure.data[-2].visible is True and len(figure.data[-2].x) == 2
    assert figure.layout.title.subtitle.text == "No rows fit, so there is no Pareto front; these do not fit."


def test_what_stands_above_a_chart_leaves_room(frame) -> None:
    assert frame.plot_pareto().layout.legend.yref == "container", "below, not over the words"
    assert frame.plot_parallel().layout.margin.t - frame.plot_heatmap("hw", "batch").layout.margin.t >= 40


def test_columns_of_any_name_are_drawn(frame) -> None:
    named = frame.assign(**{EVIL: frame.ttft_s}).rename(columns={"hw": 7, "tokens_per_s_per_user": "_row"})
    assert named.plot_pareto("_row", EVIL).layout.title.text == "&lt;script&gt;alert(1)&lt;/script&gt; over _row"
    assert [*named.plot_pareto("_row").data[-1].y] == [*frame.plot_pareto().data[-1].y]
    assert named.plot_heatmap(7, "batch").data[0].x == ("a", "b")


def test_more_rows_than_a_notebook_takes_are_refused(frame, monkeypatch) -> None:
    monkeypatch.setattr(sweep_frame, "MOST_DRAWN", 7)
    for plot in (frame.plot_pareto, frame.plot_parallel):
        with pytest.raises(tc.InputError, match="at most 7 rows, this has 8; filter it"):
            plot()
    assert frame.plot_heatmap("batch", "hw").data


def test_the_page_of_the_rows(frame, tmp_path) -> None:
    frame.to_report(tmp_path / "sweep.html")
    page = (tmp_path / "sweep.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>") and EVIL not in page


def test_the_package_imports_neither_pandas_nor_plotly() -> None:
    code = "import sys, tensorcast as tc; tc.simulate, tc.sweep; assert not {'pandas', 'plotly'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
