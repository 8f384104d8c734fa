"""Tables whose memory is the model's alone, whoever watches the process.

Memory in use is read off the life of Python's tensors. A profiler that samples the stacks of other threads holds
frames, a frame holds its variables, and a tensor outlives the function it was made in: the peak comes out too large.
Such a trace is found out, for it does not free all it made by itself, and is taken again where no other thread runs: in
a forked child.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from tensorcast.errors import TensorcastError

if TYPE_CHECKING:
    from tensorcast.trace.tracer import Tracer

T = TypeVar("T")
Progress = Callable[[str, float | None], None]
CAN_FORK = hasattr(os, "fork")
PATIENCE = 900  # seconds that a child may take
SAID = (
    "memory in use cannot be told: another thread of this process, such as a profiler, holds on to the tensors of the "
    "model that is traced; stop it meanwhile, or ask in a process of its own"
)


class Disturbed(TensorcastError, RuntimeError):
    """Another thread keeps tensors of the traced model alive."""

    def __init__(self, text: str = SAID) -> None:
        super().__init__(text)


def settled(tracer: Tracer) -> Tracer:
    """The same; Disturbed where another thread let go of a tensor, or may still hold one.

    Where nobody else is, what is left belongs to the model: a module may keep a tensor as an attribute.
    """
    memory = tracer.memory
    if memory.freed_by_others or (memory.alive and CAN_FORK and len(sys._current_frames()) > 1):
        raise Disturbed
    return tracer


def undisturbed(function: Callable[[Progress], T], progress: Progress) -> T:
    """What `function` returns or raises; where it is disturbed, in a child. The answer must be picklable."""
    try:
        return function(progress)
    except Disturbed:
        if not CAN_FORK:
            raise
    return _in_a_child(lambda: function(_silent))


def _silent(text: str, share: float | None) -> None:
    """In a child nobody looks, and the thread that draws is not there."""


def _in_a_child(function: Callable[[], T]) -> T:
    out, into = os.pipe()
    child = os.fork()  # not by multiprocessing: a worker of Dask may have no such children
    if not child:
        _answer(function, into)
    os.close(into)
    with open(out, "rb") as pipe:
        answered = pipe.read()
    os.waitpid(child, 0)
    if not answered:
        raise Disturbed
    answer, error = pickle.loads(answered)
    if error is not None:
        raise error
    return answer


def _answer(function: Callable[[], T], into: int) -> NoReturn:
    """The child's whole life. It ends in any case: another thread may have held a lock that nobody gives back here."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        with open(into, "wb") as pipe:
            pipe.write(_outcome(function))
    finally:
        os._exit(0)


def _outcome(function: Callable[[], T]) -> bytes:
    try:
        return pickle.dumps((function(), None))
    except Exception as error:
        try:
            pickle.loads(said := pickle.dumps((None, error)))
            return said
        except Exception:
            return pickle.dumps((None, TensorcastError(str(error))))
