"""Where the shards of a sweep are computed: in this process, in several, or on a Dask cluster.

| text | where |
|---|---|
| local | in this process; with more than one job, in so many processes of this machine |
| dask, dask://local | on a Dask cluster of this machine's cores, or of `jobs` workers, that ends with the sweep |
| dask://local:N | the same with N workers |
| dask://HOST:PORT | on the workers of a running Dask scheduler |

A `distributed.Client` stands for its cluster. All give the same tables: what a shard has does not depend on its
neighbours. At most two shards a worker are under way, so that a sweep of any length needs a bounded amount of memory.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from tensorcast.errors import InputError, TensorcastError

if TYPE_CHECKING:
    import pyarrow as pa

    from tensorcast.search.axes.space import Shard

    Evaluate = Callable[[Shard], pa.Table]

AHEAD = 2
"""Shards under way for each worker: one that it computes, one that it finds when it is through."""
TRIES = 2
"""Times that a shard is computed when its worker is lost."""
LOCAL, DASK = "local", "dask"


class Executor(Protocol):
    """Computes shards."""

    def run(self, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
        """(shard, its table) in the order in which they are through; to be closed when no more are wanted.

        Raises a TensorcastError of `evaluate` as it is, and any other error of it as a RuntimeError that names the
        shard. InputError: a shard that cannot be sent, or whose worker was lost `TRIES` times.
        """
        ...


def executor_named(text: Any = None, jobs: int = 1) -> Executor:
    """The executor that `text` means (the module's table), None = local, or the one of a `distributed.Client`.

    InputError: no such executor, no number of jobs, Dask not installed, no scheduler there.
    """
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"--jobs {jobs!r}: a whole number, at least 1")
    if text is None or text == LOCAL:
        from tensorcast.search.execution.processes import Processes

        return Here() if jobs == 1 else Processes(jobs)
    if hasattr(text, "run") and not hasattr(text, "scheduler_info"):
        return text
    if not isinstance(text, str) or text.partition("://")[0] == DASK:
        from tensorcast.search.execution.cluster import Cluster

        return Cluster.of(text, jobs)
    raise InputError(f"--executor {text!r}: local, dask, dask://local:N or dask://HOST:PORT")


class Here:
    """In this process, one shard after the other."""

    def run(self, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
        for shard in shards:
            try:
                table = evaluate(shard)
            except Exception as error:
                raise failed(shard, error) from error
            yield shard, table


class Team(Protocol):
    """Workers in other processes, as `spread` needs them. A future has `exception()` and `result()`."""

    @property
    def size(self) -> int:
        """Workers there are now, at least 1."""
        ...

    def submit(self, evaluate: Evaluate, shard: Shard) -> Any:
        """The future of a shard's table."""
        ...

    def ended(self, futures: Collection[Any]) -> Iterable[Any]:
        """Those that have ended, one at least: waits for it."""
        ...

    def is_loss(self, error: BaseException) -> bool:
        """Whether a future failed because its worker was lost."""
        ...


def spread(team: Team, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
    """What `Executor.run` says, by a team. A shard that was lost is computed alone, to see whether it is to blame."""
    shards = iter(shards)
    waiting: dict[Any, Shard] = {}
    again: list[Shard] = []
    losses: Counter[int] = Counter()

    def upcoming() -> Iterator[Shard]:
        while again:
            yield again.pop(0)
        for shard in shards:  # no `yield from`: that would end `shards` with this generator
            check_sendable(shard)
            yield shard

    while True:
        alone = again or any(shard.index in losses for shard in waiting.values())
        room = (1 if alone else AHEAD * team.size) - len(waiting)
        for shard in islice(upcoming(), max(room, 0)):
            waiting[team.submit(evaluate, shard)] = shard
        if not waiting:
            return
        for future in team.ended(waiting):
            shard, error = waiting.pop(future), future.exception()
            if error is None:
                yield shard, future.result()
            elif not team.is_loss(error):
                raise failed(shard, error) from error
            elif (count := losses[shard.index] + 1) == TRIES:
                raise InputError(f"a worker was lost {count} times with {described(shard)}; has it enough memory?")
            else:
                losses[shard.index] = count
                again.append(shard)


def failed(shard: Shard, error: BaseException) -> BaseException:
    """What to raise when `evaluate` raised `error`: the user's errors as they are, ours with the shard they are in."""
    if isinstance(error, TensorcastError):
        return error
    return RuntimeError(f"{type(error).__name__} in {described(shard)}: {error}")


def described(shard: Shard) -> str:
    options = ", ".join(f"{name}={value}" for name, value in shard.fixed.items())
    return f"shard {shard.index} ({options})"


def check_sendable(shard: Shard) -> None:
    """InputError for a shard that cannot go to another process, with the option that keeps it."""
    try:
        pickle.dumps(shard)
    except Exception:
        for name, value in shard.fixed.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise InputError(
                    f"--{name.replace('_', '-')}: {type(value).__name__} {getattr(value, '__name__', '')!r} cannot be "
                    f"sent to another process ({error}); run the sweep in this one (executor local, 1 job)"
                ) from None
        raise
