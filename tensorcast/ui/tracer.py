"""A process that traces models for the page, so that the one that answers needs no torch and never waits for it.

What it traces it leaves in the cache of traced models. While nothing is asked it goes on with what may be asked next.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping

from tensorcast.errors import InputError, TensorcastError
from tensorcast.search.execution.helper import Helper, LostHelper
from tensorcast.ui.ahead import Options

NICENESS = 5
"""The page answers first."""


class Tracer:
    """One helper process and a thread that keeps it busy. `start` imports torch there; without it, the first trace."""

    def __init__(self) -> None:
        self._helper: Helper | None = None
        self._turn, self._wake = threading.Lock(), threading.Event()
        self._next: list[tuple[str, Options]] = []
        self._expected: set[str] = set()

    def start(self) -> None:
        threading.Thread(target=self._work, daemon=True).start()

    def trace(self, options: Options, wanted: Callable[[], bool] = lambda: True) -> None:
        """Trace what `simulate(**options)` needs; InputError with the line of whatever refuses it.

        `wanted`: whether somebody still waits for it when its turn comes.
        """
        self._next = []  # what is asked comes before what may be
        if error := self._call(options, wanted):
            raise InputError(error)

    def expect(self, options: Mapping[str, Options]) -> None:
        """Trace these when there is time, in place of those expected so far; what fails is left to who asks for it.

        By a key each: what had the same key is not traced again.
        """
        self._next = [(key, each) for key, each in options.items() if key not in self._expected]
        if self._next:
            self._wake.set()

    def _work(self) -> None:
        with self._turn:
            self._ready()
        while True:
            self._wake.wait()
            self._wake.clear()
            while waiting := self._next:
                (key, options), self._next = waiting[0], waiting[1:]
                self._expected.add(key)
                self._call(options)

    def _call(self, options: Options, wanted: Callable[[], bool] = lambda: True) -> str:
        with self._turn:
            if not wanted():
                return "nobody waits for it any more"
            try:
                return self._ready().call(traced, dict(options))
            except LostHelper as lost:
                self._helper = None
                return f"tracing the model: {lost}"

    def _ready(self) -> Helper:
        if self._helper is None:
            self._helper = Helper(os.getcwd())
            self._helper.call(prepared)
        return self._helper


def prepared() -> None:
    """In the helper: what tracing needs is imported, and Ctrl-C is for the page's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    import tensorcast.transformer_model  # noqa: F401


def traced(options: Options) -> str:
    """In the helper: the line of the error, or ""."""
    from tensorcast.estimate import simulate

    try:
        simulate(**options)
    except TensorcastError as error:
        return str(error)
    return ""
