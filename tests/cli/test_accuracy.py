"""`tensorcast accuracy`: figures that can be checked by hand, and one line for every bad table."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tensorcast
from tensorcast.calibration.data import held_out
from tensorcast.calibration.score import Score
from tensorcast.cost.tables import table as kind_of
from tests.cli.measured import broken, folder_of, machine, table

MEASURED = Path(__file__).parents[3] / "shared" / "groundtruth"


def scored(run, *args: str) -> dict:
    code, out, err = run("accuracy", *args, "--json", "-")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_scores_by_hand() -> None:
    score = Score.of([1.1, 0.8, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert (score.rows, score.median, score.mean) == (4, pytest.approx(15), pytest.approx(32.5))
    assert score.p90 == pytest.approx(20 + 0.7 * 80) and score.bias == pytest.approx(25 * np.log(1.1 * 0.8 * 2))


def test_every_figure_of_a_table(run, tmp_path) -> None:
    frame = table(tmp_path, noise=0)
    frame["latency_s"] *= 1.25
    found = scored(run, folder_of(tmp_path, memory=frame), "--hw", machine(tmp_path, truth=True))
    (group,) = found["groups"]
    assert (group["device"], group["op"], group["kernel"], group["rows"]) == ("bench-1", "copy", "torch_copy", 200)
    for name in ("median", "mean", "p90"):
        assert group[name] == pytest.approx(20)
    assert group["bias"] == pytest.approx(-100 * np.log(1.25))
    plain = frame["rows"] * frame["columns"] * 4 / 1e12
    assert group["roofline"]["median"] == pytest.approx(100 * np.median(1 - plain / frame["latency_s"]))
    assert group["coefficients"]["kind"] == "calibrated" and group["coefficients"]["exact"]
    assert found["families"]["memory"]["median"] == pytest.approx(20) and found["held_out"] is False


def test_the_roofline_knows_no_cache(run, tmp_path) -> None:
    cold = scored(run, folder_of(tmp_path, memory=table(tmp_path)), "--hw", machine(tmp_path))["groups"][0]
    warm = scored(run, folder_of(tmp_path, memory=table(tmp_path, cache_state="warm_L2")), "--hw", machine(tmp_path))
    assert warm["groups"][0]["roofline"] == cold["roofline"] and warm["groups"][0]["roofline"]["bias"] is not None


def test_suspect_rows_count_for_nothing(run, tmp_path) -> None:
    frame = table(tmp_path, noise=0).assign(suspect=False, ep_artefact=False)
    frame.loc[:9, ["suspect", "latency_s"]] = [True, 1.0]
    frame.loc[10:19, ["ep_artefact", "latency_s"]] = [True, 1.0]
    (group,) = scored(run, folder_of(tmp_path, memory=frame), "--hw", machine(tmp_path, truth=True))["groups"]
    assert group["rows"] == 180 and group["p90"] < 1e-6


def test_held_out_rows_are_those_no_fit_sees(run, tmp_path) -> None:
    frame = table(tmp_path)
    mask = held_out(kind_of("memory"), frame)
    assert 20 <= mask.sum() <= 60
    found = scored(run, folder_of(tmp_path, memory=frame), "--hw", machine(tmp_path, truth=True), "--held-out")
    assert found["groups"][0]["rows"] == mask.sum() and found["held_out"] is True


def test_a_small_table_still_has_rows_to_check(tmp_path) -> None:
    for rows in (38, 40, 45):
        mask = held_out(kind_of("memory"), table(tmp_path, rows=rows))
        assert (~mask).sum() >= 30 and mask.any()


def test_the_machine_may_be_a_file_of_ones_own(run, tmp_path) -> None:
    others = table(tmp_path).assign(device=np.where(np.arange(200) % 2, "Bench_1", "h100_sxm"))
    where = folder_of(tmp_path, memory=others)
    (group,) = scored(run, where, "--hw", machine(tmp_path))["groups"]
    assert (group["rows"], group["coefficients"]["exact"]) == (100, False)
    only_h100 = folder_of(tmp_path, memory=others.assign(device="h100_sxm"))
    assert run("accuracy", only_h100, "--hw", machine(tmp_path)) == (
        2,
        "",
        f"error: {only_h100}: has no rows of bench-1; its devices are h100_sxm\n",
    )


def test_the_report_is_80_plain_columns(run, tmp_path) -> None:
    where = folder_of(tmp_path, memory=table(tmp_path), gemm=table(tmp_path, "gemm", rows=60))
    code, out, err = run("accuracy", where, "--hw", machine(tmp_path, truth=True))
    assert (code, err) == (0, "") and out.isascii()
    assert max(map(len, out.replace(where, "tables").splitlines())) <= 80
    assert "gemm on bench-1" in out and "memory on bench-1" in out and " own" in out
    assert run("accuracy", where, "--hw", machine(tmp_path), "-q") == (0, "", "")


def test_a_file_gets_the_same_json(run, tmp_path) -> None:
    where, target = folder_of(tmp_path, memory=table(tmp_path)), tmp_path / "scores.json"
    code, out, _ = run("accuracy", where, "--hw", machine(tmp_path), "--json", str(target))
    assert code == 0 and "memory on bench-1" in out
    assert json.loads(target.read_text()) == scored(run, where, "--hw", machine(tmp_path))


@pytest.mark.parametrize("way", broken(pd.DataFrame({"latency_s": [1.0] * 5, "rows": 1})))
def test_a_bad_table_is_one_line(run, tmp_path, way: str) -> None:
    frame, says = broken(table(tmp_path))[way]
    code, out, err = run("accuracy", folder_of(tmp_path, memory=frame), "--hw", machine(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("error: ") and says in err


@pytest.mark.parametrize("family", ["gemm", "attention_decode"])
def test_one_row_of_an_unknown_format_is_an_error(run, tmp_path, family: str) -> None:
    sizes = {name: 64 for name in ("m", "n", "k", "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim")}
    frame = pd.DataFrame([{**sizes, "window": 0, "dtype": dtype, "latency_s": 1e-3} for dtype in ("bf16", "bf17")])
    code, out, err = run("accuracy", folder_of(tmp_path, **{family: frame}), "--hw", "h100")
    assert (code, out, err.count("\n")) == (2, "", 1) and "bf17" in err


def test_bad_folders_files_and_devices_are_one_line(run, tmp_path) -> None:
    where = folder_of(tmp_path, memory=table(tmp_path))
    lines = {
        (str(tmp_path / "none"),): "no such folder",
        (str(tmp_path),): "holds no table",
        (where,): "unknown hardware 'bench-1'",
        (where, "--hw", "h1000"): "unknown hardware 'h1000'",
        (where, "--family", "gem"): "unknown family of kernels 'gem'; nearest: gemm",
        (where, "--family", "gemm"): "holds no table gemm.parquet; it has memory",
        (where, "--family", "e2e"): "holds no table e2e.parquet",
    }
    for args, says in lines.items():
        code, out, err = run("accuracy", *args)
        assert (code, out, err.count("\n")) == (2, "", 1) and says in err, (args, err)
    for content in (b"", b"op,dtype\n", b"PAR1" + bytes(50)):
        (Path(where) / "memory.parquet").write_bytes(content)
        code, out, err = run("accuracy", where, "--hw", machine(tmp_path))
        assert (code, out, err.count("\n")) == (2, "", 1) and "cannot be read as Parquet" in err


def served(**columns: object) -> pd.DataFrame:
    told = {"device": ["h100_sxm"] * 4, "model": "some/model", "mode": "agg", "isl": 1024, "osl": 128}
    return pd.DataFrame({**told, "ttft_s": 0.2, "tpot_s": 0.01, "queueing_suspect": [False] * 3 + [True], **columns})


def test_served_models(run, tmp_path, monkeypatch) -> None:
    def predict_serving(frame: pd.DataFrame) -> pd.DataFrame:
        assert len(frame) == 3
        told = pd.DataFrame({"ttft_s": 0.3, "tpot_s": 0.009, "reason": ["", "", ""]}, index=frame.index)
        told.loc[2] = [np.nan, np.nan, "too large"]
        return told

    monkeypatch.setattr(tensorcast, "predict_serving", predict_serving, raising=False)
    found = scored(run, folder_of(tmp_path, e2e=served()))
    (row,) = found["serving"]
    assert (row["device"], row["rows"], row["answered"]) == ("h100_sxm", 3, 2)
    assert row["tpot_s"]["median"] == pytest.approx(10) and row["ttft_s"]["median"] == pytest.approx(50)
    assert any("too large" in note for note in found["notes"])
    code, out, _ = run("accuracy", folder_of(tmp_path, e2e=served()))
    assert code == 0 and "h100_sxm agg" in out and max(map(len, out.splitlines()[2:])) <= 80


@pytest.mark.parametrize("bad", [{"tpot_s": 0.0}, {"ttft_s": np.nan}, {"tpot_s": -1.0}, {"ttft_s": "soon"}])
def test_bad_served_models(run, tmp_path, monkeypatch, bad: dict) -> None:
    monkeypatch.setattr(tensorcast, "predict_serving", types.SimpleNamespace(), raising=False)
    code, out, err = run("accuracy", folder_of(tmp_path, e2e=served(**bad)))
    assert (code, out, err.count("\n")) == (2, "", 1) and next(iter(bad)) in err


@pytest.mark.skipif(not (MEASURED / "bmm.parquet").is_file(), reason="no measured tables beside the checkout")
def test_shipped_figures_beat_the_roofline(run) -> None:
    for group in scored(run, str(MEASURED), "--family", "bmm", "--held-out")["groups"]:
        assert group["median"] < 15 < group["roofline"]["median"], group
