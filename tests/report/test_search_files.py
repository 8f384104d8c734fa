"""What sweep, optimize and compare write: each format says what the others say, and the JSON is as its schema says."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import jsonschema
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tensorcast as tc
from tensorcast.report.data.rows import ParquetRows
from tensorcast.report.tables.schema import SCHEMAS
from tensorcast.search.evaluation.figures import COSTS
from tests.report.read_markdown import number, sections
from tests.verify.tiny import TINY

FORMATS = ("json", "csv", "parquet", "markdown")
SERVE = ("--hw", "h100-sxm", "--input-len", "64", "--output-len", "8")
ASKED = {
    "sweep": ("--tp", "1,3", "--batch", "1:4", "--kernel", "rms_norm=fused", "--layers", "2"),
    "sweep, a front": ("--batch", "1:64:x2", "--pareto", "ttft_s,tokens_per_s_per_device"),
    "sweep, none fits": ("--batch", "1:2", "--gpu-memory-utilization", "0.001"),
    "optimize": ("--devices", "2", "--ttft", "1s", "--price", "2", "--batch", "1:16:x2", "--kernel", "rms_norm=fused"),
    "optimize, in halves": ("--devices", "4", "--mode", "disaggregated", "--batch", "1:16:x2"),
    "optimize, nothing meets": ("--devices", "1", "--tpot", "1ns", "--batch", "1:4"),
    "compare": ("--tp", "1,2", "--values", "1,2,8", "--price", "3"),
    "compare, one refused": ("--tp", "2,3", "--values", "1,8"),
    "compare, no curve": ("--tp", "1,2", "--along", "none"),
}


@pytest.fixture(params=ASKED)
def asked(request) -> str:
    return request.param


@pytest.fixture
def files(asked, run, own_folder) -> dict[str, Path]:
    """The files that one command line wrote."""
    Path("config.json").write_text(json.dumps(TINY["llama"]))
    verb = asked.partition(",")[0]
    names = [name for name in FORMATS if asked != "compare, no curve" or name in ("json", "markdown")]
    flags = [word for name in names for word in (f"--{name}", f"r.{name}")]
    code, out, err = run(verb, "--model", "./config.json", *SERVE, *ASKED[asked], "-q", *flags)
    assert (code, out) == (3 if asked == "optimize, nothing meets" else 0, ""), err
    return {name: Path(f"r.{name}") for name in names}


def test_every_format_says_the_same(files, asked) -> None:
    verb, found = asked.partition(",")[0], json.loads(files["json"].read_text())
    jsonschema.Draft202012Validator(SCHEMAS[verb]).validate(found)
    page = {section.title: section for section in sections(files["markdown"].read_text())}
    assert page["Command"].items[0].startswith(f"tensorcast {verb} --model ./config.json --hw h100-sxm")
    if verb == "sweep":
        assert found["command"] == page["Command"].items[0].strip()
    {"sweep": _sweep, "optimize": _optimize, "compare": _compare}[verb](found, page)
    if "csv" not in files:
        return
    table = pq.read_table(files["parquet"])
    text = list(csv.reader(io.StringIO(files["csv"].read_text())))
    assert text[0] == table.column_names
    for cells, row in zip(text[1:], table.to_pylist(), strict=True):
        assert [_read(*both) for both in zip(cells, row.values(), strict=True)] == list(row.values())
    assert table.schema.field("total_bytes").type == pa.int64()
    if verb == "sweep":
        assert table.to_pylist() == found["rows"]
    header = json.loads(pq.read_metadata(files["parquet"]).metadata[b"tensorcast"])
    assert header == {name: value for name, value in found.items() if name != "rows"}
    said = {each.name: {key.decode(): text.decode() for key, text in each.metadata.items()} for each in table.schema}
    assert said["tpot_s"] == {"unit": "s", "meaning": "time per output token, mean over all output positions"}
    assert all(each["meaning"] and set(each) == {"unit", "meaning"} for each in said.values())
    assert len(pandas.read_parquet(files["parquet"])) == table.num_rows > 0


def _read(cell: str, like):
    """A cell as the type of the value beside it."""
    if isinstance(like, bool):
        return {"true": True, "false": False}[cell]
    return None if like is None and not cell else type(like)(cell)


def _sweep(found: dict, page: dict) -> None:
    title = f"Sweep of {found['configurations']} configurations"
    assert page[title].items[0] == "of these: {fit} fit · {unfit} do not · {refused} refused".format(**found)
    reasons = Counter(row["reason"] for row in found["rows"] if row["reason"])
    if reasons:
        assert page["Refused"].items == [f"{many} x {reason}" for reason, many in reasons.most_common()]
    if not found["fit"]:
        assert "None fits; those that need least memory" in page
        return
    best = page.get("Best by tokens_per_s_per_device")
    if best is not None:
        figures = sorted((row["tokens_per_s_per_device"] or 0 for row in found["rows"]), reverse=True)
        told = [number(row["tokens_per_s_per_device"]) for row in best.records]
        assert told == pytest.approx(figures[: len(told)], rel=0.006) and len(told) == min(10, found["fit"])
    else:
        front = page["Pareto front of ttft_s and tokens_per_s_per_device"].records
        assert [row["batch"] for row in front] == ["1", "2", "4", "8", "16", "32", "64"]


def _optimize(found: dict, page: dict) -> None:
    row = found["best"] or found["nearest"]
    title = ("Best of" if found["best"] else "Nothing meets the limits; nearest of") + f" {found['model']}"
    assert any(each.startswith(title) for each in page)
    figures = {each["figure"]: each["value"] for each in page["Figures"].records}
    for name in ("ttft_s", "tpot_s", "tokens_per_s_per_device", "total_bytes"):
        assert number(figures[name]) == pytest.approx(row[name], rel=0.006)
    for name in COSTS:
        if name in figures:
            assert number(figures[name]) == pytest.approx(row[name], rel=0.006)
            assert len(re.sub(r"^[0.]*|\.", "", figures[name])) <= 3
    assert page["Assumptions"].items[0] == "requests of 64 tokens in and 8 out"
    assert found["binding"] == "" or f"binds: {found['binding']}" in next(iter(page.values())).items
    if found["runners_up"]:
        plans = page["Plans, the best first"].records
        for name in ("batch",) if "batch" in row else ("prefill", "decode"):
            batches = [each[name] if name == "batch" else each[name]["batch"] for each in (row, *found["runners_up"])]
            assert [int(each["batch" if name == "batch" else f"{name}_batch"]) for each in plans] == batches


def _compare(found: dict, page: dict) -> None:
    rows = found["alternatives"]
    for each in page["Figures"].records:
        for row in rows:
            value = row["figures"].get(each["figure"])
            if value is None:
                assert each[row["name"]] == ""
            else:
                assert number(each[row["name"]]) == pytest.approx(value, rel=0.006)
    curve = found["curve"]
    if curve is None:
        assert not any(title.startswith("Who leads") for title in page)
        return
    points = page["tokens_per_s_per_device along batch (more is better; * does not fit)"].records
    assert [int(each["batch"]) for each in points] == curve["values"]
    for name, values in curve["figures"].items():
        for each, value in zip(points, values, strict=True):
            assert each[name] == "" if value is None else number(each[name]) == pytest.approx(value, rel=0.006)


def test_rows_of_a_sweep_are_written_as_they_come() -> None:
    """A row group a table: what is done need not be in memory."""
    schema = pa.schema([("hw", pa.dictionary(pa.int32(), pa.string())), ("tpot_s", pa.float64())])
    made = io.BytesIO()
    rows = ParquetRows(made)
    for index in range(3):
        rows.add(pa.table({"hw": pa.array([f"machine {index}"]).dictionary_encode(), "tpot_s": [0.1]}, schema=schema))
        assert made.tell() > index * 50
    rows.close({"fit": 3})
    file = pq.ParquetFile(made)
    assert file.num_row_groups == 3
    assert file.read()["hw"].to_pylist() == ["machine 0", "machine 1", "machine 2"]
    assert json.loads(file.metadata.metadata[b"tensorcast"]) == {"schema": 1, "fit": 3}


def test_the_parts_of_a_sweep_say_their_units_too(run, own_folder) -> None:
    Path("config.json").write_text(json.dumps(TINY["llama"]))
    flags = ("--batch", "1:3", "-q", "--out", "rows", "--parquet", "rows.parquet")
    assert run("sweep", "--model", "./config.json", *SERVE, *flags) == (0, "", "")
    (part,) = Path("rows").glob("part-*.parquet")
    kept, whole = pq.read_schema(part), pq.read_schema("rows.parquet")
    assert kept.field("ttft_s").metadata[b"unit"] == b"s"
    assert kept.equals(whole.with_metadata(kept.metadata), check_metadata=True)


def test_a_column_nobody_described_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"report/tables/columns.py does not list: mystery_s"):
        ParquetRows(io.BytesIO()).add(pa.table({"mystery_s": [1.0]}))


@pytest.mark.parametrize("flag", ["--csv", "--parquet"])
def test_without_a_curve_there_are_no_points(run, flag, tmp_path) -> None:
    code, _, err = run("compare", "-m", "m", "--hw", "h", "--along", "none", flag, str(tmp_path / "r"))
    assert (code, err) == (
        2, f"error: {flag} has the points of the curve, and --along none asks for none; --json has the rest\n",
    )  # fmt: skip


@pytest.mark.parametrize("verb", ["optimize", "compare"])
def test_python_writes_what_the_command_line_writes(verb, tmp_path, run, own_folder) -> None:
    Path("config.json").write_text(json.dumps(TINY["llama"]))
    serve = dict(model="./config.json", hw="h100-sxm", input_len=64, output_len=8)
    found = {
        "optimize": lambda: tc.optimize(**serve, devices=2, batch=[1, 2]),
        "compare": lambda: tc.compare(**serve, tp=[1, 2], values=[1, 2]),
    }[verb]()
    flags = {"optimize": ("--devices", "2", "--batch", "1,2"), "compare": ("--tp", "1,2", "--values", "1,2")}[verb]
    files = [word for name in ("json", "csv", "parquet") for word in (f"--{name}", f"cli.{name}")]
    assert run(verb, "--model", "./config.json", *SERVE, *flags, "-q", *files)[0] == 0
    for name in (*FORMATS, "html"):
        getattr(found, f"to_{name}")(tmp_path / f"own.{name}")
    for name in ("json", "csv", "parquet"):
        assert (tmp_path / f"own.{name}").read_bytes() == Path(f"cli.{name}").read_bytes(), name
    assert (tmp_path / "own.html").read_text().startswith("<!doctype html>")
    assert sections((tmp_path / "own.markdown").read_text())
    with pytest.raises(tc.InputError, match="to_csv nowhere"):
        found.to_csv("nowhere/rows.csv")
