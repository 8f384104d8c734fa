"""`tensorcast calibrate`: what was put into a table comes out of it; nothing is written by halves."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from tensorcast.calibration.calibrate import NEEDED
from tensorcast.calibration.profile import in_blocks
from tensorcast.cost import predict
from tensorcast.hardware.load import load_file
from tests.cli.measured import MACHINE, broken, folder_of, machine, table


def calibrated(run, tmp_path, *args: str, out: str = "new.yaml", **frames: pd.DataFrame) -> tuple[str, str]:
    """(path of the new file, what was printed)."""
    target = str(tmp_path / out)
    code, told, err = run(
        "calibrate", "--hw", machine(tmp_path), "--data", folder_of(tmp_path, **frames), "--out", target, *args
    )
    assert (code, err) == (0, "")
    return target, told


def test_the_truth_is_found_again(run, tmp_path) -> None:
    frame = table(tmp_path, rows=150)
    target, told = calibrated(run, tmp_path, memory=frame)
    unseen = table(tmp_path, rows=400, noise=0).iloc[150:]
    error = np.abs(predict("memory", unseen, target) / unseen["latency_s"] - 1)
    assert np.median(error) < 0.02 and error.quantile(0.9) < 0.04
    row = load_file(target).coefficient("copy", "any")
    assert (row.kind, row.kernel, row.formula) == ("calibrated", "torch_copy", "stream")
    assert row["em"] == pytest.approx(0.62, rel=0.05) and row.error[0] < 4
    assert re.search(r"copy torch_copy +\d+ .* / .* \d", told) and "more" in told and target in told


def test_products_in_tiles(run, tmp_path) -> None:
    target, _ = calibrated(run, tmp_path, "--restarts", "0", gemm=table(tmp_path, "gemm", rows=120))
    assert load_file(target).coefficient("gemm", "bf16").error[0] < 6


def test_the_rest_of_the_file_stays(run, tmp_path) -> None:
    target, _ = calibrated(run, tmp_path, memory=table(tmp_path))
    old, new = yaml.safe_load(MACHINE), yaml.safe_load(open(target).read())
    assert new.pop("coefficients").keys() == {"copy"} and new["sources"].pop("copy_1").startswith(
        "memory table, torch 1"
    )
    assert new == old


def test_calibrating_twice_replaces_rows(run, tmp_path) -> None:
    first, _ = calibrated(run, tmp_path, memory=table(tmp_path))
    data = folder_of(tmp_path, memory=table(tmp_path))
    code, _, err = run("calibrate", "--hw", first, "--data", data, "--out", first, "--force")
    assert (code, err) == (0, "") and len(load_file(first).coefficients["copy"]) == len(
        load_file(first).coefficients["norm"]
    ) + 1


def test_other_machines_rows_are_passed_over(run, tmp_path) -> None:
    mixed = pd.concat([table(tmp_path), table(tmp_path).assign(device="h100_sxm", latency_s=1.0)])
    target, _ = calibrated(run, tmp_path, memory=mixed)
    assert load_file(target).coefficient("copy").rows < 200 and load_file(target).coefficient("copy").error[0] < 4


def refused(run, tmp_path, frame: pd.DataFrame, *args: str) -> str:
    target = tmp_path / "new.yaml"
    where = folder_of(tmp_path, memory=frame)
    code, out, err = run("calibrate", "--hw", machine(tmp_path), "--data", where, "--out", str(target), *args)
    assert (
        code == 2 and (not out or args) and err.count("\n") == 1 and err.startswith("error: ") and not target.exists()
    )
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    return err


def test_too_few_rows_are_refused_with_the_number(run, tmp_path) -> None:
    told = refused(run, tmp_path, table(tmp_path, rows=NEEDED - 1))
    assert f"{NEEDED - 1} rows are too few" in told and f"at least {NEEDED} are needed" in told
    calibrated(run, tmp_path, memory=table(tmp_path, rows=NEEDED))


def test_a_kernel_with_too_few_rows_is_named_beside_the_others(run, tmp_path) -> None:
    few = table(tmp_path, rows=5).assign(op="softmax", kernel="torch_softmax")
    _, told = calibrated(run, tmp_path, memory=pd.concat([table(tmp_path), few]))
    assert "softmax any torch_softmax: 5 rows are too few" in told


def test_no_rows_of_the_machine(run, tmp_path) -> None:
    assert "no rows of bench-1; its devices are h100_sxm" in refused(
        run, tmp_path, table(tmp_path).assign(device="h100_sxm")
    )


@pytest.mark.parametrize("way", broken(pd.DataFrame({"latency_s": [1.0] * 5, "rows": 1})))
def test_a_bad_table_is_one_line(run, tmp_path, way: str) -> None:
    frame, says = broken(table(tmp_path))[way]
    assert says in refused(run, tmp_path, frame)


def test_a_file_is_replaced_only_when_asked(run, tmp_path) -> None:
    target = tmp_path / "new.yaml"
    target.write_text("precious")
    asked = ("calibrate", "--hw", machine(tmp_path), "--data", folder_of(tmp_path, memory=table(tmp_path)))
    code, out, err = run(*asked, "--out", str(target))
    assert (code, out) == (2, "") and "--force replaces it" in err and target.read_text() == "precious"
    assert run(*asked, "--out", str(target), "--force")[0] == 0 and load_file(target).name == "bench-1"
    for out in ("-", str(tmp_path / "new.txt"), str(tmp_path / "none" / "new.yaml")):
        code, _, err = run(*asked, "--out", out)
        assert code == 2 and err.count("\n") == 1


def test_a_file_that_would_not_load_is_not_written(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tensorcast.calibration.calibrate.with_rows", lambda *args: "nonsense: [")
    assert "would not load" in refused(run, tmp_path, table(tmp_path), "--restarts", "0")


def test_odd_names_survive(run, tmp_path) -> None:
    for at, name in enumerate(("no", "a: b, {c}", 'quote " and \\', "1e5", "ünï #x")):
        target, _ = calibrated(run, tmp_path, out=f"{at}.yaml", memory=table(tmp_path, kernel=name, version=name))
        assert load_file(target).coefficient("copy", "any", name).kernel == name


def test_sections_on_one_line_become_blocks() -> None:
    text = 'a: {b: 1}\nsources: {me: "x: y", you: z}\ncoefficients: {}\n'
    assert yaml.safe_load(in_blocks(text)) == {"a": {"b": 1}, "sources": {"me": "x: y", "you": "z"}}
    assert in_blocks(in_blocks(text)) == in_blocks(text)


def test_accuracy_agrees_with_what_calibrate_said(run, tmp_path) -> None:
    frame = table(tmp_path)
    target, _ = calibrated(run, tmp_path, memory=frame)
    _, out, _ = run("accuracy", folder_of(tmp_path, memory=frame), "--hw", target, "--held-out", "--json", "-")
    (group,) = json.loads(out)["groups"]
    error = load_file(target).coefficient("copy").error
    assert (group["median"], group["p90"]) == (pytest.approx(error[0], abs=0.15), pytest.approx(error[1], abs=0.15))
