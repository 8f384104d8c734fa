"""A status line on stderr while something long runs; only where a person watches, never in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[str, "float | None"], None]


@contextmanager
def progress(quiet: bool = False) -> Iterator[Report | None]:
    """A function to call with (what is being done, fraction done or None), or None where nobody watches."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    status: Any = None

    def report(text: str, fraction: float | None = None) -> None:
        nonlocal status
        line = text if fraction is None else f"{text} {fraction:.0%}"
        if status is None:
            # Imported on the first report: an answer from the cache is there before anything needs saying.
            from rich.console import Console
            from rich.text import Text

            status = Console(stderr=True).status(Text(line))
            status.start()
        else:
            from rich.text import Text

            status.update(Text(line))

    try:
        yield report
    finally:
        if status is not None:
            status.stop()
