"""Shards in several processes of this machine."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorcast.search.execution.executors import failed, spread

if TYPE_CHECKING:
    import pyarrow as pa

    from tensorcast.search.axes.space import Shard
    from tensorcast.search.execution.executors import Evaluate

HOW = "fork" if sys.platform == "linux" else "spawn"
"""A forked process has at once all that this one has imported; beside the threads of other systems it is not safe."""
WATCH = 0.5  # seconds between two looks at whether the parent is still there


class Processes:
    """`jobs` processes, each with one shard at a time."""

    def __init__(self, jobs: int) -> None:
        self.size = jobs
        self._pool: ProcessPoolExecutor | None = None

    def run(self, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
        try:
            yield from spread(self, shards, evaluate)
        finally:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._pool = None

    def submit(self, evaluate: Evaluate, shard: Shard) -> Future:
        if self._pool is None and HOW == "fork":
            _prepare(evaluate, shard)
        try:
            if self._pool is not None:
                return self._pool.submit(evaluate, shard)
        except BrokenProcessPool:
            pass  # a process was lost: others take the place of all
        context = multiprocessing.get_context(HOW)
        self._pool = ProcessPoolExecutor(self.size, context, initializer=_begin, initargs=(os.getpid(),))
        return self._pool.submit(evaluate, shard)

    def ended(self, futures: Collection[Future]) -> Iterable[Future]:
        done = wait(futures, return_when=FIRST_COMPLETED).done
        # One lost process takes all of the pool with it.
        return wait(futures).done if any(self.is_loss(future.exception()) for future in done) else done

    def is_loss(self, error: BaseException | None) -> bool:
        return isinstance(error, BrokenProcessPool)


def _prepare(evaluate: Evaluate, shard: Shard) -> None:
    """Import what a shard needs (torch, where its model is not cached), so that every fork has it."""
    try:
        evaluate(replace(shard, stop=shard.start + 1))
    except Exception as error:
        raise failed(shard, error) from error


def _begin(parent: int) -> None:
    """What a process does first: one thread for numbers, no traceback of its own on Ctrl-C, an end with its parent.

    And what the parent made is not looked through for garbage, nor copied for that.
    """
    gc.freeze()
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    """End this process when the parent was killed: it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(1)
