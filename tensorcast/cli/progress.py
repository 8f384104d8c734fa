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


@contextmanager
def bar(quiet: bool = False) -> Iterator[Report | None]:
    """The same with a bar and the time left, for work whose share done is known."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)

        def report(text: str, fraction: float | None = None) -> None:
            """A share is of the whole; without one, `text` says what is being done now."""
            if fraction is None:
                shown.update(task, description=text)
            else:
                shown.update(task, description=text, total=1.0, completed=fraction)

        yield report
