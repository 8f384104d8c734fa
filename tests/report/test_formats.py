"""Every kind of result in every format: JSON by its schema, CSV, Parquet and Markdown with the JSON's figures."""

from __future__ import annotations

import copy
import csv
import io
import json
import zipfile

import jsonschema
import pandas
import pyarrow.parquet as pq
import pytest

import tensorcast as tc
from tensorcast.errors import InputError
from tensorcast.estimate import Estimate
from tensorcast.report.data.csv import to_csv
from tensorcast.report.data.json import to_json
from tensorcast.report.data.parquet import to_parquet, to_tables
from tensorcast.report.files import FORMATS, content
from tensorcast.report.markdown import to_markdown
from tensorcast.report.tables.columns import OPERATOR
from tensorcast.report.tables.schema import SCHEMAS
from tests.report.kinds import KINDS, asked
from tests.report.read_markdown import number, sections
from tests.report.sample import sample

VALID = jsonschema.Draft202012Validator(SCHEMAS["simulate"])
FIRST = next(iter(KINDS))


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def estimate(kind, tmp_path_factory) -> dict:
    """The JSON as a reader of the file has it."""
    return simulated(kind, tmp_path_factory.mktemp("model"))


def simulated(kind: str, folder) -> dict:
    return json.loads(to_json(tc.simulate(**asked(kind, folder), custom_dir=False, cache=False).to_dict()))


def operators(estimate: dict) -> list[dict]:
    return [{"phase": name, **op} for name, phase in estimate["phases"].items() for op in phase["ops"]]


def test_the_json_is_as_its_schema_says(estimate, kind) -> None:
    VALID.validate(estimate)
    assert bool(estimate["uncosted_ops"]) == (kind == "uncosted")


def test_the_csv_has_every_digit(estimate) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(estimate))))
    for row, op in zip(rows, operators(estimate), strict=True):
        assert {name: type(op[name])(cell) for name, cell in row.items() if cell} == {
            n: v for n, v in op.items() if v != ""
        }
        assert all(op.get(name, "") == "" for name, cell in row.items() if not cell)


def test_parquet_has_every_digit_with_types_and_units(estimate, tmp_path) -> None:
    (tmp_path / "r.parquet").write_bytes(to_parquet(estimate))
    table = pq.read_table(tmp_path / "r.parquet")
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    assert rows == operators(estimate)
    assert str(table.schema.field("count").type) == "int64" and str(table.schema.field("time_s").type) == "double"
    said = {each.name: {key.decode(): text.decode() for key, text in each.metadata.items()} for each in table.schema}
    assert {name: said[name] for name in ("time_s", "comm_bytes", "op")} == {
        "time_s": {"unit": "s", "meaning": "of all calls"},
        "comm_bytes": {"unit": "bytes", "meaning": "sent to other devices"},
        "op": {"unit": "", "meaning": "operator; aten:: for those of PyTorch"},
    }
    header = json.loads(pq.read_metadata(tmp_path / "r.parquet").metadata[b"tensorcast"])
    for name, phase in estimate["phases"].items():
        header["phases"][name] |= {"ops": phase["ops"], "timeline": phase["timeline"]}
    assert header == estimate
    times = pandas.read_parquet(tmp_path / "r.parquet")["time_s"].tolist()
    assert times == [op["time_s"] for op in operators(estimate)]


