"""Pareto fronts against the definition, pair by pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorcast as tc
from tensorcast.search.pareto import front

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 2)), max_size=40)


def by_definition(points: list[tuple]) -> list[int]:
    """Positions of the points that no other dominates; of equal ones the first."""

    def beats(a: tuple, b: tuple, earlier: bool) -> bool:
        return a[0] >= b[0] and a[1] >= b[1] and (a != b or earlier)

    return [i for i, b in enumerate(points) if not any(beats(a, b, j < i) for j, a in enumerate(points) if j != i)]


def frame(points: list[tuple], **columns) -> pd.DataFrame:
    names = ["tokens_per_s_per_user", "tokens_per_s_per_device", "group"]
    return pd.DataFrame(points, columns=names).assign(fits=True, **columns)


@settings(max_examples=100, deadline=None)
@given(POINTS)
def test_the_front_is_that_of_the_definition(points: list[tuple]) -> None:
    pairs = [(float(x), float(y)) for x, y, _ in points]
    x, y = (np.array([pair[k] for pair in pairs]) for k in (0, 1))
    found = front(x, y)
    assert sorted(found.tolist()) == by_definition(pairs)
    assert (np.diff(x[found]) > 0).all() and (np.diff(y[found]) < 0).all()


@settings(max_examples=50, deadline=None)
@given(POINTS, st.booleans(), st.booleans())
def test_directions_and_groups(points: list[tuple], more_x: bool, more_y: bool) -> None:
    found = tc.pareto(frame(points), maximize=(more_x, more_y), by="group")
    wanted = []
    for group in dict.fromkeys(point[2] for point in points):
        rows = [i for i, point in enumerate(points) if point[2] == group]
        signed = [(points[i][0] * (1 if more_x else -1), points[i][1] * (1 if more_y else -1)) for i in rows]
        wanted += sorted((rows[i] for i in by_definition(signed)), key=lambda i: points[i][0])
    assert found.index.tolist() == wanted


def test_times_are_better_when_less() -> None:
    df = pd.DataFrame({"ttft_s": [1.0, 2.0, 3.0], "tokens_per_s": [5.0, 4.0, 9.0], "fits": True})
    assert tc.pareto(df, "ttft_s", "tokens_per_s").index.tolist() == [0, 2]
    assert tc.pareto(df, "ttft_s", "tokens_per_s", maximize=(True, True)).index.tolist() == [2]


def test_rows_that_do_not_fit_or_have_no_figures_never_win() -> None:
    df = frame([(9, 9, 0), (8, 8, 0), (1, 1, 0), (2, 0, 0)])
    df["fits"] = pd.array([False, None, True, True], dtype="boolean")
    df.loc[4] = [np.nan, 99.0, 0, True]
    assert tc.pareto(df).index.tolist() == [2, 3]
    assert tc.pareto(df, fit_only=False).index.tolist() == [0]
    assert len(tc.pareto(df.iloc[:0])) == 0


def test_an_infinite_figure_counts() -> None:
    assert front(np.array([1.0, 2.0]), np.array([np.inf, -np.inf])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x": "tokens_per_s_per_usr"}, "no column 'tokens_per_s_per_usr'; there is tokens_per_s_per_user"),
        ({"y": "name"}, "'name' holds no numbers"), ({"maximize": True}, "two truth values"),
        ({"by": "no"}, "no column"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(options: dict, said: str) -> None:
    with pytest.raises(tc.InputError, match=said):
        tc.pareto(frame([(1, 1, 0)], name="x"), **options)
    with pytest.raises(tc.InputError, match=r"no column 'fits'.*fit_only=False"):
        tc.pareto(frame([(1, 1, 0)]).drop(columns="fits"))
