"""Pages of searches: what they hold of how many rows, counts, and frames that nothing can be drawn of."""

from __future__ import annotations

import base64
import gzip
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tensorcast as tc
from tensorcast.errors import InputError
from tensorcast.report.pages import sample, sweep_page
from tensorcast.report.pages.explorer import MOST_LINES, explorer, packed
from tensorcast.report.pages.sample import Sample, few
from tests.report.rows import dominated, swept
from tests.verify.tiny import TINY

PAIR = ("tokens_per_s_per_user", "tokens_per_s_per_device")


def columns_of(text: str) -> dict[str, list]:
    """The packed columns, read by the format's description."""
    content = json.loads(gzip.decompress(base64.b64decode(text)))
    found = {}
    for name, column in content["columns"].items():
        if "numbers" in column:
            values = np.frombuffer(base64.b64decode(column["numbers"]), "<f8")
            found[name] = [None if value != value else value for value in values.tolist()]
        else:
            codes = np.frombuffer(base64.b64decode(column["codes"]), "<i4")
            found[name] = [None if code < 0 else column["names"][code] for code in codes.tolist()]
        assert len(found[name]) == content["rows"]
    return found


def test_packed_columns_are_the_frame_to_the_last_digit() -> None:
    frame = swept().assign(ttft_s=np.random.default_rng(3).random(240) / 3, total_bytes=2**53 - 1)
    found = columns_of(packed(frame))
    assert list(found) == list(frame.columns)
    for name in frame:
        told = frame[name].astype(object).where(frame[name].notna(), None).tolist()
        assert found[name] == told, name


def test_of_few_rows_all_are_held() -> None:
    frame = swept()
    rows, kept = few(frame)
    assert rows is frame and kept.every == 1 and kept.fronts is None and kept.total == len(kept) == 240


def test_of_many_rows_that_come_in_tables_the_best_the_fronts_and_even_others_are_held() -> None:
    frame = swept(30_000, seed=5)
    kept = Sample(most=1000)
    for start in range(0, len(frame), 7000):
        kept.add(pa.Table.from_pandas(frame[start : start + 7000], preserve_index=False))
    assert kept.total == 30_000 and 500 < len(kept) <= 1000 and kept.every > 30
    assert kept.rows.to_pandas()["ttft_s"].equals(frame["ttft_s"].iloc[kept.places].reset_index(drop=True))
    assert (np.diff(kept.places) > 0).all()
    assert np.isin(np.arange(0, 30_000, kept.every), kept.places).all()
    fitting = frame[frame["fits"].fillna(False).astype(bool)]
    for x, y, more in ((*PAIR, (True, True)), ("ttft_s", "total_bytes", (False, False))):
        assert {x, y} in map(set, kept.fronts)
        front = tc.pareto(frame, x, y)
        assert set(front.index) <= set(kept.places)
        points = fitting[[x, y]].drop_duplicates()
        assert len(front) == (~dominated(points, x, y, more)).sum()
    least = fitting["tpot_s"].sort_values(kind="stable").index[: sample.TOP]
    assert set(least) <= set(kept.places)


def test_every_cell_of_a_small_heat_map_has_its_best_among_the_rows_that_are_held() -> None:
    """Whatever comes first, and though another pair of options has too many cells for that."""
    frame = swept(30_000, seed=6).assign(number=np.arange(30_000))
    frame["tokens_per_s_per_device"] += np.random.default_rng(1).random(30_000)  # no two alike
    options = ("model", "hw", "tp", "batch", "number")
    kept = Sample(options=options, most=1000)
    for start in range(0, len(frame), 7000):
        kept.add(pa.Table.from_pandas(frame[start : start + 7000], preserve_index=False))
    assert kept.ranked == "tokens_per_s_per_device" and len(kept) <= 1000
    assert {*kept.cells} == {*combinations(options[:-1], 2)}
    fitting = frame[frame["fits"].fillna(False).astype(bool)]
    for pair in kept.cells:
        best = fitting.groupby([*pair], observed=True)[kept.ranked].idxmax()
        assert set(best) <= set(kept.places), pair


