"""`tensorcast list`, `show` and `cache`, and the tables they print."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import pytest

from tensorcast.cli.table import print_facts, print_rows, shown


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    parameters: int | None


@pytest.fixture
def rooms(monkeypatch) -> list[dict]:
    """Small rooms in the place of the real ones; gives the list of pipelines."""
    pipelines: list[dict] = []
    contents = {
        "tensorcast.models.entries": {"list_models": lambda: [Row("qwen3-8b", 8_190_735_360), Row("toy", None)]},
        "tensorcast.models.describe": {"describe_model": lambda name: {"name": name, "config": {"layers": 2}}},
        "tensorcast.pipelines": {"list_pipelines": lambda: pipelines},
        "tensorcast.trace.cache": {"info": lambda: {"folder": "/c", "entries": 3}, "clear": lambda: 3},
    }
    monkeypatch.setattr("tensorcast.custom.sources.Sources.load", lambda self: None)
    for name, attributes in contents.items():
        module = types.ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, leaf = name.rpartition(".")
        if parent != "tensorcast":
            __import__(parent)
            monkeypatch.setattr(sys.modules[parent], leaf, module, raising=False)
    return pipelines


def test_rows_are_aligned_and_greppable(run, rooms) -> None:
    code, out, err = run("list", "models")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "name         parameters",
        "qwen3-8b  8,190,735,360",
        "toy",
    ]


def test_json_has_plain_figures(run, rooms) -> None:
    assert json.loads(run("list", "models", "--json")[1])[0] == {"name": "qwen3-8b", "parameters": 8190735360}


def test_an_empty_room_says_so_and_an_entry_shows_what_it_replaced(run, rooms) -> None:
    assert run("list", "pipelines") == (0, "no pipelines\n", "")
    rooms.append({"model_type": "qwen3", "origin": "custom_model/my.py:3", "replaces": "builtin"})
    assert run("list", "pipelines")[1].splitlines() == [
        "model type  origin                replaces",
        "qwen3       custom_model/my.py:3  builtin",
    ]


def test_show_prints_one_fact_a_line(run, rooms) -> None:
    assert run("show", "model", "toy")[1] == "name: toy\nconfig:\n  layers: 2\n"
    assert json.loads(run("show", "model", "toy", "--json")[1]) == {"name": "toy", "config": {"layers": 2}}


def test_cache(run, rooms) -> None:
    assert run("cache", "info")[1] == "folder: /c\nentries: 3\n"
    assert run("cache", "clear")[1] == "deleted: 3\n"


def test_cells() -> None:
    assert [shown(value) for value in (None, True, 1234, 1.5, ["a", 1], "two\nlines")] == [
        "", "yes", "1,234", "1.5", "a, 1", "two lines",
    ]  # fmt: skip


def test_facts_nest(capsys) -> None:
    peak = {"value": 1.5e12, "status": "measured", "source": "a run"}
    print_facts({"a": {"b": 1.0e12}, "peak": peak, "tiers": [{"n": 8, "x_flops": 2e12}, {"n": 12}], "empty": None})
    assert capsys.readouterr().out.splitlines() == [
        "a:",
        "  b: 1,000,000,000,000",
        "peak: 1,500,000,000,000 (measured: a run)",
        "tiers:",
        "   n             x",
        "   8  2.00 TFLOP/s",
        "  12",
        "empty:",
    ]


def test_chosen_columns(capsys) -> None:
    print_rows([{"a": 1, "b": "x"}], ["b"])
    assert capsys.readouterr().out == "b\nx\n"


# -- the real rooms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["models", "hardware", "kernels", "ops", "pipelines", "profiles"])
def test_everything_known_is_listed_with_its_origin(run, what: str) -> None:
    code, out, err = run("list", what, "--json")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert rows or what == "pipelines"
    assert all(row["origin"] for row in rows)
    assert run("list", what)[0] == 0


def test_machines_are_listed_in_units_and_in_full(run) -> None:
    out = run("list", "hardware")[1]
    line = next(line for line in out.splitlines() if line.startswith("h100-sxm"))
    assert ("74.5 GiB" in line) and ("3.35 TB/s" in line) and ("989 TFLOP/s" in line) and ("h100-80g" in line)
    assert "all have    origin builtin\n" in out
    row = next(row for row in json.loads(run("list", "hardware", "--json")[1]) if row["name"] == "ascend-310p")
    assert row["bf16_flops"] is None and row["fp16_flops"] > 0 and "310p" in row["aliases"]


def test_an_own_machine_is_listed_with_its_file(run, tmp_path, monkeypatch) -> None:
    from tensorcast.hardware.load import names

    (tmp_path / "hardware_profiles").mkdir()
    mine = tmp_path / "hardware_profiles" / "mine.yaml"
    mine.write_text(names()["h100-sxm"].read_text().replace("name: h100-sxm", "name: mine"))
    monkeypatch.chdir(tmp_path)
    row = next(row for row in json.loads(run("list", "hardware", "--json")[1]) if row["name"] == "mine")
    assert row["origin"] == str(mine)


def test_show_tells_the_source_of_every_figure(run) -> None:
    facts = json.loads(run("show", "hardware", "h100", "--json")[1])
    assert (facts["name"], facts["asked"], facts["origin"]) == ("h100-sxm", "h100", "builtin")
    assert facts["figures"]["memory.bytes"]["value"] == 80_000_000_000
    for field, figure in facts["figures"].items():
        assert figure["status"] in ("specified", "measured", "assumed") and figure["source"], field
    assert all(row["provenance"] for row in (*facts["coefficients"], *facts["collectives"]))
    assert "  memory.bytes: 80,000,000,000 (specified: " in run("show", "hardware", "h100")[1]


def test_show_model_tells_the_published_facts(run) -> None:
    facts = json.loads(run("show", "model", "deepseek-v3", "--json")[1])
    assert facts["parameters"] == 671_026_404_352 and facts["hub_id"] == "deepseek-ai/DeepSeek-V3"
    assert facts["config"]["kv_lora_rank"] == 512 and facts["source"].startswith("https://")


@pytest.mark.parametrize(("what", "near"), [("model", "nearest: qwen3-8b"), ("hardware", "nearest: h100")])
def test_show_of_something_unknown_is_one_line(run, what: str, near: str) -> None:
    code, out, err = run("show", what, {"model": "qwen3-8bb", "hardware": "h1000"}[what])
    assert (code, out, err.count("\n")) == (2, "", 1) and near in err
