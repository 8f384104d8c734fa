"""The controls are the options of `simulate`, and nothing that writes a file or runs code."""

import random

import click
import pytest

from tensorcast.cli.simulate import command as simulate
from tensorcast.errors import InputError
from tensorcast.ui.controls import SCALES, arguments, parser, sections

NOT_OF_A_PAGE = {
    "custom", "no_custom_dir", "no_plugin", "trust_remote_code", "no_cache", "dump_graph", "emit", "top", "quiet",
    "require_fit", "debug",
}  # fmt: skip


def names(of: click.Command) -> set[str]:
    return {param.name for param in of.params}


def test_a_page_may_give_every_option_but_outputs_and_code():
    left = names(simulate) - names(parser())
    assert left >= NOT_OF_A_PAGE
    # Whatever else is left out writes a file or guards one.
    written = {"json_file", "csv_file", "html_file"}
    assert written <= left
    for param in simulate.params:
        if param.name in left - NOT_OF_A_PAGE:
            assert "rite" in param.help or "file" in param.help, param.name


def test_every_option_has_one_control():
    shown = [control.name for controls in sections().values() for control in controls]
    assert len(shown) == len(set(shown))
    assert set(shown) == names(parser())
    assert set(SCALES) <= set(shown)


def test_every_stop_of_every_slider_is_a_value_of_its_option():
    for name, values in SCALES.items():
        assert list(values) == sorted(set(values))
        for value in values:
            given = arguments({"hw": "h100", name: str(value)})
            assert given[name] == value


def test_controls_and_flags_say_the_same():
    by_control = arguments(
        {"model": "qwen3-8b", "hw": "h100", "tp": "2", "sequence_parallel": True, "acceptance_rate": "0", "mtp": "1"}
    )
    line = "tensorcast simulate -m qwen3-8b --hw h100 --tensor-parallel-size 2 --sequence-parallel --mtp 1"
    assert by_control == arguments({}, f"{line} --acceptance-rate 0.0")
    assert by_control == {
        "model": "qwen3-8b", "hw": "h100", "tp": 2, "sequence_parallel": True, "acceptance_rate": 0.0, "mtp": 1,
    }  # fmt: skip


def test_flags_that_repeat_add_up():
    given = arguments({"hw": "h100", "image": "64x64"}, "--image 32x32 --set a.b=3 --set c='[1, 2]'")
    assert given["image"] == ["64x64", "32x32"]
    assert given["overrides"] == {"a.b": 3, "c": [1, 2]}


@pytest.mark.parametrize(
    ("options", "more", "line"),
    [
        ({"hw": "h100", "tp": "0"}, "", "'0' is not a whole number of at least 1"),
        ({"hw": "h100", "tp": "-1"}, "", "'-1' is not a whole number of at least 1"),
        ({"hw": "h100", "tp": "2"}, "--tp 4", "given twice, 2 and 4"),
        ({"hw": "h100", "quant": "int3"}, "", "'int3' is not one of"),
        ({"hw": "h100", "tp": True}, "", "--tp True: a text"),
        ({"hw": "h100", "strict": "yes"}, "", "--strict 'yes': true or false"),
        ({"hw": "h100", "custom": "/tmp/x.py"}, "", "no option 'custom'"),
        ({"hw": "h100"}, "--json /tmp/x", "--json"),
        ({"hw": "h100"}, "--set 'a=1", "No closing quotation"),
        ({"hw": "h100"}, "qwen3-8b", "unexpected extra argument"),
        ({"model": "--help"}, "", "hw"),
    ],
)
def test_what_is_wrong_is_said_in_the_command_lines_words(options, more, line):
    with pytest.raises((InputError, click.ClickException)) as said:
        arguments(options, more)
    text = said.value.format_message() if isinstance(said.value, click.ClickException) else str(said.value)
    assert line in text


def test_any_text_for_any_control_is_read_or_refused_never_a_bug():
    picked = random.Random(5)
    pieces = [
        "",
        " ",
        "-",
        "--",
        "=",
        "'",
        '"',
        "\\",
        "\0",
        "\n",
        "<b>",
        "٣",
        "1e9",
        "../..",
        "a,b",
        "{",
        "%s",
        "9" * 400,
    ]
    controls = [control for controls in sections().values() for control in controls]
    for _ in range(500):
        control = picked.choice(controls)
        text = "".join(picked.choices(pieces, k=3))
        try:
            arguments({"hw": "h100", control.name: text}, "")
        except (InputError, click.ClickException):
            continue
