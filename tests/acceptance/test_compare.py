"""`tensorcast compare` on the command line: reports, files, exit codes, one line for what is wrong."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.verify.tiny import TINY


@pytest.fixture
def small(plain_folder) -> tuple[str, ...]:
    """A model in the current folder."""
    folder = plain_folder / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY["llama"]))
    return ("compare", "--model", "small")


MACHINES = ("--hw", "h100-sxm,ascend-910c-die")


def test_machines_side_by_side_from_a_process_of_its_own(tensorcast, process) -> None:
    asked = ("compare", "-m", "llama-3.1-8b", "--hw", "a100-sxm-80g,h100-sxm", "--batch", "8", "--quant", "none")
    done = tensorcast(*asked)
    assert (done.code, done.err) == (0, "") and process(*asked) == done
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  - A  a100-sxm-80g · 1 device" in lines and "  - B  h100-sxm · 1 device" in lines
    assert any(line.startswith("TPOT") and "less" in line and line.endswith("x") for line in lines)
    assert "Who leads (every batch from 1 to 512)" in lines
    assert any(line.startswith("  - A and B: h100-sxm leads up to ") for line in lines)


def test_json_partitions_the_range_and_agrees_with_the_csv(run, small) -> None:
    code, out, err = run(*small, *MACHINES, "--values", "1:64:x2", "--json", "-", "--csv", "curve.csv")
    assert (code, err) == (0, "")
    found = json.loads(out)
    curve = found["curve"]
    assert (curve["points"], curve["every_number"], curve["values"]) == (64, True, [1, 2, 4, 8, 16, 32, 64])
    for stretches in (curve["leads"], curve["pairs"][0]["stretches"], *curve["standings"].values()):
        covered = [at for each in stretches for at in range(each["first"], each["last"] + 1)]
        assert covered == list(range(1, 65))
    with open("curve.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 128 and {row["fits"] for row in rows} == {"true"}
    told = [float(row[curve["metric"]]) for row in rows if int(row["batch"]) in curve["values"]]
    assert told == curve["figures"]["h100-sxm"] + curve["figures"]["ascend-910c-die"]
    code, out, _ = run("simulate", "--model", "small", "--hw", "h100-sxm", "--batch", "16", "--json", "-")
    rate = json.loads(out)["metrics"]["tokens_per_s_per_device"]
    assert curve["figures"]["h100-sxm"][4] == pytest.approx(rate, rel=1e-9)


def test_flags_laid_over_the_common_ones(run, small) -> None:
    with_ = ("--with", "--hw h100-sxm --tp 2 --price 3", "--with", "--hw 'ascend-910c-die' --tp 1", "--price", "1.5")
    code, out, err = run(*small, *with_, "--batch", "2", "--json", "-", "--along", "none")
    assert (code, err) == (0, "")
    first, second = json.loads(out)["alternatives"]
    assert first["options"] == {"model": "small", "hw": "h100-sxm", "tp": 2, "batch": 2, "price_per_hour": 3.0}
    assert second["options"]["price_per_hour"] == 1.5 and (first["devices"], second["devices"]) == (2, 1)
    cost = 1.5 / 3600 * 1e6 / second["figures"]["tokens_per_s_per_device"]
    assert second["figures"]["cost_per_million_tokens"] == pytest.approx(cost)


def test_eight_alternatives_stay_within_80_columns(run, small) -> None:
    code, out, _ = run(*small, "--hw", "h100-sxm", "--tp", "1,2", "--dp", "1,2", "--quant", "none,fp8", "--batch", "2")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    assert "  - 28 pairs: --json has them" in out.splitlines()


def test_top_says_how_many_points_of_the_curve_are_shown(run, small) -> None:
    asked = ("--hw", "h100-sxm", "--tp", "1,2", "--values", "1:9", "--gpu-memory-utilization", "0.001", "--top")
    shown = {top: run(*small, *asked, top)[1].splitlines() for top in ("0", "3", "100")}
    for top, batches in (("0", []), ("3", [1, 5, 9]), ("100", [*range(1, 10)])):
        starts = [line.split()[0] for line in shown[top] if line.endswith("*")]
        assert starts == [str(batch) for batch in batches]
    page = run(*small, *asked, "3", "--markdown", "-")[1]
    table = page.partition("more is better; \\* does not fit)")[2].partition("##")[0].splitlines()[4:7]
    assert [line.split(" | ")[0] for line in table] == ["| 1", "| 5", "| 9"]
    assert all(line.count("\\*") == 2 for line in table)


def test_a_refused_alternative_is_shown_with_its_reason(run, small) -> None:
    code, out, err = run(*small, "--hw", "h100-sxm", "--tp", "1,3", "--values", "1:4")
    assert (code, err) == (0, "")
    assert "Refused at this work" in out and "B refused from 1 to 4 (--tp 3" in out


def test_nothing_fits(run, plain_folder) -> None:
    args = (
        "compare",
        "-m",
        "llama-3.1-405b",
        "--hw",
        "h100-sxm,h200-sxm",
        "--values",
        "1:2",
        "--require-fit",
        "--quiet",
    )
    code, out, err = run(*args)
    assert (code, out, err) == (3, "", "does not fit: no alternative does at the asked work\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--hw", "h100-sxm"], "error: one alternative only; give an option several values, such as --hw h100-sxm,"),
        (["--hw", "h100-sxm", "--with", "--tp 2"], "error: one alternative only"),
        (["--hw", "h100-sxm", "--tp", "1:9"], "error: 9 alternatives; compare takes at most 8, `sweep` any number"),
        ([*MACHINES, "--tp", "3"], "error: every alternative is refused: --tp 3"),
        ([*MACHINES, "--metric", "ttft"], "error: --metric 'ttft': no such figure; there is ttft_s"),
        ([*MACHINES, "--values", "0"], "error: --values: 0 is not a whole number of at least 1"),
        ([*MACHINES, "--values", "1:8:x1"], "error: --values: '1:8:x1': the factor must be above 1"),
        ([*MACHINES, "--price", "-1"], "error: --price: '-1' is not an amount above 0"),
        ([*MACHINES, "--along", "none", "--csv", "-"], "error: --csv has the points of the curve, and --along none"),
        ([*MACHINES, "--csv", "no/where.csv"], "error: --csv no/where.csv: there is no folder"),
        (["--with", "--tp 1", "--with", "--pt 2"], "error: --with '--pt 2': no option --pt; Did you mean"),
        (["--with", "--tp 1", "--with", "--tp x"], "error: --with '--tp x': --tp: 'x' is not a whole number"),
        (["--with", "--tp 1", "--with", "--hw 'a"], 'error: --with "--hw \'a": No closing quotation'),
        (["--with", "--tp 1", "--with", "tp 2"], "error: --with 'tp 2': Got unexpected extra arguments (tp 2)"),
        (["--with", "--tp 1", "--with", " "], "error: --with: is empty; give a value"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_2(run, small, args: list[str], line: str) -> None:
    code, out, err = run(*small, *args)
    assert (code, out) == (2, "") and err.startswith(line) and err.count("\n") == 1


def test_csv_on_standard_output_is_all_that_is_printed(run, small) -> None:
    code, out, err = run(*small, *MACHINES, "--values", "3", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "") and [row["alternative"] for row in rows] == ["h100-sxm", "ascend-910c-die"]
