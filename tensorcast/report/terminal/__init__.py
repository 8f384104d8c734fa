"""What people read on a terminal, or through a pipe: plain lines, printed as wide as they can be read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO

from rich.console import Console
from rich.text import Text

PIPE_WIDTH = 80
NARROWEST, WIDEST = 76, 140
IN_ASCII = str.maketrans({"·": "|", "…": "~", "×": "x", "±": "+-", "→": "->", "ᵀ": "T"})
WIDER = 4
"""Characters that a line may gain by that."""


def printed(lines: Callable[[int, bool], list[Text]], file: IO[str] | None = None) -> None:
    """Print what `lines` gives for a width and for whether only ASCII can be shown."""
    stream = file or sys.stdout
    if stream is None:
        return
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    width = min(max(console.width, NARROWEST), WIDEST) if console.is_terminal else PIPE_WIDTH
    console.width = width
    ascii_only = not _can_encode(stream, "█▓▒░▪▤▥·…×▁▂▃▄▅▆▇")
    with console.capture() as capture:
        for line in lines(width - WIDER if ascii_only else width, ascii_only):
            if ascii_only:
                line = Text(line.plain.translate(IN_ASCII))
            line.rstrip()
            console.print(line, soft_wrap=True)
    # Written by us, whole: rich would end the process itself when the reader has left.
    stream.write(capture.get())


def _can_encode(stream: IO[str], characters: str) -> bool:
    try:
        characters.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
