"""A sweep's rows against `simulate` of the same point, and what is told of those that cannot be."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorcast as tc
from tensorcast.search import sweep as sweeping
from tensorcast.search.axes.space import Space
from tensorcast.search.evaluation.figures import FIGURES
from tensorcast.search.frame import INPUTS, evaluate, joined, schema
from tests.verify.tiny import TINY


@pytest.fixture
def folder(plain_folder):
    """A current directory with the tiny models `llama`, `moe` and `bert`."""
    encoder = {
        "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 512,
    }  # fmt: skip
    for name, config in (("llama", TINY["llama"]), ("moe", TINY["qwen3_moe"]), ("bert", encoder)):
        (plain_folder / name).mkdir()
        (plain_folder / name / "config.json").write_text(json.dumps(config))
    return plain_folder


def check(df, inputs=("model", "hw", "tp", "ep", "batch", "input_len", "output_len"), **fixed) -> None:
    """Every row says what `simulate` says of its inputs: the same figures, or the same refusal."""
    for row in df.to_dict("records"):
        point = {name: row[name] for name in inputs if row[name] == row[name] and row[name] is not None} | fixed
        point = {name: value.item() if isinstance(value, np.generic) else value for name, value in point.items()}
        if row["reason"]:
            with pytest.raises(tc.TensorcastError) as refused:
                tc.simulate(**point)
            assert row["reason"] == str(refused.value) and math.isnan(row["tpot_s"])
            continue
        estimate = tc.simulate(**point).to_dict()
        for name, value in {**estimate["metrics"], **estimate["memory"]}.items():
            if name == "suggestions":
                continue
            if value is None:
                assert name not in row or row[name] is None or row[name] != row[name] or str(row[name]) == "<NA>", name
            else:
                assert row[name] == pytest.approx(value, rel=1e-9), (name, point)


def test_rows_are_what_simulate_says(folder) -> None:
    df = tc.sweep(["./llama", "./moe"], "ascend-910b", tp=[1, 2, 3], ep=[1, 2], batch=[1, 6],
                  input_len=[20, 100], output_len=8)  # fmt: skip
    assert len(df) == 2 * 3 * 2 * 2 * 2 and not df.duplicated(list(INPUTS)).any()
    refused = df[df.reason != ""]
    # tp 3 does not divide four heads, ep 2 needs two ranks: of six plans (1,1) (2,1) (2,2) can be, of llama without ep.
    assert refused.fits.isna().all() and df[df.reason == ""].fits.all()
    assert set(refused.tp) == {1, 2, 3} and (refused[refused.ep == 1].tp == 3).all()
    rng = np.random.default_rng(0)
    check(df.iloc[rng.choice(len(df), 12, replace=False)], custom_dir=True)


def test_every_row_has_its_reason_or_its_figures(folder) -> None:
    df = tc.sweep("./llama", ["h100-sxm", "no-such-machine"], batch=[1, 2], input_len=[64, 600], chunk=[None, 32],
                  output_len=4)  # fmt: skip
    assert len(df) == 16
    assert ((df.reason == "") == df.tpot_s.notna()).all() and ((df.reason == "") == df.fits.notna()).all()
    assert (df[df.hw == "no-such-machine"].reason.str.contains("no-such-machine")).all()
    long = df[(df.hw == "h100-sxm") & (df.input_len == 600)]
    assert len(long) == 4 and long.reason.str.contains("max_position_embeddings 512").all()
    assert df.chunk.isna().sum() == 8 and df.model.eq("./llama").all()


def test_other_kinds_of_models_and_work(folder) -> None:
    encoder = tc.sweep("./bert", "h100-sxm", batch=[1, 8], input_len=[16, 128])
    assert encoder.requests_per_s.notna().all() and encoder.tpot_s.isna().all()
    check(encoder, inputs=("model", "hw", "batch", "input_len"))
    training = tc.sweep("./llama", "h100-sxm", phase="train", dp=2, zero=[0, 3], batch=[2, 8], input_len=64)
    assert training.step_time_s.notna().all() and training.optimizer_bytes.notna().all()
    check(training, inputs=("model", "hw", "dp", "zero", "batch", "input_len"), phase="train")
    ragged = tc.sweep("./llama", "h100-sxm", seq_lens=[[8, 32], [16, 16, 64]], output_len=4)
    assert ragged.batch.tolist() == [2, 3] and ragged.seq_lens.tolist() == ["8, 32", "16, 16, 64"]
    one = tc.simulate("./llama", "h100-sxm", seq_lens=[8, 32], output_len=4)
    assert ragged.tpot_s[0] == pytest.approx(one.metrics["tpot_s"], rel=1e-12)
    assert "images_per_s" not in encoder and "step_time_s" not in encoder


def test_inputs_that_nobody_gave_are_those_used(folder) -> None:
    [row] = tc.sweep("./llama", "h100-sxm", output_len=8).to_dict("records")
    assert {name: row[name] for name in INPUTS} == {
        "model": "./llama", "hw": "h100-sxm", "tp": 1, "ep": 1, "dp": 1, "pp": 1, "sp": 1, "quant": "auto",
        "kv_cache_dtype": "auto", "batch": 1, "input_len": 504, "output_len": 8,
    }  # fmt: skip


def test_switches_overrides_and_lists_are_columns(folder) -> None:
    df = tc.sweep(
        "./llama", "h100-sxm", tp=2, batch=2, input_len=32, output_len=4, sequence_parallel=[False, True],
        overrides=[{"num_hidden_layers": 2}, None], exclude=[None, ["lm_head", "*.q_proj"]],
    )  # fmt: skip
    assert len(df) == 8 and df.sequence_parallel.tolist() == [False] * 4 + [True] * 4
    assert set(df["set"].dropna()) == {"num_hidden_layers=2"} and df["set"].isna().sum() == 4
    assert set(df.exclude.dropna()) == {"lm_head, *.q_proj"}
    few, many = df[df["set"].notna()].tpot_s.mean(), df[df["set"].isna()].tpot_s.mean()
    assert few < many, "two layers instead of four"


def test_strict_refuses_what_simulate_refuses(folder) -> None:
    with pytest.raises(tc.InputError, match="all 2 configurations are refused: --strict: assumed figures"):
        tc.sweep("./llama", "h100-sxm", batch=[1, 2], input_len=32, output_len=4, strict=True)


def test_all_shards_have_the_schema_of_the_space(folder) -> None:
    space = Space.of(model=["./llama", "./bert", "nobody"], hw="h100-sxm", batch=[1, 2], layers=[None, 1])
    tables = [evaluate(shard) for shard in space.shards(1)]
    assert len(tables) == 12 and {table.schema for table in tables} == {schema(space.options)}
    whole = pa.concat_tables(tables)
    assert whole["batch"].null_count == 0 and whole["fits"].null_count == 4
    few = list(joined(tables, least=5))
    assert [len(table) for table in few] == [5, 5, 2]
    assert {table.schema for table in few} == {schema(space.options)}
    assert pa.concat_tables(few).to_pylist() == whole.to_pylist()


def test_a_file_of_many_plans_has_few_row_groups(folder, run) -> None:
    plans = ("--tp", "1,2", "--pp", "1,2", "--quant", "none,w8a8", "--batch", "1,2")
    code, _, err = run("sweep", "--model", "./llama", "--hw", "h100-sxm", *plans, "-q", "--parquet", "rows.parquet")
    file = pq.ParquetFile("rows.parquet")
    assert (code, err, file.metadata.num_rows, file.num_row_groups) == (0, "", 16, 1)


def test_shards_of_any_size_say_the_same(folder, monkeypatch) -> None:
    options = dict(model="./moe", hw="h100-sxm", tp=[1, 2], batch="1:4", input_len=[16, 64], output_len=6)
    whole = tc.sweep(**options)
    monkeypatch.setattr(sweeping.Space.shards, "__defaults__", (3,))
    pd.testing.assert_frame_equal(tc.sweep(**options), whole, rtol=1e-12, atol=0)


def test_progress_ends_with_all(folder) -> None:
    told = []
    tc.sweep("./llama", ["h100-sxm", "h200-sxm"], batch=[1, 2], input_len=16, output_len=2,
             progress=lambda text, share=None: told.append((text, share)))  # fmt: skip
    assert [pair for pair in told if pair[1] is not None] == [
        ("2 of 4 configurations", 0.5),
        ("4 of 4 configurations", 1.0),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tp": [3, 5]}, "all 2 configurations are refused: --tp 3"), ({"hw": None}, "no machine; give hw"),
        ({"model": None}, "--model is missing"), ({"batch": []}, "--batch: an empty list"),
        ({"resume": True}, "needs --out"), ({"space": {"hw": "h100-sxm"}}, "--hw is given twice"),
        ({"space": 3}, "space 3: the path"), ({"space": "no.yaml"}, "cannot be read"), ({"jobs": 0}, "--jobs 0"),
        ({"executor": "moon"}, "--executor 'moon'"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_one_line(folder, options: dict, said: str) -> None:
    with pytest.raises(tc.InputError, match=said) as error:
        tc.sweep(**{"model": "./llama", "hw": "h100-sxm", **options})
    assert "\n" not in str(error.value)


def test_a_space_in_python(folder) -> None:
    union = [{"tp": [1, 2], "batch": 2}, {"tp": [2, 4], "batch": [2, 4]}]
    df = tc.sweep("./llama", "h100-sxm", space=union, input_len=16, output_len=2)
    assert sorted(zip(df.tp, df.batch, strict=True)) == [(1, 2), (2, 2), (2, 4), (4, 2), (4, 4)]


def test_figures_are_told_better_or_worse() -> None:
    assert FIGURES["ttft_s"].less and FIGURES["total_bytes"].less and not FIGURES["tokens_per_s"].less
    assert not FIGURES["max_batch"].less and not FIGURES["capacity_bytes"].less
