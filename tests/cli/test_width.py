"""In a pipe no line of any verb is wider than 80 columns and none has colour, and no name is lost by it."""

from __future__ import annotations

import json

import pytest
from rich.text import Text

from tensorcast.cli.table import fact_lines, row_lines
from tests.cli.measured import folder_of, machine, table
from tests.verify.tiny import TINY

LONG = "a_folder_whose_name_is_longer_than_any_column_of_a_table_and_even_than_a_line_of_80_columns"
SPLIT = (
    "--hw h100 --gpu-memory-utilization 0.5,0.9 --batch 1,2 --input-len 64,128 --output-len 8,16 "
    "--max-model-len 256,512 --runtime graph,eager"
)
WORK = "--input-len 64 --output-len 8".split()


def whole(text: str) -> str:
    """A text without what lines were broken with."""
    return "".join(text.split())


@pytest.fixture
def fits(run):
    """(arguments of a verb) → what it prints, which is at most 80 wide; `code` is its exit code."""

    def fits(*args: str, code: int = 0) -> str:
        found, out, err = run(*args)
        assert found == code, err
        wide = [line for line in out.splitlines() if len(line) > 80]
        assert not wide and "\x1b" not in out
        return out

    return fits


@pytest.fixture
def models(own_folder) -> list[str]:
    """Folders of two tiny models, one with a long name."""
    for name, kind in ((LONG, "llama"), ("moe", "qwen3_moe")):
        (own_folder / name).mkdir()
        (own_folder / name / "config.json").write_text(json.dumps(TINY[kind]))
    return [f"./{LONG}", "./moe"]


@pytest.mark.parametrize("what", ["models", "hardware", "kernels", "ops", "pipelines", "profiles"])
def test_lists_keep_every_name(what: str, fits, run, own_folder) -> None:
    out = fits("list", what)
    for row in json.loads(run("list", what, "--json")[1]):
        name = row.get("name", row.get("model_type"))
        assert any(name in line.split() for line in out.splitlines()), name


def test_what_is_left_out_of_a_list_is_named(fits, own_folder) -> None:
    out = fits("list", "kernels", "--hw", "ascend-910b")
    assert "not shown   " in out and "--json has them" in out
    assert fits("list", "kernels", "--explain", "attention=flash")


@pytest.mark.parametrize("name", ["deepseek-v3", "flux.1-dev", "sdxl-base"])
def test_show_model(name: str, fits, run) -> None:
    facts = json.loads(run("show", "model", name, "--json")[1])
    assert facts["source"] in whole(fits("show", "model", name))


def test_show_hardware_with_every_source(fits, run) -> None:
    out = whole(fits("show", "hardware", "ascend-910b"))
    facts = json.loads(run("show", "hardware", "ascend-910b", "--json")[1])
    assert all(whole(figure["source"]) in out for figure in facts["figures"].values())


@pytest.mark.parametrize(
    "flags",
    [
        "-m ./moe --hw ascend-910b --tp 2 --ep 2 --quant w8a8 --batch 4 --overlap dual-batch",
        f"-m ./{LONG} --hw h100 --phase train --pp 2 --batch 4",
        f"-m ./{LONG} --hw h100 --runtime eager --seq-lens 128,77{',5' * 30} --top 3 --output-len 8",
        "-m qwen3-vl-2b --layers 1 --hw h100 --image 448x448 --quant fp8",
        pytest.param("-m flux.1-dev --layers 1 --hw h100 --tp 2 --top 0", marks=pytest.mark.nightly),
    ],
)
def test_simulate(flags: str, fits, models) -> None:
    out = fits("simulate", *flags.split())
    assert LONG not in flags or LONG in whole(out)


FRONT = "tokens_per_s_per_user,tokens_per_s_per_device"


def test_sweep_compare_and_optimize(fits, models) -> None:
    for out in (
        fits("sweep", "--model", ",".join(models), *SPLIT.split()),
        fits("sweep", "--model", ",".join(models), "--hw", "h100", "--batch", "1:8", *WORK),
        fits("sweep", "--model", ",".join(models), "--hw", "h100", "--batch", "1:64", "--pareto", FRONT, *WORK),
        fits("compare", "--model", ",".join(models), "--hw", "h100", "--values", "1:8", *WORK),
        fits(
            "optimize", "--model", models[0], "--hw", "h100", "--devices", "2", "--jobs", "1", "--batch", "1:4", *WORK
        ),
        fits("check", models[0]),
    ):
        assert LONG in whole(out)


def test_measured_kernels(fits, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / LONG).mkdir()
    data = folder_of(tmp_path / LONG, memory=table(tmp_path))
    assert LONG in whole(fits("accuracy", data, "--hw", machine(tmp_path, truth=True)))
    fits("calibrate", "--hw", machine(tmp_path), "--data", data, "--out", "new.yaml", "--restarts", "0")


def test_the_rest(fits, own_folder) -> None:
    fits("cache", "info")
    fits("new", "hardware", "my-chip", "--like", "h100")
    fits("check", "hardware_profiles/my-chip.yaml")
    fits("check", "nothing-there", code=2)


def test_columns_that_do_not_fit() -> None:
    rows = [
        {
            "name": "n" * 30,
            "kind": "k",
            "text": f"{at}" + "t" * 60,
            "origin": f"{'d' * 40}/file.py:{at}",
            "more": at + 1e7,
        }
        for at in range(2)
    ]
    lines = [line.plain for line in row_lines(rows, None, 80)]
    assert lines[0].split() == ["name", "text", "origin"]
    assert lines[2] == f"{'n' * 30}  1{'t' * 24}…  …{'d' * 9}/file.py:1"
    assert lines[3:] == ["all have    kind k", "not shown   more · --json has them"]
    assert row_lines(rows, ["name", "kind"], 80)[0].plain == f"{'name':<30}  kind"


def test_a_key_is_whole_whatever_the_width() -> None:
    (_, line, *_) = row_lines([{"name": "n" * 100, "more": 1}], None, 80)
    assert line.plain == "n" * 100


def test_facts_are_whole() -> None:
    lines = list(fact_lines({"a": {"url": "https://host/" + "x" * 100}}, {}, 80))
    assert all(isinstance(line, Text) and len(line) <= 80 for line in lines)
    assert "https://host/" + "x" * 100 in whole("".join(line.plain for line in lines))
