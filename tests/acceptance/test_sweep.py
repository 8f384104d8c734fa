"""The verb `sweep`, as a user types it."""

from __future__ import annotations

import csv
import io
import json

import pytest

import tensorcast as tc
from tensorcast.cli.simulate import command as simulate
from tensorcast.cli.sweep import NOT_SWEPT, SECTIONS
from tensorcast.cli.sweep import command as sweep
from tests.verify.tiny import TINY

ASK = ("sweep", "--model", "./llama", "--hw", "h100-sxm", "--input-len", "64", "--output-len", "4")


@pytest.fixture(autouse=True)
def folder(plain_folder):
    (plain_folder / "llama").mkdir()
    (plain_folder / "llama" / "config.json").write_text(json.dumps(TINY["llama"]))
    return plain_folder


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def swept(run, *args: str) -> list[dict[str, str]]:
    """The rows as CSV of a sweep that works."""
    code, out, err = run(*ASK, *args, "--csv", "-")
    assert (code, err) == (0, "")
    return rows(out)


def test_every_flag_of_simulate_takes_lists() -> None:
    own = {param.name for param in sweep.params}
    assert {param.name for param in simulate.params if param.name not in NOT_SWEPT} < own
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(param.name for param in sweep.params)
    spellings = {param.name: param.opts for param in simulate.params}
    assert all(spellings[param.name] == param.opts for param in sweep.params if param.name in spellings)


def test_the_example_of_the_issue_spans_the_product(run) -> None:
    found = swept(run, "--tp", "1,2,3,4", "--batch", "1:8:x2", "--quant", "none,w8a8")
    assert len(found) == 4 * 4 * 2
    assert {(row["tp"], row["quant"], row["batch"]) for row in found if row["reason"]} == {
        ("3", quant, batch) for quant in ("none", "w8a8") for batch in ("1", "2", "4", "8")
    }
    point = next(row for row in found if (row["tp"], row["quant"], row["batch"]) == ("2", "w8a8", "4"))
    alone = tc.simulate("./llama", "h100-sxm", tp=2, quant="w8a8", batch=4, input_len=64, output_len=4)
    assert float(point["tpot_s"]) == pytest.approx(alone.metrics["tpot_s"], rel=1e-9)
    assert int(point["total_bytes"]) == alone.memory["total_bytes"] and point["fits"] == "true"


@pytest.mark.parametrize(
    ("args", "column", "values"),
    [
        (("--set", "num_hidden_layers=2,4", "--set", "hidden_act=silu,gelu"), "set", [
            "num_hidden_layers=2, hidden_act=silu", "num_hidden_layers=2, hidden_act=gelu",
            "num_hidden_layers=4, hidden_act=silu", "num_hidden_layers=4, hidden_act=gelu"]),
        (("--set", "num_hidden_layers=2:4:x2,none"), "set", ["num_hidden_layers=2", "num_hidden_layers=4", ""]),
        (("--kernel", "attention=flash,paged", "--kernel", "none,rms_norm=fused"), "kernel", [
            "attention=flash", "attention=flash, rms_norm=fused", "attention=paged",
            "attention=paged, rms_norm=fused"]),
        (("--quant", "w8a8", "--exclude", "re:a{1,2},lm_head"), "exclude", ["re:a{1,2}", "lm_head"]),
        (("--chunk", "none,16"), "chunk", ["", "16"]),
        (("--tp", "2", "--sequence-parallel", "on,off"), "sequence_parallel", ["true", "false"]),
        (("--tp", "2", "--sequence-parallel"), "sequence_parallel", ["true"]),
        (("--gpu-memory-utilization", "0.5:0.9:0.2"), "gpu_memory_utilization", ["0.5", "0.7", "0.9"]),
        (("--moe-imbalance", "uniform,power-law:1.2"), "moe_imbalance", ["uniform", "power-law:1.2"]),
    ],
)  # fmt: skip
def test_lists_of_every_kind(run, args, column: str, values: list[str]) -> None:
    assert [row[column] for row in swept(run, *args)] == values


def test_each_ragged_batch_is_one_alternative(run) -> None:
    args = ("sweep", "--model", "./llama", "--hw", "h100-sxm", "--output-len", "4")
    args += ("--seq-lens", "8,32", "--seq-lens", "9")
    code, out, _ = run(*args, "--csv", "-")
    assert code == 0 and [row["seq_lens"] for row in rows(out)] == ["8, 32", "9"]


def test_the_report_fits_80_columns_and_tells_what_happened(run) -> None:
    code, out, err = run(*ASK, "--tp", "1,2,3", "--batch", "1:64:x2", "--top", "4")
    assert (code, err) == (0, "") and all(len(line) <= 80 for line in out.splitlines())
    assert out.startswith("21 configurations: 14 fit, 0 do not, 7 refused\n")
    assert "Best by tokens_per_s_per_device:" in out and "  - 7 x --tp 3" in out
    table = out.split("device:\n")[1].split("\n\n")[0].splitlines()
    assert len(table) == 5 and table[1].split()[:2] == ["1", "64"], "one device, the largest batch"
    assert " GiB" in out and "n/a" not in out


def test_an_option_left_out_of_some_rows_is_an_empty_cell(run) -> None:
    code, out, err = run(*ASK, "--chunk", "none,16", "--phase", "auto")
    assert (code, err) == (0, "") and "chunk" in out and "16  " in out
    assert "Best" not in run(*ASK, "--chunk", "none,16", "--top", "0")[1]


