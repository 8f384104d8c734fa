"""The command line that asks the same as a call."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tensorcast.cli import simulate
from tensorcast.options import command


def parsed(line: str) -> dict:
    """The options that the command line's own parser reads in a line."""
    program, verb, *words = shlex.split(line)
    assert (program, verb) == ("tensorcast", "simulate")
    given = simulate.command.make_context("simulate", words).params
    return simulate.request({name: value for name, value in given.items() if name != "top"})


@pytest.mark.parametrize(
    "asked",
    [
        {"model": "deepseek-v3", "hw": "ascend-910b", "tp": 8, "ep": 8, "quant": "w8a8"},
        {"model": "a folder/it's", "hw": "h100-sxm", "overrides": {"a.b": [1, 2], "name": "x y", "on": True}},
        {"model": "m", "hw": "h", "seq_lens": (128, 4096), "kernel": ["attention=flash", "moe/x@*.3=eager"]},
        {"model": "m", "hw": "h", "sequence_parallel": True, "acceptance_rate": 0.0, "prefix_len": 0, "image": ["8x8"]},
        {"model": "m", "hw": "h", "custom": ["one.py", "two.py"], "exclude": ["lm_head"], "dcp": 2},
    ],
)
def test_the_line_reads_back_as_what_was_asked(asked) -> None:
    assert parsed(command("simulate", asked)) == asked


def test_what_is_on_by_default_is_named_only_where_it_is_off() -> None:
    asked = {"model": "m", "hw": "h", "reuse": False, "custom_dir": False, "cache": False, "strict": False, "tp": None}
    assert command("simulate", asked).split()[6:] == ["--no-reuse", "--no-custom-dir", "--no-cache"]
    assert command("simulate", {"model": "m", "no_reuse": True}).split()[4:] == ["--no-reuse"]


def test_other_spellings_and_paths() -> None:
    line = command("simulate", {"model": Path("a/b"), "tensor_parallel_size": 2, "cfg_parallel": 2})
    assert line == "tensorcast simulate --model a/b --tp 2 --cfg-parallel 2"


def test_there_is_none_for_what_only_python_has() -> None:
    assert command("simulate", {"model": object(), "hw": "h100-sxm"}) is None
