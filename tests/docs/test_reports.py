"""docs/reports.md and docs/columns.md say what is so."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from tensorcast.cli import compare, optimize, simulate, sweep
from tensorcast.report.tables.columns import FORMS
from tensorcast.report.tables.reference import reference

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "reports.md").read_text("utf-8")
VERBS = {"simulate": simulate, "sweep": sweep, "optimize": optimize, "compare": compare}
SNIPPETS = re.findall(r"```python\n(.*?)```", GUIDE, re.S)


def test_columns_are_up_to_date() -> None:
    """`python -m tensorcast.report.tables.reference docs/columns.md` makes it so."""
    assert (DOCS / "columns.md").read_text("utf-8") == reference()


def test_every_key_has_a_meaning_and_a_known_unit() -> None:
    rows = [line.strip("| ").split(" | ") for line in reference().splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] not in ("key", "column", "---")]
    known = {*FORMS, "text", "true or false", "list", "object", "number", "currency", "J", ""}
    assert len(rows) > 500
    assert [row for row in rows if len(row) != 3 or not row[2] or row[1] not in known] == []


def test_the_table_of_flags_is_that_of_the_verbs() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in GUIDE.splitlines() if line.startswith("|")
    ]
    named = {cells[0].strip("`").split()[0]: cells[1:] for cells in rows if cells[0].startswith("`--")}
    files = {"html", "markdown", "json", "csv", "parquet", "tables", "trace"}
    assert set(named) == {f"--{name}" for name in files}
    for place, (verb, module) in enumerate(VERBS.items()):
        has = {name for param in module.command.params for name in param.opts}
        assert {flag for flag, cells in named.items() if cells[place]} == has & set(named), verb
        assert {"--keep", "--force"} <= has


def test_the_snippets_run(run, own_folder, monkeypatch) -> None:
    """On files of the names that they give."""
    asked = ("simulate", "--model", "qwen3-0.6b", "--hw", "h100", "--layers", "1", "-q")
    assert run(*asked, "--json", "result.json", "--parquet", "ops.parquet") == (0, "", "")
    (own_folder / "tensorcast").write_text(f'#!/bin/sh\nexec {sys.executable} -m tensorcast "$@"\n')
    (own_folder / "tensorcast").chmod(0o755)
    monkeypatch.setenv("PATH", f"{own_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    validated, read = SNIPPETS
    exec(validated, {})
    names: dict = {}
    exec(read, names)
    found = json.loads(Path("result.json").read_text())
    assert names["rest"]["metrics"] == found["metrics"] and names["units"]["time_s"] == "s"
    assert len(names["rows"]) == sum(len(phase["ops"]) for phase in found["phases"].values())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", GUIDE):
        assert (DOCS / target).exists(), target
