"""Calls in forked children: each sees everything the parent has made, and what it changes is its own.

A model on the meta device is changed for good when it is cut for a plan. A child per plan costs some ten milliseconds;
building the model again costs as much as tracing it. Where processes cannot be forked, calls run in this one.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from tensorcast.errors import TensorcastError

CAN_FORK = "fork" in multiprocessing.get_all_start_methods()


class LostChild(TensorcastError, RuntimeError):
    """A child process ended without an answer, mostly for want of memory."""


class Forks:
    """Up to `workers` children at a time."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = max(1, workers or os.cpu_count() or 1) if CAN_FORK else 1
        self._running: dict[Connection, tuple[Any, Any]] = {}
        self._done: list[tuple[Any, Any]] = []
        if CAN_FORK:
            gc.freeze()  # what the parent holds is not looked through, and so not copied, in every child

    def __len__(self) -> int:
        return len(self._running) + len(self._done)

    @property
    def full(self) -> bool:
        return len(self) >= self.workers

    def start(self, key: Any, function: Callable[..., Any], *args: Any) -> None:
        """Call `function`, whose answer `next` gives with `key`; it must be picklable."""
        if not CAN_FORK:
            self._done.append((key, _outcome(function, args)))
            return
        context = multiprocessing.get_context("fork")
        mine, its = context.Pipe(duplex=False)
        child = context.Process(target=_run, args=(its, function, args), daemon=True)
        child.start()
        its.close()
        self._running[mine] = key, child

    def next(self) -> tuple[Any, Any]:
        """(key, answer) of a call that has ended, in any order; what it raised is raised here."""
        if not self._done:
            pipe = wait(list(self._running))[0]
            key, child = self._running.pop(pipe)
            try:
                found = pickle.loads(pipe.recv_bytes())
            except EOFError:
                found = None, LostChild(f"a process was lost while {key} was priced; is there memory enough?")
            pipe.close()
            child.join()
            self._done.append((key, found))
        key, (answer, error) = self._done.pop(0)
        if error is not None:
            raise error
        return key, answer

    def stop(self) -> None:
        """End the children that still run."""
        for pipe, (_, child) in self._running.items():
            child.kill()
            child.join()
            pipe.close()
        self._running.clear()
        gc.unfreeze()


def _outcome(function: Callable[..., Any], args: tuple) -> tuple[Any, BaseException | None]:
    try:
        return function(*args), None
    except Exception as error:
        return None, error


def _run(pipe: Connection, function: Callable[..., Any], args: tuple) -> None:
    pipe.send_bytes(pickle.dumps(_outcome(function, args)))
    pipe.close()