def test_a_page_of_some_rows_says_so_and_counts_all(monkeypatch) -> None:
    monkeypatch.setattr(Sample.__init__, "__kwdefaults__", {"options": (), "ranked": None, "most": 300})
    page = sweep_page(swept(2000))
    assert re.search(r"This page holds [0-9]+ of 2,000 rows: .* one of every [0-9]+ others", page)
    assert "<b>2,000</b> configurations" in page and "1,144 fit" in page and "285 refused" in page


def test_the_winner_is_the_best_that_fits_by_the_figure_asked_for() -> None:
    frame = swept()
    fitting = frame[frame["fits"].fillna(False).astype(bool)]
    page = sweep_page(frame, sort="tpot_s", command="tensorcast sweep <x>")
    assert f"TPOT<b>{fitting['tpot_s'].min() * 1000:.2f} ms</b>" in page
    assert "tensorcast sweep &lt;x&gt;" in page and "<script>alert" not in page and "<img src=x" not in page


def test_what_is_not_finite_is_no_figure() -> None:
    frame = swept()
    frame.loc[[0, 1], "tokens_per_s_per_device"] = [np.inf, -np.inf]
    page = sweep_page(frame)
    most = frame[frame["fits"].fillna(False).astype(bool)]["tokens_per_s_per_device"][2:].max()
    assert f"tokens/s per device<b>{most:g}</b>" in page
    colours = explorer(frame).charts["parallel"]["data"][0]["line"]["color"]
    assert max(colours) == most and len(colours) == 135


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (swept(1), "<b>1</b> configuration:"),
        (swept().iloc[6::7], "34 refused"),
        (swept().iloc[2::21], "None fits; what needs least memory"),
        (swept(12).drop(columns=["model", "hw"]), "<b>12</b> configurations"),
        (swept(12)[["tp", "fits", "reason"]], "<b>12</b> configurations"),
        (swept(0), "<b>0</b> configurations"),
        (swept().assign(tp=1, batch=1, model="a", hw="b"), "137 fit"),
        (swept().assign(batch=range(240), model="a", hw="b", tp=1), 'data-column="batch"'),
    ],
    ids=["one", "refused", "unfit", "no names", "no figures", "none", "nothing varies", "one option varies"],
)
def test_odd_frames_have_a_page(frame: pd.DataFrame, said: str) -> None:
    assert said in sweep_page(frame)


def test_where_nothing_fits_there_is_no_winner() -> None:
    page = sweep_page(swept().iloc[2::21])
    assert "<h2>What needs least memory</h2>" in page and "winner" not in page.partition("<script")[0]
    assert "<h2>The winner and the runners-up</h2>" in sweep_page(swept())


def test_a_heat_map_needs_two_options_and_rows_that_fit() -> None:
    one = swept().assign(hw="h100-sxm", tp=1, batch=1)
    choices = explorer(one).choices
    assert list(choices["options"]) == ["model", "hw"] and (choices["across"], choices["up"]) == ("hw", "model")
    assert "heatmap" not in explorer(one.drop(columns="hw")).charts
    assert "heatmap" not in explorer(swept().iloc[2::21]).charts


def test_a_figure_that_no_row_has_can_be_asked_for() -> None:
    page = sweep_page(swept().assign(request_latency_s=np.nan), sort="request_latency_s", x="request_latency_s")
    assert '<option value="request_latency_s" selected>' in page and "137 fit" in page


def test_options_that_are_no_numbers_are_no_numbers_in_the_table_of_the_best() -> None:
    flags = pd.array([True, None] * 20, dtype="boolean")
    page = sweep_page(swept(40).assign(kernel=pd.Categorical(["moe=fused", None] * 20), sequence_parallel=flags))
    table = page.partition('id="runners-up"')[2].partition("</table>")[0]
    heads = dict(re.findall(r'<th scope="col" data-name="(\w+)" title="[^"]*"( class="number")?>', table))
    assert (heads["kernel"], heads["sequence_parallel"]) == ("", "") and heads["tp"] and heads["ttft_s"]
    assert '<td data-value="moe=fused">moe=fused</td>' in table and '<td data-value="true">yes</td>' in table


