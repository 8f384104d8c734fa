"""A process of our own beside a thread of a Dask worker.

Tracing a model sees when tensors go. A profiler that samples the stacks of a process, as every Dask worker runs one,
keeps what is on them alive a little longer, and each model would be traced twice (`trace.undisturbed`). A worker may
also have several threads, and a model is not deployed in two at a time. So a worker computes nothing itself.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class LostHelper(RuntimeError):
    """The process ended without an answer, mostly for want of memory."""


class Helper:
    """A process in `folder`, where there is one of this name. It ends when this process does."""

    def __init__(self, folder: str) -> None:
        self._pipe, its = multiprocessing.Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        # Dask has memory given back at once, and every array of ours would be mapped anew: three times the seconds.
        environment = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
        subprocess.Popen(
            [sys.executable, "-c", f"from tensorcast.search.execution.helper import serve; serve({its.fileno()})"],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=folder if os.path.isdir(folder) else None,
            env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        its.close()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, or what it raised; LostHelper."""
        import cloudpickle

        try:
            self._pipe.send_bytes(cloudpickle.dumps((function, args)))
            answer, error = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as lost:
            raise LostHelper("a process was lost; is there memory enough?") from lost
        if error is not None:
            raise error
        return answer


_OWN = threading.local()


def helped(folder: str, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` by the helper of this thread. Raises what it raised; LostHelper, after which there is another.

    A helper in another folder is left for one in this.
    """
    if getattr(_OWN, "folder", None) != folder:
        _OWN.helper, _OWN.folder = Helper(folder), folder
    try:
        return _OWN.helper.call(function, *args)
    except LostHelper:
        del _OWN.folder
        raise


def serve(handle: int) -> None:
    """Answer calls until nobody is there to ask."""
    pipe = Connection(handle)
    while True:
        try:
            pipe.send_bytes(_outcome(pipe.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)


def _outcome(request: bytes) -> bytes:
    try:
        function, args = pickle.loads(request)
        return pickle.dumps((function(*args), None), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            return pickle.dumps((None, pickle.loads(pickle.dumps(error))))
        except Exception:
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
