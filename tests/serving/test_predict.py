from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tensorcast as tc
from tensorcast.errors import InputError
from tensorcast.serving import case
from tensorcast.serving.case import case_of, plan_of, quant_of
from tensorcast.serving.predict import model_name

MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth" / "e2e.parquet"
ROW = {
    "device": "h100_sxm", "model": "meta-llama/Llama-3.1-8B-Instruct", "backend": "trtllm", "mode": "agg", "isl": 1024,
    "osl": 128, "concurrency": 8, "tp_size": 1, "attention_dp_size": None, "moe_tp_size": 1, "moe_ep_size": 1,
    "precision": None,
}  # fmt: skip


def told(*changes):
    return tc.predict_serving(pd.DataFrame([{**ROW, **change} for change in changes]))


def test_examples_of_plans_hold():
    assert doctest.testmod(case).failed == 0


@pytest.mark.parametrize(
    ("flags", "plan"),
    [
        ((1, 0, 1, 0), (1, 1, 1)),
        ((8, 1, 1, 8), (8, 1, 8)),
        ((16, 1, 4, 4), (4, 1, 4)),
        ((1, 16, 4, 4), (1, 4, 4)),
        ((4, 0, 2, 2), (4, 1, 2)),
        ((1, 8, 1, 8), (1, 8, 8)),
        ((2, 2, 1, 4), (1, 2, 2)),
        ((1, 0, 4, 1), (4, 1, 1)),
    ],
)
def test_plans(flags, plan):
    assert plan_of(*flags) == plan


@pytest.mark.parametrize(
    ("row", "scheme"),
    [
        ({}, ("none", False)),
        ({"precision": float("nan")}, ("none", False)),
        ({"precision": "fp8", "gemm_dtype": "fp8"}, ("fp8", True)),
        ({"precision": "fp8", "gemm_dtype": "fp8_block"}, ("fp8-block", True)),
        ({"precision": "fp4", "gemm_dtype": "nvfp4"}, ("nvfp4", True)),
        ({"precision": "fp4"}, ("nvfp4", True)),
    ],
)
def test_schemes(row, scheme):
    assert quant_of(row) == scheme


def test_clients_of_groups_and_workers():
    assert case_of(ROW).clients == 8
    assert case_of({**ROW, "concurrency": None, "batch_size": 4, "attention_dp_size": 2, "tp_size": 1}).clients == 8
    apart = {"mode": "disagg", "decode_tp_size": 4, "prefill_tp_size": 2, "decode_num_workers": 2, "concurrency": 64}
    found = case_of({**ROW, **apart})
    assert (found.decode.tp, found.prefill.tp, found.decode_workers, found.prefill_workers) == (4, 2, 2, 1)


def test_a_quantised_copy_is_its_model():
    assert model_name("Qwen/Qwen3-235B-A22B-FP8") == "Qwen/Qwen3-235B-A22B"
    assert model_name("nobody/Nothing-FP8") == "nobody/Nothing-FP8"


def test_more_clients_wait_longer():
    found = told(*({"concurrency": c} for c in (1, 8, 64)))
    assert list(found.columns) == ["ttft_s", "tpot_s", "reason"]
    assert (found["reason"] == "").all()
    assert found["ttft_s"].is_monotonic_increasing and found["tpot_s"].is_monotonic_increasing
    weights = 8.03e9 * 2 / 3.35e12
    assert (found["tpot_s"] > weights).all()


def test_rows_keep_their_places_and_index():
    frame = pd.DataFrame(
        [{**ROW, "concurrency": c, "device": d} for c, d in ((8, "h100"), (8, "a100_sxm"), (64, "h100"))]
    )
    frame.index = [30, 10, 20]
    found = tc.predict_serving(frame)
    assert list(found.index) == [30, 10, 20]
    alone = told({"concurrency": 64})
    assert found.loc[20, "tpot_s"] == pytest.approx(alone["tpot_s"][0])
    assert found.loc[10, "tpot_s"] > found.loc[30, "tpot_s"]


def test_prompts_apart_leave_decoding_alone():
    disagg = {"mode": "disagg", "decode_tp_size": 1, "prefill_tp_size": 1, "concurrency": 16, "osl": 512}
    apart, together = told(disagg), told({"concurrency": 16, "osl": 512})
    assert apart["tpot_s"][0] < together["tpot_s"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "nobody-has-this"}, "nobody-has-this"),
        ({"device": "h9000"}, "h9000"),
        ({"backend": "my-engine"}, "my-engine"),
        ({"precision": "fp3"}, "fp3"),
        ({"concurrency": None}, "concurrency"),
        ({"isl": None}, "isl"),
        ({"osl": 0}, "osl"),
        ({"tp_size": 3}, "3"),
        ({"pp_size": 2}, "pipeline"),
    ],
)
def test_a_row_without_an_answer_says_why(change, words):
    found = told(change, {})
    assert words in found["reason"][0]
    assert np.isnan(found["tpot_s"][0]) and np.isnan(found["ttft_s"][0])
    assert found["reason"][1] == "" and found["tpot_s"][1] > 0


def test_a_missing_column_is_an_error():
    with pytest.raises(InputError, match="model"):
        tc.predict_serving(pd.DataFrame([{k: v for k, v in ROW.items() if k != "model"}]))


def test_an_empty_table_has_an_empty_answer():
    assert len(tc.predict_serving(pd.DataFrame([ROW]).iloc[:0])) == 0


@pytest.mark.skipif(not MEASURED.exists(), reason="the measured runs are not on this machine")
def test_measured_runs_of_dense_models():
    frame = pd.read_parquet(MEASURED)
    dense = frame["model"].str.contains("8B|32B") & (frame["device"] == "h100_sxm") & (frame["mode"] == "agg")
    frame = frame[dense & ~frame["queueing_suspect"] & (frame["tp_size"] <= 2)]
    found = tc.predict_serving(frame)
    assert (found["reason"] == "").mean() >= 0.95
    tpot = (found["tpot_s"] / frame["tpot_s"] - 1).abs().median()
    ttft = (found["ttft_s"] / frame["ttft_s"] - 1).abs().median()
    assert tpot < 0.15 and ttft < 0.55