def test_the_tables_are_the_same_in_both_formats(estimate) -> None:
    with zipfile.ZipFile(io.BytesIO(to_tables(estimate))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert json.loads(files.pop("report.json")) == estimate
    names = {name.partition(".")[0] for name in files}
    assert {"metrics", "memory", "phases", "operators", "steps", "assumptions", "passes", "timeline", "layers"} <= names
    assert len(files) == 2 * len(names) and ("communication" in names) == any(
        "ranks" in op for op in operators(estimate)
    )
    for name in names:
        typed = pq.read_table(io.BytesIO(files[f"{name}.parquet"]))
        text = list(csv.reader(io.StringIO(files[f"{name}.csv"].decode())))
        assert text[0] == typed.column_names
        for cells, row in zip(text[1:], typed.to_pylist(), strict=True):
            assert [_read(cell, value) for cell, value in zip(cells, row.values(), strict=True)] == list(row.values())


def _read(cell: str, like):
    """A cell as the type of the value beside it."""
    if isinstance(like, list):
        return [float(each) for each in cell.split(", ")]
    return None if like is None and not cell else type(like)(cell)


def test_markdown_shows_the_figures_of_the_json(estimate) -> None:
    page = {section.title: section for section in sections(to_markdown(estimate, top=3))}
    for title, figures in (("Figures", estimate["metrics"]), ("Memory per device", estimate["memory"])):
        shown = {row["figure"]: row["value"] for row in page[title].records}
        assert set(shown) == {n for n, v in figures.items() if v is not None and not isinstance(v, (bool, list))}
        for name, cell in shown.items():
            assert number(cell) == pytest.approx(figures[name], rel=0.006, abs=0.001 * cell.endswith("%")), name
    for row in page["Phases"].records:
        assert number(row["step_time_s"]) == pytest.approx(estimate["phases"][row["phase"]]["step_time_s"], rel=0.006)
    for name, phase in estimate["phases"].items():
        title = next(
            each for each in page if each.startswith(f"Operators of {name}") and each[13 + len(name) :][:1] in ("", ",")
        )
        ranked = sorted(phase["ops"], key=lambda op: -op["time_s"])[:3]
        for row, op in zip(page[title].records, ranked, strict=True):
            assert (row["op"], row["module"], row["bound"]) == (op["op"], op["module"], op["bound"])
            assert number(row["time_s"]) == pytest.approx(op["time_s"], rel=0.006)
    assert len(page["What the figures rest on"].records) == len(estimate["assumptions"])
    assert [row["reason"] for row in page["Transformation steps"].records] == [
        " ".join(step["reason"].split()) for step in estimate["steps"]
    ]
    if estimate["command"]:
        assert page["Command"].items == [estimate["command"] + "\n"]
    assert page.get("Warnings") is None or page["Warnings"].items == [
        " ".join(each.split()) for each in estimate["warnings"]
    ]


def test_markdown_draws_the_timelines_that_the_page_draws(estimate) -> None:
    """Passes and layers fill their time with those that are alike as one row; of each layer the longest calls."""
    page = {section.title: section for section in sections(to_markdown(estimate, top=2))}
    for title, key, whole in (("Timeline of a phase", "parts", "timeline"), ("Timeline of a pass", "runs", "shown")):
        for name, phase in estimate["phases"].items():
            rows = [row for row in page[title].records if row["phase"] == name]
            line = phase["timeline"]
            assert sum(int(row["runs"]) for row in rows) == len(line[key])
            end = line["seconds"] if whole == "timeline" else max(run["end_s"] for run in line["runs"])
            assert number(rows[-1]["end_s"]) == pytest.approx(end, rel=0.006)
    for name, phase in estimate["phases"].items():
        for kind in phase["timeline"]["kinds"]:
            title = next(each for each in page if each.startswith(f"{kind['name']} of {name}"))
            longest = sorted((op["time_s"] for op in kind["ops"]), reverse=True)[:2]
            shown = sorted((number(row["time_s"]) for row in page[title].records), reverse=True)
            assert shown == pytest.approx(longest, rel=0.006)


# -- what does not depend on the kind ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict:
    return simulated(FIRST, tmp_path_factory.mktemp("model"))


def test_a_new_key_anywhere_is_not_valid(plain) -> None:
    """In every object but those whose keys are names of others."""
    free = {"peak_flops", "vector_flops", "modules", "phases", "provenance"}
    tried = 0
    for path in _objects(plain):
        changed = copy.deepcopy(plain)
        inside = changed
        for step in path:
            inside = inside[step]
        if path and path[-1] in free:
            continue
        inside["new_figure_s"] = 1.0
        assert not VALID.is_valid(changed), path
        tried += 1
    assert tried > 20


def _objects(value, path=()):
    """The paths of all objects; of a list that of its first element."""
    if isinstance(value, dict):
        yield path
        for name, part in value.items():
            yield from _objects(part, (*path, name))
    elif isinstance(value, list) and value:
        yield from _objects(value[0], (*path, 0))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 2),
        (("phases", "decode", "step_time_s"), "1 ms"),
        (("phases", "decode", "ops", 0, "count"), 1.5),
        (("memory", "fits"), 1),
        (("plan", "tp"), None),
        (("steps", 0, "name"), None),
    ],
)
def test_another_type_is_not_valid(plain, path, value) -> None:
    changed = copy.deepcopy(plain)
    inside = changed
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    assert not VALID.is_valid(changed)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_schemas_are_schemas(schema) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == 1


