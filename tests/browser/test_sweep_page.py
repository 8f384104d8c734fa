"""The page of a sweep, in a browser: other axes redraw with the right values, and the table gives the right rows."""

from __future__ import annotations

import csv
import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import tensorcast as tc
from tensorcast import units
from tensorcast.report.charts.heatmap import heatmap_chart
from tensorcast.report.charts.pareto import pareto_chart
from tensorcast.report.data.rows import CsvRows
from tensorcast.report.pages import sweep_page
from tensorcast.report.pages.sample import Sample
from tests.browser.conftest import PHONE
from tests.report.rows import MODELS, swept

DATA = """id => document.getElementById(id).data.map(trace =>
  ({name: trace.name, x: [...trace.x], y: [...trace.y], z: trace.z, customdata: trace.customdata}))"""
SMALL = """[...document.querySelectorAll("main *")].filter((each) => each.checkVisibility() && !each.closest("svg") &&
  !each.childElementCount && each.textContent.trim() && parseFloat(getComputedStyle(each).fontSize) < 12)
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Times from nanoseconds to days, memory from bytes to tebibytes."""
    rows = swept()
    random = np.random.default_rng(2)
    wide = rows["tpot_s"] * 10 ** random.uniform(-6, 8, len(rows))
    wide_bytes = (rows["total_bytes"] * 10 ** random.uniform(-10, 3, len(rows))).round()
    score = np.where(random.random(len(rows)) < 0.2, np.nan, -(10 ** random.uniform(-18, 22, len(rows))))
    return rows.assign(tpot_s=wide, total_bytes=wide_bytes, Score=score)


@pytest.fixture(scope="module")
def report(tmp_path_factory, frame):
    path = tmp_path_factory.mktemp("page") / "sweep.html"
    path.write_text(sweep_page(frame, command="tensorcast sweep --model '<b>'"), encoding="utf-8")
    return path


def choose(page, chart: str, **values: str) -> None:
    for name, value in values.items():
        page.locator(f'[data-chart="{chart}"] select[name="{name}"]').select_option(value)


def rows_of(page) -> list[list[str]]:
    return page.eval_on_selector_all(
        "#rows-table tbody tr", "rows => rows.map(r => [...r.cells].map(c => c.innerText))"
    )


def downloaded(page) -> str:
    with page.expect_download() as found:
        page.locator("#rows-csv").click()
    assert found.value.suggested_filename == "tensorcast-sweep.csv"
    return found.value.path().read_text(encoding="utf-8")


def same_trace(drawn: dict, wanted: dict) -> None:
    assert drawn["x"] == pytest.approx(wanted["x"]) and drawn["y"] == pytest.approx(wanted["y"])
    assert (drawn["name"], drawn["customdata"]) == (wanted["name"], wanted["customdata"])


def names_are_shown_letter_by_letter(page) -> None:
    assert "alert(1)" in page.locator("h1").inner_text() and page.locator("#answer script, td b, td img").count() == 0
    choose(page, "pareto", colour="model")
    choose(page, "heatmap", up="model")
    for chart in ("pareto", "parallel", "heatmap"):
        texts = page.eval_on_selector_all(f"#{chart} text", "all => all.map(each => each.textContent)")
        assert sum(text.removeprefix("model ") in MODELS for text in texts) >= 2, texts
    choose(page, "pareto", x="ttft_s", y="tpot_s")
    page.evaluate("Plotly.Fx.hover('pareto', [{curveNumber: 0, pointNumber: 3}])")
    told = page.locator("#pareto .hoverlayer text").first
    assert f"model {MODELS[0]}" in told.text_content() and "memory " in told.text_content()


def test_charts_are_drawn_and_other_axes_redraw_them_with_the_values_of_python(opened, report, frame) -> None:
    with opened(report) as page:
        assert page.locator("#pareto .points path").count() > 100
        assert page.locator("#parallel canvas").count() >= 1 and page.locator("#parallel .axis-title").count() == 9
        hover = ["model", "hw", "tp", "batch", "tokens_per_s_per_device", "tokens_per_s_per_user", "ttft_s", "tpot_s",
                 "total_bytes", "request_latency_s"]  # fmt: skip
        for x, y, colour in (
            ("tokens_per_s_per_user", "tokens_per_s_per_device", None), ("request_latency_s", "total_bytes", "model")
        ):  # fmt: skip
            choose(page, "pareto", x=x, y=y, colour=colour or "")
            drawn, wanted = page.evaluate(DATA, "pareto"), pareto_chart(frame, x, y, colour, hover)["data"]
            assert len(drawn) == len(wanted)
            for one, other in zip(drawn, wanted, strict=True):
                same_trace(one, other)
            best = tc.pareto(frame, x, y)
            assert (
                drawn[-1]["x"] == best[x].tolist()
                and f": {len(best)} of the " in page.locator("#pareto + figcaption").inner_text()
            )
        for across, up, value in (("batch", "model", "tokens_per_s_per_device"), ("hw", "tp", "total_bytes")):
            choose(page, "heatmap", across=across, up=up, value=value)
            (drawn,), (wanted,) = page.evaluate(DATA, "heatmap"), heatmap_chart(frame, across, up, value)["data"]
            assert drawn == {key: wanted.get(key) for key in drawn}
        assert "least memory of" in page.locator("#heatmap + figcaption").inner_text()
        names_are_shown_letter_by_letter(page)


