"""JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from tensorcast.report.data.csv import to_csv
from tensorcast.report.data.json import dumps, to_json
from tests.report.sample import sample


def test_json_is_the_estimate() -> None:
    assert json.loads(to_json(sample())) == sample()
    assert to_json(sample()).endswith("}\n")


def test_json_is_strict() -> None:
    text = dumps({"nan": math.nan, "inf": [np.float64("inf")], "array": np.arange(2), "scalar": np.int64(3), 4: (1,)})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": None, "inf": [None], "array": [0, 1], "scalar": 3, "4": [1],
    }  # fmt: skip


def test_json_refuses_what_it_cannot_say() -> None:
    with pytest.raises(TypeError):
        dumps({"thing": object()})


def test_csv_has_one_row_per_phase_and_operator() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(sample()))))
    assert [(row["phase"], row["op"]) for row in rows] == [
        (phase, op) for phase in ("prefill", "decode") for op in ("linear", "rms_norm", "all_reduce")
    ]
    assert rows[0]["time_s"] == "0.6" and float(rows[0]["matrix_flops"]) == 2e15
    assert list(rows[0]) == [
        "phase", "op", "module", "count", "time_s", "bound", "matrix_flops", "vector_flops", "read_bytes",
        "write_bytes", "comm_bytes",
    ]  # fmt: skip


def test_csv_keeps_a_new_column_and_empties_what_is_not_finite() -> None:
    estimate = sample()
    estimate["phases"]["prefill"]["ops"][0] |= {"time_s": math.nan, "stream": "main"}
    row = next(csv.DictReader(io.StringIO(to_csv(estimate))))
    assert row["time_s"] == "" and row["stream"] == "main"
