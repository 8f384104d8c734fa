"""Shell completion: the protocol of three shells as processes, and real shells where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tensorcast.cli.completion import SHELLS, answer
from tensorcast.cli.main import COMPLETE, VERBS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "tensorcast"]


def environment(shell: str, line: str) -> dict[str, str]:
    """What a shell's script says when Tab is pressed at the end of `line`."""
    words = line.split(" ")
    said = {
        "bash": {"COMP_LINE": line, "COMP_POINT": str(len(line))},
        "zsh": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "fish": {"COMP_WORDS": line, "COMP_CWORD": words[-1]},
    }
    return {COMPLETE: f"{shell}_complete", **said[shell]}


@pytest.fixture
def offered(monkeypatch, capsys):
    """(line, shell) → the words offered, in this process."""

    def offered(line: str, shell: str = "bash") -> list[str]:
        for name, value in environment(shell, line).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        answer(f"{shell}_complete")
        return words(capsys.readouterr().out, shell)

    return offered


def words(out: str, shell: str) -> list[str]:
    """The words in an answer, `file` and `dir` as such."""
    lines = out.removesuffix("\n").split("\n") if out.strip() else []
    pairs = zip(lines[::3], lines[1::3], strict=False) if shell == "zsh" else (line.split(",", 1) for line in lines)
    return [word.split("\t")[0] if kind == "plain" else kind for kind, word in pairs if kind]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_answers_every_shell(shell: str) -> None:
    def asked(line: str) -> list[str]:
        done = subprocess.run(
            COMMAND, env={**os.environ, **environment(shell, line)}, cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return words(done.stdout, shell)

    assert asked("tensorcast sweep --hw a40,h100-s") == ["a40,h100-sxm"]


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_options_and_values(shell: str, offered) -> None:
    assert offered("tensorcast ", shell) == list(VERBS)
    assert offered("tensorcast opt", shell) == ["optimize"]
    assert offered("tensorcast simulate --gpu", shell) == ["--gpu-memory-utilization"]
    assert offered("tensorcast list h", shell) == ["hardware"]
    assert offered("tensorcast simulate --runtime ", shell) == ["graph", "eager"]
    assert offered("tensorcast simulate --model deepseek-v3.2", shell) == ["deepseek-v3.2", "file"]
    assert offered("tensorcast simulate --json ", shell) == ["file"]
    assert offered("tensorcast accuracy ", shell) == ["dir"]


def test_an_equals_sign_belongs_to_the_word(offered) -> None:
    line = "tensorcast simulate --hw=h100-s"
    assert offered(line, "zsh")[0] == offered(line, "fish")[0] == "--hw=h100-sxm"
    assert offered(line, "bash")[0] == "h100-sxm"  # bash has the rest already
    assert offered("tensorcast simulate --kernel attention=fa", "zsh") == ["attention=fa2", "attention=fa3"]
    assert offered("tensorcast simulate --kernel attention=fa", "bash") == ["fa2", "fa3"]


def test_names_of_what_there_is(offered) -> None:
    assert {"ascend-910b", "ascend-910b2"} <= set(offered("tensorcast simulate --hw ascend-910b"))  # alias and name
    assert "deepseek-ai/DeepSeek-V3" in offered("tensorcast simulate -m deepseek-ai/DeepSeek-V3")
    assert not [name for name in offered("tensorcast simulate -m deepseek") if "/" in name]
    assert offered("tensorcast show hardware mi300") == ["mi300x", "file"]
    assert offered("tensorcast show schema ") == ["simulate", "sweep", "optimize", "compare"]
    assert offered("tensorcast list kernels --explain mla=ab") == offered("tensorcast simulate --kernel mla=ab")
    assert offered("tensorcast new hardware mine --like mi300") == ["mi300x", "file"]
    assert "fp8_e5m2" in offered("tensorcast simulate --kv-cache-dtype ")


def test_of_a_list_the_last_is_completed(offered) -> None:
    assert offered("tensorcast sweep --quant fp8,w8a8,w8") == ["fp8,w8a8,w8a8-static", "fp8,w8a8,w8a16"]
    assert "a40,a40" not in offered("tensorcast compare --hw a40,a40")  # it is there already
    assert offered("tensorcast sweep --kernel attention=fa2,fa", "zsh")[-1] == "attention=fa2,fa3"
    assert offered("tensorcast sweep --pareto ttft_s,tpot_s") == ["ttft_s,tpot_s"]


def test_an_own_machine_is_offered_and_no_own_code_runs(offered, tmp_path, monkeypatch) -> None:
    (tmp_path / "hardware_profiles").mkdir()
    (tmp_path / "hardware_profiles" / "zz-mine.yaml").write_text("aliases: [zz-other]\n")
    (tmp_path / "custom_model").mkdir()
    (tmp_path / "custom_model" / "bomb.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    assert offered("tensorcast simulate --hw zz") == ["zz-mine", "zz-other", "file"]
    assert "attention=flash" in offered("tensorcast simulate --kernel attention", "zsh")


@pytest.mark.parametrize(
    "line",
    [
        "tensorcast nonsense --x",
        "tensorcast simulate --nonsense 3 --hw 'a",
        'tensorcast compare --with "--hw h1',
        "",
        "x",
    ],
)
def test_a_half_typed_line_gives_no_message(line: str, monkeypatch, capsys) -> None:
    for shell in SHELLS:
        for name, value in environment(shell, line).items():
            monkeypatch.setenv(name, value)
        answer(f"{shell}_complete")
        assert capsys.readouterr().err == ""


def test_nonsense_from_a_shell_is_one_line(capsys) -> None:
    assert answer("tcsh_source") == 2
    assert capsys.readouterr().err == "error: _TENSORCAST_COMPLETE=tcsh_source: bash or zsh or fish, then _source\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_says_how_to_keep_it_and_is_the_same_by_either_way(shell: str, run, capsys) -> None:
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "") and "# To keep it, " in out.splitlines()[-1]
    assert answer(f"{shell}_source") == 0 and capsys.readouterr().out == out


def test_a_shell_that_is_not_known_is_one_line(run) -> None:
    assert run("completion", "tcsh") == (2, "", "error: SHELL: 'tcsh' is not one of 'bash', 'zsh', 'fish'\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash(tmp_path) -> None:
    (tmp_path / "tensorcast").write_text(f'#!/bin/sh\nexec {sys.executable} -m tensorcast "$@"\n')
    (tmp_path / "tensorcast").chmod(0o755)
    script = """
        source <(tensorcast completion bash)
        compopt() { options="$*"; }
        tab() { COMP_LINE=$1 COMP_POINT=${#1}; _tensorcast_completion tensorcast; echo "${COMPREPLY[*]}$options"; }
        tab "tensorcast simulate --model qwen3-8b --hw=h100-s"
        tab "tensorcast simulate --csv x"
        complete -p tensorcast
    """
    path = f"{tmp_path}:/usr/bin:/bin"
    env = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "h100-sxm-o default", "-o default", "complete -o nosort -F _tensorcast_completion tensorcast",
    ]  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_of_that_shell(shell: str, run, tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(run("completion", shell)[1])
    done = subprocess.run([shell, "-n", str(tmp_path / "script")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_tab_is_quick_and_imports_nothing_heavy() -> None:
    """A few times what Python with click takes to start; of what could be slow nothing is there."""
    code = (
        "import sys; from tensorcast.cli.completion import answer; answer('zsh_complete');"
        "print(*sys.modules, file=sys.stderr)"
    )
    env = {**os.environ, **environment("zsh", "tensorcast sweep --kernel attention=f")}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "attention=flash" in done.stdout
    heavy = {"torch", "transformers", "pandas", "numpy", "pyarrow", "rich", "yaml", "jinja2", "plotly"}
    assert not heavy & set(done.stderr.split())

    def least(command: list[str]) -> float:
        taken = []
        for _ in range(4):
            begun = time.perf_counter()
            subprocess.run(command, env=env, cwd=ROOT, capture_output=True, check=True)
            taken.append(time.perf_counter() - begun)
        return min(taken)

    assert least(COMMAND) < 8 * least([sys.executable, "-c", "import click"])
