"""A status line on stderr while something long runs; only where a person watches, never in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[str, "float | None"], None]


@contextmanager
def progress(quiet: bool = False, begin: str = "") -> Iterator[Report | None]:
    """A function to call with (what is being done, fraction done or None), or None where nobody watches.

    `begin`: what is being done from the start, for work that does not tell by itself.
    """
    if not _watched(quiet):
        yield None
        return
    live: Any = None

    def report(text: str, fraction: float | None = None) -> None:
        nonlocal live
        # Imported on the first report: an answer from the cache is there before anything needs saying.
        from rich.text import Text

        line = Text(text if fraction is None else f"{text} {fraction:.0%}")
        if live is None:
            from rich.console import Console
            from rich.live import Live
            from rich.spinner import Spinner

            console = Console(stderr=True)
            spinner = Spinner("line" if console.options.ascii_only else "dots", line, style="green")
            live = Live(spinner, console=console, transient=True, refresh_per_second=10, redirect_stdout=_one_screen())
            live.start()
        else:
            live.renderable.update(text=line)

    try:
        if begin:
            report(begin)
        yield report
    finally:
        if live is not None:
            live.stop()


@contextmanager
def bar(quiet: bool = False) -> Iterator[Report | None]:
    """The same with a bar and the time left, for work whose share done is known."""
    if not _watched(quiet):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=_one_screen()) as shown:
        task = shown.add_task("", total=None)

        def report(text: str, fraction: float | None = None) -> None:
            """A share is of the whole; without one, `text` says what is being done now."""
            if fraction is None:
                shown.update(task, description=text)
            else:
                shown.update(task, description=text, total=1.0, completed=fraction)

        yield report


def _watched(quiet: bool) -> bool:
    """Whether a person sees stderr, on a terminal that can take a line back."""
    return not quiet and sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _one_screen() -> bool:
    """Whether what is printed meanwhile shares the screen with the status line; else it must go where it was sent."""
    return sys.stdout is not None and sys.stdout.isatty()
