"""`tensorcast list`, `show` and `cache`, and the tables they print."""

from __future__ import annotations

import dataclasses
import json
import sys
import types

import pytest

from tensorcast.catalog import Catalog
from tensorcast.cli.table import print_facts, print_rows, shown


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    parameters: int | None


@pytest.fixture
def rooms(monkeypatch) -> Catalog[int]:
    """Small rooms in the place of the real ones."""
    pipelines: Catalog[int] = Catalog("pipeline", patterns=True)
    contents = {
        "tensorcast.models.entries": {"list_models": lambda: [Row("qwen3-8b", 8_190_735_360), Row("toy", None)]},
        "tensorcast.models.reference": {"describe_model": lambda name: {"name": name, "config": {"layers": 2}}},
        "tensorcast.pipelines": {"PIPELINES": pipelines},
        "tensorcast.trace.cache": {"info": lambda: {"folder": "/c", "entries": 3}, "clear": lambda: 3},
    }
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


def test_catalogs_show_origin_and_what_was_replaced(run, rooms) -> None:
    assert run("list", "pipelines") == (0, "no pipelines\n", "")
    rooms.register("qwen3", 1, origin="builtin")
    rooms.register("qwen3", 2, origin="custom_model/my.py:3", replace=True)
    assert run("list", "pipelines")[1].splitlines() == [
        "name   origin                replaces",
        "qwen3  custom_model/my.py:3  builtin",
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
    print_facts({"a": {"b": 1.0e12}, "tiers": [{"n": 8}, {"n": 2}], "empty": None})
    assert capsys.readouterr().out == "a:\n  b: 1000000000000.0\ntiers:\n  -\n    n: 8\n  -\n    n: 2\nempty:\n"


def test_chosen_columns(capsys) -> None:
    print_rows([{"a": 1, "b": "x"}], ["b"])
    assert capsys.readouterr().out == "b\nx\n"