def test_show_prints_the_schema(run) -> None:
    code, out, err = run("show", "schema", "simulate")
    assert (code, err) == (0, "") and json.loads(out) == SCHEMAS["simulate"]
    code, out, err = run("show", "schema", "simulat")
    assert (code, out) == (2, "")
    assert err == "error: schema 'simulat': there is one for simulate, sweep, optimize, compare\n"


HOSTILE = "<script>alert(1)</script> a|b `c` *d* _e_ [f](g) &amp; ~~h~~ $i$ \\| # j ![k](l) __m__\nnew line"
SEEN = " ".join(HOSTILE.split())


def test_names_show_as_they_are_in_markdown() -> None:
    """As others' Markdown parser reads the page; SEEN has no markup, only text."""
    estimate = sample() | {
        "command": "tensorcast simulate --model '``` x'",
        "uncosted_ops": [HOSTILE, "- item", "1. one"],
    }
    estimate["model"]["name"] = estimate["warnings"][0] = estimate["steps"][0]["reason"] = HOSTILE
    estimate["kernels"][0]["source"] = estimate["quant"]["source"] = estimate["hardware"]["asked"] = HOSTILE
    for op in estimate["phases"]["prefill"]["ops"]:
        op["module"] = HOSTILE
    page = {section.title: section for section in sections(to_markdown(estimate))}
    assert f"{SEEN} on 8 x ascend-910b2" in page
    assert page["Not costed"].items == [SEEN, "- item", "1. one"] and page["Warnings"].items == [SEEN]
    assert page["Transformation steps"].records[0]["reason"] == SEEN
    assert {row["module"] for row in page["Operators of prefill"].records} == {SEEN}
    assert page["Kernels"].records[0]["source"] == SEEN
    assert page["Command"].items == ["tensorcast simulate --model '``` x'\n"]


def test_top_operators_are_counted() -> None:
    titles = [section.title for section in sections(to_markdown(sample(), top=2))]
    assert "Operators of prefill, 2 of 3: 90.0 % of their time" in titles
    assert not any("Operators" in section.title for section in sections(to_markdown(sample(), top=0)))


def test_what_is_not_finite_is_nothing(tmp_path) -> None:
    estimate = sample()
    estimate["phases"]["prefill"]["ops"][0]["time_s"] = float("nan")
    estimate["phases"]["prefill"]["mfu"] = float("inf")
    (tmp_path / "r.parquet").write_bytes(to_parquet(estimate))
    assert pq.read_table(tmp_path / "r.parquet")["time_s"][0].as_py() is None
    header = json.loads(pq.read_metadata(tmp_path / "r.parquet").metadata[b"tensorcast"])
    assert header["phases"]["prefill"]["mfu"] is None


@pytest.mark.parametrize("name", [name for name in FORMATS["simulate"] if name != "html"])
def test_estimates_write_themselves(name, tmp_path) -> None:
    estimate, path = Estimate(sample()), tmp_path / "r"
    more = {"top": 1} if name == "markdown" else {}
    getattr(estimate, f"to_{name}")(path, **more)
    made = content("simulate", name, estimate.to_dict(), **more)
    assert path.read_bytes() == (made if isinstance(made, bytes) else made.encode())
    with pytest.raises(InputError, match=f"^to_{name} {tmp_path}: cannot write"):
        getattr(estimate, f"to_{name}")(tmp_path)


def test_the_operators_of_the_interface_come_first() -> None:
    assert [column.name for column in OPERATOR if column.always] == [
        "op", "module", "count", "time_s", "bound", "matrix_flops", "vector_flops", "read_bytes", "write_bytes",
        "comm_bytes",
    ]  # fmt: skip