def as_csv(rows: pd.DataFrame) -> str:
    """As `sweep --csv` writes them."""
    made = io.BytesIO()
    table = CsvRows(made)
    table.add(pa.Table.from_pandas(rows, preserve_index=False))
    table.close({})
    return made.getvalue().decode("utf-8")


def tells_filters_apart(page, frame: pd.DataFrame) -> None:
    """Units, blanks, what has no value, and what cannot be looked for, which leaves the rows as they are."""
    counted = page.locator("#rows-count")
    for text, rows in (
        ("ttft_s < 300ms", frame["ttft_s"] < 0.3),
        ("total_bytes<=1GiB", frame["total_bytes"].fillna(2**40) <= 2**30),
        ("Score=none", frame["Score"].isna()),
        ("score>-1e-7", frame["Score"] > -1e-7),
        ("tp=", frame["tp"] > 0),
        ('hw=own,"odd".yaml', frame["hw"] != "h100-sxm"),
        ("3: <img", frame["reason"] != ""),
    ):
        page.locator("#rows-filter").fill(text)
        assert counted.inner_text().split(",")[0] == f"{rows.sum()} of 240 rows", text
    for text, said in (
        ("ttft<0.5", "no column ttft"),
        ("constructor=1", "no column constructor"),
        ("ttft_s<x", "x: not a"),
    ):
        page.locator("#rows-filter").fill(text)
        assert counted.inner_text().startswith(said) and len(rows_of(page)) == 34


def test_charts_of_a_page_that_holds_some_rows_say_so(opened, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Sample.__init__, "__kwdefaults__", {"options": (), "ranked": None, "most": 400})
    (tmp_path / "some.html").write_text(sweep_page(swept(2000)), encoding="utf-8")
    with opened(tmp_path / "some.html") as page:
        page.set_viewport_size({"width": 794, "height": 1123})  # paper
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#rows-count").is_visible() and not page.locator("#rows-csv").is_visible()
        page.wait_for_function("document.documentElement.scrollWidth <= 794")
        assert "rows on this page that fit" in page.locator("#pareto + figcaption").inner_text()
        words = page.locator("#heatmap + figcaption")
        assert "of the rows with that" in words.inner_text()  # every cell has its best
        page.emulate_media(media="screen")
        page.locator('[data-chart="heatmap"] [name="value"]').select_option("ttft_s")
        assert "Rows left out may have better ones" in words.inner_text()


def is_legible(page, width: int) -> None:
    """Nothing is wider than the screen or too small, and the dark scheme is dark."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(SMALL) == []
    back, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    dark, light = (sum(map(int, each[4:-1].split(","))) for each in (back, text))
    assert dark < 100 < 500 < light


def test_the_table_sorts_filters_shows_more_and_gives_the_rows_that_are_left(opened, report, frame) -> None:
    with opened(report, PHONE, "dark") as page:
        header = page.locator('#rows-table th[data-column="tpot_s"]')
        names = page.eval_on_selector_all("#rows-table th", "all => all.map(each => each.dataset.column)")
        assert [names[0], names[-2:]] == ["model", ["fits", "reason"]]
        fits = [row[-2] for row in rows_of(page)]
        assert len(fits) == 50 and set(fits) == {"yes"}
        page.locator("#rows-more").click()
        all_rows = rows_of(page)
        assert len(all_rows) == 240 and [row[-2] for row in all_rows][-34:] == [""] * 34
        for name, form in (("tpot_s", units.seconds), ("total_bytes", units.bytes_)):
            told = sorted(form(value) for value in frame[name].dropna().tolist())
            assert sorted(filter(None, (row[names.index(name)] for row in all_rows))) == told
        assert rows_of(page)[-1][-1] == frame["reason"].iloc[6]
        header.locator("button").focus()
        page.keyboard.press("Enter")
        at = names.index("tpot_s")
        told = [units.seconds(value) for value in sorted(frame["tpot_s"].dropna())[:50]]
        assert header.get_attribute("aria-sort") == "ascending" and [row[at] for row in rows_of(page)] == told
        header.locator("button").click()
        assert header.get_attribute("aria-sort") == "descending" and rows_of(page)[0][at] == units.seconds(
            frame["tpot_s"].max()
        )

        page.locator("#rows-filter").fill("h100 tp=2 ttft_s<0.3 fits=yes")
        left = frame[
            (frame["hw"] == "h100-sxm") & (frame["tp"] == 2) & (frame["ttft_s"] < 0.3) & frame["fits"].fillna(False)
        ]
        assert 5 < len(left) < 50 and len(rows_of(page)) == len(left)
        assert page.locator("#rows-count").inner_text() == f"{len(left)} of 240 rows"
        text = downloaded(page)
        assert text == as_csv(left.sort_values("tpot_s", ascending=False, kind="stable"))
        tells_filters_apart(page, frame)
        page.locator("#rows-filter").fill("onerror")
        refused = list(csv.DictReader(io.StringIO(downloaded(page))))
        assert len(refused) == 34 and {row["reason"] for row in refused} == {frame["reason"].iloc[6]}
        assert {(row["fits"], row["tpot_s"]) for row in refused} == {("", "")}
        page.locator("#rows-filter").fill("nothing-has-this")
        assert rows_of(page) == [] and page.locator("#rows-count").inner_text() == "0 of 240 rows"
        is_legible(page, PHONE["width"])