def test_the_front_is_shown(run) -> None:
    code, out, _ = run(*ASK, "--tp", "1,2", "--batch", "1:64:x2", "--pareto", "tpot_s,tokens_per_s_per_device")
    df = tc.sweep("./llama", "h100-sxm", tp=[1, 2], batch="1:64:x2", input_len=64, output_len=4)
    front = tc.pareto(df, "tpot_s", "tokens_per_s_per_device")
    assert code == 0 and f"{len(front)} rows" in out
    shown = [tuple(map(int, line.split()[:2])) for line in out.split("\n\n")[1].splitlines()[2:]]
    assert shown == list(zip(front.tp, front.batch, strict=True))[: len(shown)] and shown


def test_where_nothing_fits_the_smallest_are_shown(run) -> None:
    args = (*ASK, "--batch", "1,2", "--gpu-memory-utilization", "0.0001")
    code, out, _ = run(*args)
    assert code == 0 and "2 configurations: 0 fit, 2 do not, 0 refused" in out and "None fits" in out
    assert run(*args, "-q", "--require-fit")[0] == 3


def test_json_and_csv_hold_every_row(run, folder) -> None:
    code, out, _ = run(*ASK, "--tp", "1,3", "--batch", "1:4", "--json", "r.json", "--csv", "r.csv", "-q")
    assert (code, out) == (0, "")
    content = json.loads((folder / "r.json").read_text())
    assert (content["schema"], content["configurations"], content["fit"], content["refused"]) == (1, 8, 4, 4)
    assert content["reasons"][0]["rows"] == 4 and len(content["rows"]) == 8
    lines = rows((folder / "r.csv").read_text())
    for line, row in zip(lines, content["rows"], strict=True):
        assert {name: cell for name, cell in line.items() if cell} == {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in row.items() if value not in (None, "")
        }  # fmt: skip


def test_a_space_file_with_flags(run, folder) -> None:
    (folder / "s.yaml").write_text("- {tp: [1, 2], batch: 4}\n- {tp: 1, batch: 1:3}\n")
    found = swept(run, "--space", "s.yaml", "--kv-cache-dtype", "auto,fp8")
    assert len(found) == 10 and {row["kv_cache_dtype"] for row in found} == {"auto", "fp8"}


def test_a_dataset_is_kept_and_continued(run, folder) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    args = (*ASK, "--tp", "1,2", "--batch", "1:8", "--out", "rows")
    first = run(*args)
    assert first[0] == 0 and sum(len(pq.read_table(part)) for part in folder.glob("rows/part-*.parquet")) == 16
    sorted(folder.glob("rows/part-*.parquet"))[0].unlink()
    assert run(*args, "--resume") == first
    code, out, err = run(*args)
    assert (code, out) == (2, "") and "--resume" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--tp", "3,5"), "all 2 configurations are refused: --tp 3"),
        (("--tp", "8:1"), "--tp: '8:1' is empty: it starts above its end"),
        (("--batch", "1:8:x1"), "--batch: '1:8:x1': the factor must be above 1"),
        (("--batch", "0,1"), "--batch: 0 is not a whole number of at least 1"),
        (("--batch", "1,,2"), "--batch: '1,,2': a value is empty"),
        (("--quant", "none,fp9"), "--quant: 'fp9' is not one of 'auto'"),
        (("--acceptance-rate", "0.5,2"), "--acceptance-rate: 2.0 is not a number from 0 to 1"),
        (("--bacth", "1"), "no option --bacth; Did you mean --batch"),
        (("--tp", "1", "--tensor-parallel-size", "2"), "--tp: given twice"),
        (("--set", "a=1", "--set", "a=2"), "--set a: given twice"),
        (("--set", "a"), "--set: 'a' is not KEY=VALUE"),
        (("--sequence-parallel", "maybe"), "--sequence-parallel: 'maybe': on, off"),
        (("--batch", "1:100000", "--chunk", "1:100000"), "10,000,000,000 configurations; give at most 1,000,000,000"),
        (("--space", "no.yaml"), "--space no.yaml: cannot be read: No such file"),
        (("--space", "s.yaml"), "--input-len is given twice"),
        (("--sort", "tok"), "--sort 'tok': no such figure"),
        (("--pareto", "ttft_s"), "--pareto 'ttft_s': two figures"),
        (("--pareto", "ttft_s,ttft"), "--pareto 'ttft': no such figure; there is ttft_s"),
        (("--resume",), "--resume continues what a run has written: it needs --out"),
        (("--csv", "-", "--json", "-"), "--csv and --json both write to -"),
        (("--csv", "no/r.csv"), "--csv no/r.csv: there is no folder"),
        (("--executor", "moon"), "--executor 'moon'"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(run, folder, args, line: str) -> None:
    (folder / "s.yaml").write_text("input_len: 3\n")
    before = sorted(path.name for path in folder.iterdir() if path.name != ".cache")
    extra = () if "--csv" in args else ("--csv", "r.csv")
    code, out, err = run(*ASK, *args, *extra)
    assert (code, out, err.count("\n")) == (2, "", 1) and line in err, err
    assert sorted(path.name for path in folder.iterdir() if path.name != ".cache") == before


def test_a_full_disk_leaves_the_old_file(run, folder, monkeypatch) -> None:
    import os

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (folder / "r.csv").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(*ASK, "--no-cache", "--csv", "r.csv")
    assert code == 2 and "--csv r.csv: cannot write: No space left on device" in err
    assert (folder / "r.csv").read_text() == "old" and not list(folder.glob(".tensorcast-*"))
