"""On a real terminal and in a pipe: width, colour, the status line, and that nothing of it stays."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass

import pytest

from tests.cli.test_main import FAKE, ROOT

COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7])m")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
SLOW = FAKE.replace(
    "m.simulate = lambda **k: types.SimpleNamespace(to_dict=sample);",
    "m.simulate = slow;",
).replace(
    "m = types",
    "import time\ndef slow(progress, **k):\n    if progress: progress('tracing [b]x[/b]', 0.5)\n"
    "    time.sleep(1.2)\n    return types.SimpleNamespace(to_dict=sample)\nm = types",
)


@dataclass
class Seen:
    """`screen`: what a terminal was sent; `first`: seconds until then; `piped`: what went past it."""

    code: int
    screen: str
    first: float | None
    piped: str

    def lines(self) -> list[str]:
        return ESCAPE.sub("", self.screen).replace("\r", "").split("\n")


def on_terminal(
    code: str, *args: str, width: int = 80, streams: str = "out err", interrupt: float | None = None, **variables: str
) -> Seen:
    """Run the fake command with these of its streams on a terminal and the other one in a pipe."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    env = {"PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}
    kinds = {name: slave if name in streams else subprocess.PIPE for name in ("out", "err")}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", "--model", "m", "--hw", "h", *args],
        stdin=subprocess.DEVNULL, stdout=kinds["out"], stderr=kinds["err"], env=env, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    data, first = b"", None
    while True:
        if interrupt is not None and first is not None and time.monotonic() - begun > first + interrupt:
            os.killpg(process.pid, signal.SIGINT)
            interrupt = None
        if not select.select([master], [], [], 0.05)[0]:
            continue
        try:
            data += os.read(master, 1 << 16)
        except OSError:
            break  # the other side is closed
        first = first or time.monotonic() - begun
    os.close(master)
    out, err = process.communicate(timeout=30)
    return Seen(process.returncode, data.decode(), first, ((out or b"") + (err or b"")).decode())


@pytest.mark.parametrize("width", [76, 80, 100, 200])
def test_a_report_is_as_wide_as_the_terminal(width: int) -> None:
    seen = on_terminal(FAKE, width=width)
    assert seen.code == 0
    widest = max(map(len, seen.lines()))
    assert min(width, 140) - 10 < widest <= min(width, 140)  # the memory bar takes all there is


def test_colour_is_for_a_terminal_that_wants_it() -> None:
    assert COLOUR.search(on_terminal(FAKE).screen)
    assert COLOUR.search(on_terminal(FAKE, NO_COLOR="").screen)  # empty is as if it were not set
    assert not COLOUR.search(on_terminal(FAKE, NO_COLOR="0").screen)
    assert "\x1b" not in on_terminal(FAKE, TERM="dumb").screen
    piped = on_terminal(FAKE, streams="err")
    assert piped.screen == "" and "deepseek-v3 on 8 x" in piped.piped and "\x1b" not in piped.piped
    assert COLOUR.search(on_terminal(FAKE, streams="err", FORCE_COLOR="1").piped)


def test_without_blocks_in_the_encoding_there_are_none() -> None:
    seen = on_terminal(FAKE, PYTHONIOENCODING="ascii")
    assert seen.code == 0 and seen.screen.isascii() and "####" in seen.screen and "\\u" not in seen.screen


def test_a_status_line_comes_soon_and_goes() -> None:
    seen = on_terminal(SLOW, streams="err")
    assert seen.code == 0 and seen.first is not None
    assert "tracing [b]x[/b] 50%" in seen.screen and "deepseek-v3 on 8 x" in seen.piped
    assert seen.screen.count("tracing") > 5  # it moves
    left = seen.screen.rpartition("\x1b[2K")[2]
    assert ESCAPE.sub("", left).strip() == "" and "\x1b[?25h" in seen.screen  # the cursor is back


@pytest.mark.parametrize(
    ("args", "streams", "variables"),
    [(("--quiet",), "err", {}), ((), "out", {}), ((), "err", {"TERM": "dumb"})],
    ids=["quiet", "piped", "dumb"],
)
def test_no_status_line_where_nobody_watches(args, streams, variables) -> None:
    seen = on_terminal(SLOW, *args, streams=streams, **variables)
    assert seen.code == 0
    assert "tracing" not in seen.screen + seen.piped


def test_writing_a_file_is_told_too(tmp_path) -> None:
    seen = on_terminal(FAKE, "--markdown", str(tmp_path / "r.md"), width=200)
    assert f"writing {tmp_path / 'r.md'}" in seen.screen and "writing" not in seen.screen.rpartition("\x1b[2K")[2]
    assert "writing" not in on_terminal(FAKE, "--markdown", "-", width=200).screen


def test_interrupted_it_leaves_a_clean_screen() -> None:
    seen = on_terminal(SLOW, streams="err", interrupt=0.3)
    assert seen.code == 130
    left = seen.screen.rpartition("\x1b[2K")[2]
    assert ESCAPE.sub("", left).split() == ["interrupted"] and "\x1b[?25h" in seen.screen


def test_what_is_printed_meanwhile_goes_where_it_was_sent() -> None:
    code = (
        "import sys, time; from tensorcast.cli.progress import progress\n"
        "with progress(begin='working') as report:\n    time.sleep(0.3); print('a line'); time.sleep(0.3)"
    )
    piped = on_terminal(code, streams="err")
    assert piped.piped == "a line\n" and "a line" not in piped.screen
    shared = on_terminal(code)
    assert re.search(r"\x1b\[2Ka line\r?\n", shared.screen)  # on a line of its own
