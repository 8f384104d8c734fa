"""Help: what every verb shows, that it fits, and that its examples are command lines that hold."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from tensorcast.cli.main import EXAMPLES, GROUPS, VERBS, cli

OWN = ("my_moe", "my-chip", "measurements")
"""Files of the user's that examples name."""


def examples(text: str) -> list[list[str]]:
    """The command lines under "Examples:" of a help text, as a shell takes them."""
    _, _, rest = text.partition("\nExamples:\n")
    block = rest.split("\n\n")[0].replace("\\\n", " ")
    return [shlex.split(line) for line in block.splitlines()]


@pytest.fixture(params=[80, 100, 200])
def wide(request, monkeypatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return min(request.param, 100)


def test_the_first_screen_has_every_verb_in_a_group_and_three_examples(run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "") and out == run("--help")[1]
    assert sorted(verb for verbs in GROUPS.values() for verb in verbs) == sorted(VERBS)
    for verb in VERBS:
        (line,) = (line for line in out.splitlines() if re.match(rf"  {verb} +\S", line))
        assert len(line) <= 80 and line.endswith((".", "?"))
    assert len(examples(out)) == len(EXAMPLES) == 3


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_and_ends_with_examples(verb: str, run, wide: int) -> None:
    code, out, err = run(*filter(None, [verb]), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= wide
    assert examples(out)
    if verb:
        assert out.index("Examples:") > out.index("--help")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_examples_are_the_same_at_every_width(verb: str, run, monkeypatch) -> None:
    told = []
    for width in ("60", "80", "100"):
        monkeypatch.setenv("COLUMNS", width)
        told.append(examples(run(*filter(None, [verb]), "--help")[1]))
    assert told[0] == told[1] == told[2]


def lines() -> list[tuple[str, ...]]:
    found = [shlex.split(line) for line in EXAMPLES]
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        found += [shlex.split(line) for line in command.examples]
    return [tuple(line) for line in found]


@pytest.mark.parametrize("line", lines(), ids=" ".join)
def test_an_example_is_read_and_names_what_there_is(line: tuple[str, ...]) -> None:
    from tensorcast.hardware.load import resolve
    from tensorcast.models.entries import find_entry

    program, verb, *args = line
    assert program == "tensorcast"
    command = cli.get_command(click.Context(cli), verb)
    values = command.make_context(verb, args).params
    for name, given in values.items():
        for each in given if isinstance(given, tuple) else (given,):
            if name == "overlays":
                test_an_example_is_read_and_names_what_there_is(("tensorcast", "simulate", *shlex.split(each)))
            if name == "hw" and each and not each.startswith(OWN):
                assert resolve(each).is_file()
            if name == "model" and each:
                assert find_entry(each) is not None, each


@pytest.mark.nightly
@pytest.mark.parametrize(
    "line", [line for line in lines() if not any(own in " ".join(line) for own in OWN)], ids=" ".join
)
def test_an_example_runs(line: tuple[str, ...], run, own_folder) -> None:
    if line[1] == "ui":
        pytest.skip("serves until it is stopped")
    code, out, err = run(*line[1:])
    assert (code, err) == (0, "") and (out or "--quiet" in line)
