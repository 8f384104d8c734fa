"""Result files are whole or not there, and a hopeless place is refused before the work."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tensorcast.cli.output import check_outputs, write, write_atomic, written
from tensorcast.errors import InputError
from tests.cli.test_main import FAKE, ROOT

HELD = FAKE.replace("m.simulate = lambda **k: types.SimpleNamespace(to_dict=sample);", "m.simulate = held;").replace(
    "m = types",
    "from tensorcast.cli.output import whole_file\ndef held(**k):\n    with whole_file('r.csv') as file:\n"
    "        file.write(b'half')\n        print('writing', flush=True)\n        sys.stdin.read()\nm = types",
)
"""The command, with a simulation that goes on writing a file until its standard input ends."""


@pytest.mark.parametrize(
    ("place", "reason"),
    [(".", "is a folder"), ("no/such/r.json", "there is no folder")],
)
def test_refused_before_the_work(tmp_path, place: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_outputs([("--json", str(tmp_path / place))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x" * 300, "folder\0", "y" * 256 + "/r.json"])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(InputError, match=r"--json .*: no file can have that name"):
        check_outputs([("--json", name)])
    with pytest.raises(InputError, match=r"to_json .*: no file can have that name"):
        write(name, "{}", "to_json")


def test_simulate_is_not_run_for_a_hopeless_place(run, simulated, tmp_path) -> None:
    code, out, err = run("simulate", "--model", "m", "--hw", "h", "--csv", str(tmp_path))
    assert (code, out) == (2, "") and err == f"error: --csv {tmp_path}: is a folder; give a file in it\n"
    assert "request" not in simulated


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_is_not_ours(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        check_outputs([("--json", str(tmp_path / "r.json"))])
    tmp_path.chmod(0o700)


def test_two_outputs_need_two_places(tmp_path) -> None:
    same = [("--json", str(tmp_path / "r")), ("--csv", str(tmp_path / "." / "r"))]
    with pytest.raises(InputError, match="--json and --csv both write to"):
        check_outputs(same)
    with pytest.raises(InputError, match="both write to -"):
        check_outputs([("--json", "-"), ("--csv", "-")])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    target = tmp_path / "r.json"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"--json .*: cannot write: No space left on device"):
        write(str(target), "new", "--json")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_permissions_and_links_are_kept(tmp_path) -> None:
    target, link = tmp_path / "r.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomic(str(link), "new")
    assert link.is_symlink() and target.read_text() == "new" and target.stat().st_mode & 0o777 == 0o640


def test_a_new_file_has_the_usual_permissions(tmp_path) -> None:
    write_atomic(str(tmp_path / "ours"), "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_devices_are_written_to_and_not_replaced() -> None:
    check_outputs([("--json", "/dev/null"), ("--csv", "/dev/full")])
    write("/dev/null", "x", "--json")
    with pytest.raises(InputError, match="No space left"):
        write("/dev/full", "x", "--csv")
    assert Path("/dev/null").is_char_device() and Path("/dev/full").is_char_device()


def test_who_has_read_enough_is_no_error(monkeypatch) -> None:
    """The file of `--trace - | head`; main() ends quietly there."""

    class Left(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Left())
    with pytest.raises(BrokenPipeError), written("-", "--trace") as stream:
        stream.write(b"{}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda each: str(each)
)
def test_ended_from_outside_it_leaves_nothing_behind(tmp_path, number, code) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, "simulate", "--model", "m", "--hw", "h"], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "writing\n" and len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "interrupted\n")
    assert process.returncode == code and not list(tmp_path.iterdir())
