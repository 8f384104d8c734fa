"""The command as a process: verbs, exit codes, pipes, start-up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tensorcast import __version__
from tensorcast.cli.main import VERBS

ROOT = Path(__file__).resolve().parents[2]
# The real entry point, with a ready-made estimate in the place of the simulation.
FAKE = (
    f"import sys, types; sys.path.insert(0, {str(ROOT)!r}); from tests.report.sample import sample;"
    "m = types.ModuleType('tensorcast.estimate');"
    "m.simulate = lambda **k: types.SimpleNamespace(to_dict=sample);"
    "sys.modules['tensorcast.estimate'] = m;"
    "from tensorcast.cli.main import main; main()"
)


def shell(line: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a bash line in which $TC is the command with a fake simulation."""
    environment = {"PATH": "/usr/bin:/bin", "PY": sys.executable, "FAKE": FAKE, "TC": f"{sys.executable} -c $FAKE"}
    line = line.replace("$TC", '"$PY" -c "$FAKE" simulate --model m --hw h')
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, **options)


def test_help_and_version(run) -> None:
    code, out, _ = run()
    assert code == 0 and all(verb in out for verb in VERBS)
    assert run("--help")[1] == out
    assert run("--version") == (0, f"tensorcast {__version__}\n", "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("simulat",), "error: no verb 'simulat'; Did you mean simulate?\n"),
        (("zzz",), f"error: no verb 'zzz'; the verbs are {', '.join(VERBS)}\n"),
        (("--verison",), "error: no option --verison; Did you mean --version?\n"),
        (("list", "model"), "error: WHAT: 'model' is not one of 'models', 'hardware', 'kernels', "),
        (("show", "model"), "error: NAME is missing; `--help` lists what can be given\n"),
    ],
)
def test_a_slip_is_one_line(run, args, line: str) -> None:
    code, out, err = run(*args)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(line)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = shell("set -o pipefail; $TC | head -1")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("deepseek-v3 on 8 x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    for extra in ("", "--json -"):
        done = shell(f"$TC {extra} > /dev/full")
        assert (done.returncode, done.stderr) == (
            2,
            "error: cannot write to standard output: No space left on device\n",
        )


def test_closed_streams_are_no_bug() -> None:
    assert shell("$TC >&-").returncode == 0
    assert shell("$TC 2>&-").returncode == 0
    assert shell("$TC --json - >&-").stderr == "error: --json -: standard output is closed; give a file\n"
    assert shell("$TC <&-").returncode == 0


def test_a_plain_locale_is_no_bug() -> None:
    done = shell("PYTHONIOENCODING=ascii $TC")
    assert done.returncode == 0 and done.stdout.isascii()


def test_everything_printed_arrives_though_the_process_ends_at_once(tmp_path) -> None:
    done = shell(f"$TC --json - > {tmp_path}/out; $TC --json {tmp_path}/file --quiet")
    assert done.returncode == 0 and done.stderr == ""
    assert (tmp_path / "out").read_text() == (tmp_path / "file").read_text()


def test_python_cli_py_and_dash_m_are_the_command(tmp_path) -> None:
    for command, where in (((str(ROOT / "cli.py"),), tmp_path), (("-m", "tensorcast"), ROOT)):
        done = subprocess.run([sys.executable, *command, "--version"], cwd=where, capture_output=True, text=True)
        assert done.stdout == f"tensorcast {__version__}\n"


def test_start_up_imports_nothing_heavy() -> None:
    code = "import sys, tensorcast.cli.main, tensorcast.cli.simulate; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "pandas", "pydantic", "numpy", "yaml", "rich", "huggingface_hub"}
    assert not heavy & set(done.stdout.split())


def test_main_is_importable_from_the_package() -> None:
    from tensorcast.cli import main
    from tensorcast.cli.main import main as same

    assert main is same
