"""Boundaries of the unit policy; the docstrings' examples run too."""

from __future__ import annotations

import doctest
import math

import pytest

from tensorcast import catalog, units
from tensorcast.report.terminal import lines


@pytest.mark.parametrize("module", [units, catalog, lines])
def test_docstring_examples(module) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (999.4e-6, "999 us"), (999.5e-6, "1.00 ms"), (1e-3, "1.00 ms"), (9.996e-3, "10.0 ms"), (99.96e-3, "100 ms"),
        (0.9994, "999 ms"), (0.9996, "1.00 s"), (1e-10, "0.1 ns"), (-0.05, "-50.0 ms"), (3600, "3,600 s"),
    ],
)  # fmt: skip
def test_seconds(value: float, text: str) -> None:
    assert units.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1023, "1,023 B"), (1024, "1.00 KiB"), (1023.4 * 1024, "1,023 KiB"), (1023.6 * 1024, "1.00 MiB"),
        (2**40, "1.00 TiB"), (5000 * 2**40, "5,000 TiB"), (-(2**30), "-1.00 GiB"), (512.0, "512 B"),
    ],
)  # fmt: skip
def test_bytes(value: float, text: str) -> None:
    assert units.bytes_(value) == text


def test_decimal_prefixes() -> None:
    assert units.flop(999) == "999 FLOP"
    assert units.flop(999_499) == "999 kFLOP"
    assert units.flop(999_500) == "1.00 MFLOP"
    assert units.bandwidth(999.6e9) == "1.00 TB/s"
    assert units.flops(1e21) == "1,000 EFLOP/s"


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_no_figure_is_said_so(value: float | None) -> None:
    for form in (units.seconds, units.bytes_, units.flop, units.flops, units.bandwidth, units.count, units.percent):
        assert form(value) == "n/a"


def test_percent_boundaries() -> None:
    assert [units.percent(v) for v in (0.9994, 0.9996, 2.25, 0.0005, 0.0004)] == [
        "99.9 %", "100 %", "225 %", "0.1 %", "<0.1 %",
    ]  # fmt: skip
