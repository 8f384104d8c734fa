from __future__ import annotations

import numpy as np
import pytest

from tensorcast.calibration.fit import Sample, evaluate, fit, part
from tensorcast.calibration.score import Score
from tensorcast.calibration.write import number_text, row_text, with_rows, with_universal
from tensorcast.cost.call import Call
from tensorcast.errors import HardwareError, InputError
from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.load import hardware
from tensorcast.ops.base import Work

H100 = hardware("h100")
TRUTH = {"t0": 4e-6, "compute": 0.61, "bandwidth": 0.72}


def sample(rows: int, noise: float = 0.0, seed: int = 0) -> Sample:
    draw = np.random.default_rng(seed)
    work = Work(10 ** draw.uniform(6, 13, rows), 0, 10 ** draw.uniform(4, 9, rows), 0)
    calls = Call(work, math="bf16")
    exact = evaluate("roofline", TRUTH, Sample(calls, np.ones(rows), H100))
    return Sample(calls, exact * np.exp(draw.normal(0, noise, rows)), H100)


def test_the_parameters_behind_the_rows_are_found():
    found = fit("roofline", [sample(100)])
    assert found.values == pytest.approx(TRUTH, rel=0.02)


def test_noise_and_outliers_do_not_carry_them_off():
    noisy = sample(200, noise=0.05)
    noisy.measured[::20] *= 5
    found = fit("roofline", [noisy])
    unseen = sample(300, seed=1)
    assert Score.of(evaluate("roofline", found.values, unseen), unseen.measured).median < 4


def test_too_few_rows_name_the_number_needed():
    with pytest.raises(InputError, match=r"29 rows are too few .* at least 30 are needed"):
        fit("roofline", [sample(29)])


def test_a_part_of_a_call_keeps_what_is_not_an_array():
    call = Call(Work(np.arange(4.0), 0, np.arange(4.0), 0), {"m": np.arange(4), "ba": 2, "tiles": np.ones((3, 4))})
    half = part(call, np.array([True, False, True, False]))
    assert list(half.work.matrix_flops) == [0, 2] and half.sizes["ba"] == 2 and half.sizes["tiles"].shape == (3, 2)


def test_scores():
    score = Score.of([1.1, 0.9, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert (score.rows, score.median, score.mean) == (4, pytest.approx(10), pytest.approx(30))
    assert score.bias == pytest.approx(100 * np.log(1.1 * 0.9 * 2) / 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**TRUTH, "compute": 1.2}, "compute must be at most 1, not 1.2"),
        ({**TRUTH, "warp": 1.0}, "roofline: parameter must be one of"),
        ({"t0": 1e-6, "compute": 0.5}, "bandwidth is missing"),
        ({**TRUTH, "t0": float("nan")}, "t0 must be a finite number"),
    ],
)
def test_bad_parameters_are_named(values, message):
    with pytest.raises(HardwareError, match=message):
        FORMULAS["roofline"].check(values)


ROW = Coefficient("gemm", "bf16", TRUTH, kernel="mine", kind="calibrated", provenance="a table", error=(4.2, 11.0))
TEXT = """name: box
coefficients:
  gemm:
    - {format: bf16, t0: 1.0e-6, compute: 0.5, bandwidth: 0.5, source: old}
  norm:
    - {format: any, t0: 3.0e-6, compute: 1.0, bandwidth: 0.3, source: kept}
# a remark
sources:
  old: "an old table"
  kept: "a data sheet"
"""


def test_rows_take_the_place_of_a_family_and_nothing_else_changes():
    text = with_rows(TEXT, "gemm", [(ROW, "new")], {"new": "a new table"})
    assert "# a remark" in text and "source: kept" in text and 'new: "a new table"' in text
    assert "an old table" not in text and "compute: 0.5" not in text
    assert row_text(ROW, "new") in text
    assert with_rows(text, "gemm", [(ROW, "new")], {"new": "a new table"}) == text


def test_a_file_without_coefficients_gets_a_section():
    text = with_rows('name: box\nsources:\n  a: "b"\n', "gemm", [(ROW, "new")], {"new": "a table"})
    assert text.index("coefficients:") < text.index("  gemm:") < text.index("sources:")


def test_universal_rows_go_before_the_rooflines():
    tiles = {name: p.start for name, p in FORMULAS["tiles"].parameters.items()}
    row = Coefficient("gemm", "bf16", tiles, formula="tiles", kernel="k", kind="universal", provenance="joint")
    once = with_universal(TEXT, "gemm", [row])
    assert once.index("formula: tiles") < once.index("compute: 0.5")
    assert with_universal(once, "gemm", [row]) == once


@pytest.mark.parametrize(("value", "text"), [(1e-9, "1.0e-9"), (0.82345678, "0.8235"), (3e11, "3.0e+11"), (64.0, "64")])
def test_numbers_are_ones_that_yaml_reads_as_numbers(value, text):
    import yaml

    assert number_text(value) == text
    assert float(yaml.safe_load(text)) == pytest.approx(value, rel=1e-3)
    assert not isinstance(yaml.safe_load(text), str)
