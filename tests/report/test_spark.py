"""Sparklines: the height of every character, what stands behind them, and the ridge of a sweep that they draw."""

from __future__ import annotations

import doctest

import numpy as np
import pandas
import pyarrow as pa
import pytest

from tensorcast.report.terminal import spark as module
from tensorcast.report.terminal.spark import spark, spark_lines, steps
from tensorcast.search.along import Along
from tensorcast.search.summary import Summary
from tensorcast.units import seconds

NAN = float("nan")


def test_the_examples_in_the_code_hold() -> None:
    assert doctest.testmod(module, extraglobs={"np": np}).failed == 0


def test_heights_by_hand() -> None:
    # Seven steps from 0 to 70: ten a character, and 34 is nearer to the third step than to the fourth.
    assert spark([0, 10, 20, 30, 40, 50, 60, 70], 0, 70) == "▁▂▃▄▅▆▇█"
    assert spark([34, 36, 70], 0, 70) == "▄▅█"
    assert spark([70, NAN, 0], 0, 70, ascii_only=True) == "@ ."
    assert spark([5.0, 5.0, NAN], 5, 5) == "▄▄·"


def test_neighbours_share_a_character_and_the_best_is_drawn() -> None:
    values = np.array([1.0, 9.0, 2.0, NAN, NAN, NAN, 7.0, 8.0])
    assert steps(values, 4, less=False).tolist()[:2] == [9.0, 2.0]
    assert steps(values, 4, less=True).tolist() == pytest.approx([1.0, 2.0, NAN, 7.0], nan_ok=True)
    assert len(steps(np.arange(5000.0), 40, less=False)) == 40


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.1, 0.8, NAN], "  batch  ▁█·  1 to 4: from 100 ms at 1 to 800 ms at 2"),
        ([NAN, 0.8, NAN], "  batch  ·▄·  1 to 4: 800 ms at 2 alone"),
        ([0.8, 0.8, NAN], "  batch  ▄▄·  1 to 4: 800 ms wherever it fits"),
        ([NAN, NAN, NAN], "  batch  1 to 4: none fits"),
    ],
)
def test_what_stands_behind(values: list[float], line: str) -> None:
    curves = {"batch": (np.array([1, 2, 4]), np.array(values))}
    assert [text.plain for text in spark_lines(curves, seconds, 80, less=True, one_scale=False)] == [line]


def test_where_there_is_no_room_figures_stand_below() -> None:
    curves = {"max_model_len": (np.array([1_152, 40_000]), np.array([32_226.0, 32_384.0]))}
    lines = spark_lines(curves, lambda value: f"{value:,.0f}", 72, less=False, one_scale=False)
    first, second = (line.plain for line in lines)
    assert first == "  max_model_len  ▁█  "
    assert second == "    1,152 to 40,000: from 32,226 at 1,152 to 32,384 at 40,000"


def test_one_scale_for_all() -> None:
    points = np.array([1, 2])
    curves = {"A": (points, np.array([1.0, 8.0])), "B": (points, np.array([2.0, 3.0]))}
    lines = spark_lines(curves, seconds, 80, less=True, one_scale=True)
    assert [line.plain[5:7] for line in lines] == ["▁█", "▂▃"]


def table(rows: pandas.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows, preserve_index=False)


def test_the_ridge_is_the_best_at_every_value_whatever_the_tables() -> None:
    random = np.random.default_rng(7)
    rows = pandas.DataFrame(
        {
            "tp": random.choice([1, 2, 4], 500),
            "batch": random.integers(1, 20, 500),
            "hw": random.choice(["a", "b"], 500),
            "ttft_s": np.where(random.random(500) < 0.1, NAN, random.random(500)),
        }
    )
    rows.loc[rows.batch == 7, "ttft_s"] = NAN
    fits = random.random(500) < 0.7
    along = Along(["tp", "batch", "hw"])
    for part in np.array_split(np.arange(500), 7):
        along.add(table(rows.iloc[part]), fits[part], ["ttft_s"])
    found = along.ridges("ttft_s")
    assert set(found) == {"tp", "batch"}  # a machine is no number
    for name, ridge in found.items():
        best = rows.assign(ttft_s=rows.ttft_s.where(fits)).groupby(name).ttft_s.min()
        assert ridge.points.tolist() == best.index.tolist()
        np.testing.assert_array_equal(ridge.values, best.to_numpy())
    assert np.isnan(found["batch"].values[6])


def test_a_sweep_keeps_the_ridge_of_what_it_sorts_by() -> None:
    rows = pandas.DataFrame(
        {
            "batch": [1, 2, 4, 8],
            "reason": ["", "", "", "no"],
            "fits": [True, True, False, None],
            "tokens_per_s": [10.0, 30.0, 90.0, NAN],
            "total_bytes": [1, 1, 1, None],
        }
    )
    summary = Summary(sort="tokens_per_s", along=["batch"])
    summary.add(table(rows))
    ridge = summary.along.ridges("tokens_per_s")["batch"]
    assert ridge.points.tolist() == [1, 2, 4, 8]
    assert ridge.values.tolist() == pytest.approx([10.0, 30.0, NAN, NAN], nan_ok=True)
