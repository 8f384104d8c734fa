"""The guide's files do what the guide says, and stay as short as it promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tensorcast.cli.main import cli

GUIDE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES = re.findall(r"```\w+ file=(\S+)\n(.*?)```", GUIDE.read_text("utf-8"), re.S)
COMMANDS = re.findall(r"^\$ tensorcast (.*)$", GUIDE.read_text("utf-8"), re.M)
LONGEST = 30


@pytest.fixture
def folder(own_folder):
    """A folder with the guide's files."""
    for name, text in FILES:
        (own_folder / name).write_text(text)


def test_the_guide_has_a_file_and_a_command_for_each_kind() -> None:
    assert {Path(name).suffix for name, _ in FILES} == {".py", ".yaml"}
    assert len(FILES) == len(COMMANDS) == 3


@pytest.mark.parametrize(("name", "text"), FILES)
def test_files_are_short(name: str, text: str) -> None:
    assert len(text.strip().splitlines()) < LONGEST, name


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work(folder, capsys, command: str) -> None:
    code = cli.run([*shlex.split(command), "--json", "-"], "tensorcast")
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert '"step_time_s"' in out


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text("utf-8")):
        assert (GUIDE.parent / target).exists(), target
