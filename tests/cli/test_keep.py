"""Files that exist are replaced, or kept where that is asked; nothing is half written either way."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tensorcast.cli import output
from tensorcast.cli.main import cli
from tensorcast.cli.output import check_outputs, write
from tensorcast.errors import InputError

ASKED = ("--model", "no-such-model", "--hw", "no-such-machine")
WRITERS = [
    *(("simulate", *ASKED, f"--{name}") for name in (
        "json", "csv", "html", "markdown", "parquet", "tables", "trace", "dump-graph")),
    *(("sweep", *ASKED, f"--{name}") for name in ("json", "csv", "html", "markdown", "parquet")),
    *(("optimize", *ASKED, "--devices", "2", f"--{name}") for name in ("json", "csv", "html", "markdown", "parquet")),
    *(("compare", *ASKED, f"--{name}") for name in ("json", "csv", "html", "markdown", "parquet")),
    ("accuracy", "no-such-folder", "--json"),
]  # fmt: skip


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "r"
    path.write_text("old")
    path.chmod(0o640)
    return path


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch) -> None:
    monkeypatch.delenv("TENSORCAST_KEEP", raising=False)


@pytest.mark.parametrize("asked", WRITERS, ids=lambda asked: f"{asked[0]} {asked[-1]}")
def test_every_file_of_every_verb_is_kept(run, old, asked, monkeypatch) -> None:
    """And is so before the work: the models and machines of these requests do not even exist."""
    refused = (2, "", f"error: {asked[-1]} {old}: exists; --force replaces it\n")
    assert run(*asked, str(old), "--keep") == refused
    monkeypatch.setenv("TENSORCAST_KEEP", "1")
    assert run(*asked, str(old)) == refused
    code, _, err = run(*asked, str(old), "--force")
    assert code == 2 and "exists" not in err
    assert old.read_text() == "old" and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("flags", [(), ("--force",), ("--keep", "--force"), ("--force", "--keep")])
def test_a_file_is_replaced(run, simulated, old, flags) -> None:
    """Its permissions stay."""
    assert run("simulate", "-m", "m", "--hw", "h", "-q", "--markdown", str(old), *flags) == (0, "", "")
    assert old.read_text().startswith("# deepseek-v3 on 8 x ascend-910b2\n")
    assert old.stat().st_mode & 0o777 == 0o640 and list(old.parent.iterdir()) == [old]


def test_a_new_file_is_written_though_others_are_kept(run, simulated, old) -> None:
    new = old.with_name("new.csv")
    assert run("simulate", "-m", "m", "--hw", "h", "-q", "--keep", "--csv", str(new)) == (0, "", "")
    assert new.read_text().startswith("phase,op,module,")
    code, _, err = run(
        "simulate", "-m", "m", "--hw", "h", "-q", "--keep", "--csv", str(new.with_name("c")), "--json", str(old)
    )
    assert code == 2 and err == f"error: --json {old}: exists; --force replaces it\n"


@pytest.mark.parametrize(("value", "kept"), [("1", True), ("0", False), ("", False)])
def test_the_variable(run, simulated, old, monkeypatch, value, kept) -> None:
    monkeypatch.setenv("TENSORCAST_KEEP", value)
    code, _, _ = run("simulate", "-m", "m", "--hw", "h", "-q", "--json", str(old))
    assert (code, old.read_text() == "old") == ((2, True) if kept else (0, False))
    assert run("simulate", "-m", "m", "--hw", "h", "-q", "--json", str(old), "--force")[0] == 0


def test_the_variable_has_two_values(run, simulated, old, monkeypatch) -> None:
    monkeypatch.setenv("TENSORCAST_KEEP", "perhaps")
    assert run("simulate", "-m", "m", "--hw", "h", "--json", str(old)) == (
        2, "", "error: TENSORCAST_KEEP=perhaps: 1 keeps files that exist, 0 or nothing replaces them\n",
    )  # fmt: skip


def test_what_appears_during_the_work_is_kept_too(run, simulated, old, monkeypatch) -> None:
    """By another process, between the check and the writing."""
    new = old.with_name("new.json")
    checked = output.check_outputs

    def slow(targets) -> None:
        checked(targets)
        new.write_text("theirs")

    monkeypatch.setattr("tensorcast.cli.simulate.check_outputs", slow)
    code, _, err = run("simulate", "-m", "m", "--hw", "h", "-q", "--keep", "--json", str(new))
    assert (code, err) == (2, f"error: --json {new}: cannot write: exists; --force replaces it\n")
    assert new.read_text() == "theirs" and sorted(new.parent.iterdir()) == [new, old]


def test_devices_and_pipes_hold_nothing_to_keep(run, simulated, tmp_path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["head", "-c", "5", str(pipe)], stdout=subprocess.PIPE)
    asked = ("simulate", "-m", "m", "--hw", "h", "-q", "--keep")
    assert run(*asked, "--json", "/dev/null", "--csv", str(pipe)) == (0, "", "")
    assert reader.communicate(timeout=20)[0] == b"phase"
    code, out, _ = run(*asked, "--csv", "-")
    assert code == 0 and out.startswith("phase,op")


def test_the_file_of_a_shell_is_written_to() -> None:
    """As in --csv >(sort): what /dev/fd/N leads to has no place in a folder."""
    read, write_end = os.pipe()
    place = f"/dev/fd/{write_end}"
    check_outputs([("--csv", place)])
    write(place, "a,b\n", "--csv")
    os.close(write_end)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "a,b\n"


def test_parquet_is_not_shown_on_a_terminal(monkeypatch) -> None:
    class Terminal:
        buffer = None

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    for flag in ("--parquet", "--tables"):
        with pytest.raises(InputError, match=f"^{flag} -: is no text, and standard output is a terminal; give a file"):
            check_outputs([(flag, "-")])
    check_outputs([("--csv", "-"), ("--markdown", "/dev/null")])


def test_parquet_goes_through_a_pipe(simulated, capsysbinary) -> None:
    code = cli.run(["simulate", "-m", "m", "--hw", "h", "-q", "--parquet", "-"], "tensorcast")
    out = capsysbinary.readouterr().out
    assert code == 0 and pq.read_table(io.BytesIO(out)).num_rows == 6


def test_new_and_calibrate_keep_unless_forced(run, own_folder) -> None:
    """These never replace without being told."""
    assert run("new", "hardware", "my-chip", "--like", "h100-sxm")[0] == 0
    path = Path("hardware_profiles/my-chip.yaml")
    path.write_text("mine")
    code, _, err = run("new", "hardware", "my-chip", "--like", "h100-sxm")
    assert code == 2 and err == f"error: {path}: exists; --force replaces it, or choose another name\n"
    code, _, err = run("calibrate", "--hw", "h100-sxm", "--data", "none", "--out", str(path))
    assert code == 2 and err == f"error: --out {path}: exists; --force replaces it\n" and path.read_text() == "mine"
