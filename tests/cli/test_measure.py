"""`tensorcast measure`, on the processor with a handful of shapes."""

from __future__ import annotations

import pandas as pd
import pytest

from tensorcast.cost.tables import check_frame
from tensorcast.cost.tables import table as kind_of
from tensorcast.measure import machine as machines
from tensorcast.measure import run as runs
from tensorcast.measure import shapes
from tests.cli.measured import machine


@pytest.fixture(autouse=True)
def few(monkeypatch) -> None:
    monkeypatch.setattr(runs, "SHAPES", {"quick": 3, "normal": 5, "full": 8})
    monkeypatch.setattr(runs, "BUDGET_S", {"quick": 1e-4, "normal": 1e-4, "full": 1e-4})


def measured(run, tmp_path, *args: str) -> str:
    code, out, err = run("measure", "--hw", machine(tmp_path), "--out", str(tmp_path / "m"), "--device", "cpu", *args)
    assert (code, err) == (0, "")
    return out


def test_every_family_becomes_a_table(run, tmp_path) -> None:
    told = measured(run, tmp_path, "--quick")
    files = {path.stem for path in (tmp_path / "m").iterdir()}
    assert files == {"gemm", "attention_prefill", "attention_decode", "attention_encoder", "moe", "memory", "quantize"}
    assert "collective: needs two devices or more" in told and "failed" not in told
    for family in files:
        frame = pd.read_parquet(tmp_path / "m" / f"{family}.parquet")
        assert (frame["latency_s"] > 0).all() and (frame["n_rep"] >= machines.FEWEST).all()
        assert set(frame["device"]) == {"bench-1"} and set(frame["backend"]) == {"torch"}
        assert set(frame["cache_state"]) == {"cold"} and len(frame) == 3 * frame["kernel"].nunique()
    frame = pd.read_parquet(tmp_path / "m" / "memory.parquet")
    check_frame(kind_of("memory"), frame, measured=True)
    assert {kind_of("memory").family_of({"op": op}) for op in set(frame["op"])} >= {"copy", "norm", "elementwise"}


def test_a_run_goes_on_where_it_stopped(run, tmp_path, monkeypatch) -> None:
    seconds, calls = machines.Machine.seconds, []

    def interrupted(self, call):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return seconds(self, call)

    monkeypatch.setattr(machines.Machine, "seconds", interrupted)
    asked = ("measure", "--hw", machine(tmp_path), "--out", str(tmp_path / "m"), "--device", "cpu", "--family", "gemm")
    assert run(*asked)[0] == 130
    kept = pd.read_parquet(tmp_path / "m" / "gemm.parquet")
    assert len(kept) == 3
    assert "gemm bfloat16 torch: 2 shapes measured, 3 there before" in measured(run, tmp_path, "--family", "gemm")
    now = pd.read_parquet(tmp_path / "m" / "gemm.parquet")
    pd.testing.assert_frame_equal(now.iloc[:3], kept)
    assert "0 shapes measured, 5 there before" in measured(run, tmp_path, "--family", "gemm")
    assert "3 shapes measured, 5 there before" in measured(run, tmp_path, "--family", "gemm", "--full")
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["gemm.parquet"]


def test_a_kernel_that_fails_is_told_and_left(run, tmp_path, monkeypatch) -> None:
    def broken(self, call):
        raise RuntimeError("no such kernel\nwith a long story")

    monkeypatch.setattr(machines.Machine, "seconds", broken)
    assert "gemm bfloat16 torch: 0 shapes measured, 5 failed (no such kernel)" in measured(
        run, tmp_path, "--family", "gemm"
    )
    assert not list((tmp_path / "m").iterdir())


def test_wrong_requests_are_one_line(run, tmp_path, monkeypatch) -> None:
    hw, out = ("--hw", machine(tmp_path)), ("--out", str(tmp_path / "m"))
    monkeypatch.setattr(machines, "_available", lambda kind: kind == "cpu")
    (tmp_path / "file").write_text("")
    lines = {
        (*hw, *out): "no accelerator here",
        (*hw, *out, "--device", "cuda"): "--device cuda: torch sees none here; it has cpu",
        (*hw, *out, "--device", "cpu", "--family", "gem"): "unknown family to measure 'gem'; nearest: gemm",
        (*hw, *out, "--quick", "--full"): "give one of them",
        (*hw, "--out", str(tmp_path / "file"), "--device", "cpu"): "is a file",
        ("--hw", "h1000", *out): "unknown hardware",
        out: "--hw is missing",
    }
    for args, says in lines.items():
        code, told, err = run("measure", *args)
        assert (code, told, err.count("\n")) == (2, "", 1) and says in err, (args, err)
    assert not (tmp_path / "m").exists()
    (tmp_path / "m").mkdir()
    pd.DataFrame({"m": [1]}).to_parquet(tmp_path / "m" / "gemm.parquet")
    code, _, err = run("measure", *hw, *out, "--device", "cpu", "--family", "gemm")
    assert code == 2 and "is no table of `tensorcast measure`" in err


@pytest.mark.parametrize("small", [True, False])
def test_shapes_are_spread_and_nested(small: bool) -> None:
    for make in (shapes.products, shapes.queries, shapes.contexts, shapes.images, shapes.experts, shapes.matrices):
        short, long = make(40, small), make(100, small)
        assert long[:40] == short and len({tuple(s.items()) for s in long}) == 100
        assert all(value >= 0 for s in long for value in s.values())
    rows = [s["m"] for s in shapes.products(100, False)]
    assert min(rows) <= 4 and max(rows) >= 8000
    for s in shapes.queries(60, small):
        assert s["heads"] % s["kv_heads"] == 0
    for s in shapes.experts(60, small):
        assert s["topk"] <= s["experts"]