def test_figures_under_load_are_told_where_there_are_such() -> None:
    found = explorer(swept().assign(ttft_loaded_s=lambda rows: rows["ttft_s"] * 3))
    assert "ttft_loaded_s" in found.main and "tpot_loaded_s" not in found.main
    axes = found.charts["parallel"]["data"][0]["dimensions"]
    assert "TTFT load [s]" in [axis["label"] for axis in axes]


def test_what_is_not_there_is_an_error_in_one_line() -> None:
    with pytest.raises(InputError, match="no column 'ttft'; there is ttft_s"):
        sweep_page(swept(), x="ttft")
    with pytest.raises(InputError, match="'reason'"):
        sweep_page(swept().drop(columns="reason"))


def test_parallel_coordinates_of_many_rows_have_the_best_and_even_lines() -> None:
    frame = swept(9000)
    found = explorer(frame)
    assert MOST_LINES - 10 < found.lines <= MOST_LINES < found.lined
    colours = found.charts["parallel"]["data"][0]["line"]["color"]
    half = swept(40).assign(tokens_per_s_per_device=lambda rows: rows["tokens_per_s_per_device"].where(rows["tp"] > 1))
    assert (
        explorer(half).lines == explorer(half).lined == half[half["fits"].eq(True)]["tokens_per_s_per_device"].count()
    )
    assert "are drawn: the best" not in sweep_page(half)
    assert max(colours) == frame[frame["fits"].fillna(False).astype(bool)]["tokens_per_s_per_device"].max()


@pytest.fixture
def llama(own_folder):
    """A small model, and the flags that ask for it."""
    (own_folder / "llama").mkdir()
    (own_folder / "llama" / "config.json").write_text(json.dumps(TINY["llama"]))
    return ("--model", "./llama", "--hw", "h100-sxm", "--input-len", "64", "--output-len", "4")


@pytest.mark.parametrize(
    ("verb", "flags", "said"),
    [
        ("sweep", ("--tp", "1,3", "--batch", "1:4"), "<b>8</b> configurations"),
        ("optimize", ("--devices", "2", "--batch", "1:4"), "against its limits"),
        ("optimize", ("--devices", "2", "--batch", "1", "--mode", "disaggregated"), "pairs of them, one for prompts"),
        ("compare", ("--tp", "1,2", "--values", "1:4"), "Who leads in tokens/s per device"),
        ("compare", ("--tp", "1,2", "--along", "none"), "Side by side"),
    ],
)
def test_every_search_writes_its_page_and_says_how_to_reproduce_it(run, llama, verb, flags, said) -> None:
    code, _, err = run(verb, *llama, *flags, "--html", "page one.html")
    assert (code, err) == (0, "")
    page = Path("page one.html").read_text(encoding="utf-8")
    line = f"tensorcast {verb} {' '.join(llama)} {' '.join(flags)} --html &#39;page one.html&#39;"
    assert said in page and line in page


def test_what_meets_no_limit_still_has_a_page(run, llama) -> None:
    code, _, err = run("optimize", *llama, "--devices", "2", "--tpot", "1ns", "--html", "page.html", "--quiet")
    page = Path("page.html").read_text(encoding="utf-8")
    assert code == 3 and err.startswith("no plan meets the limits")
    assert "No plan meets the limits." in page and "would do" in page and "--tpot" in page


@pytest.mark.parametrize("verb", ["sweep", "optimize", "compare"])
def test_a_page_that_cannot_be_written_is_said_before_the_work(run, verb: str, own_folder) -> None:
    flags = ("--devices", "2") if verb == "optimize" else ()
    code, out, err = run(verb, "--model", "nothing", "--hw", "nothing", *flags, "--html", "no/page.html")
    assert (code, out) == (2, "") and err.startswith("error: --html no/page.html: there is no folder")
    assert err.count("\n") == 1


def test_a_template_with_an_error_leaves_no_file(run, llama, own_folder) -> None:
    (own_folder / "reports").mkdir()
    (own_folder / "reports" / "sweep.html").write_text("{{ explorer.nothing }}")
    code, _, err = run("sweep", *llama, "--html", "page.html", "--quiet")
    assert code == 2 and "sweep.html:1" in err and err.count("\n") == 1 and not Path("page.html").exists()
