"""Shards on a Dask cluster: one that runs, or one made of this machine's cores.

Its workers must compute what this process would: a shard is computed only where the code is the same and the model,
machine and user's files that it names hold the same; a worker elsewhere needs these files in a folder of the same name.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tensorcast.errors import InputError
from tensorcast.search.execution.executors import DASK, LOCAL, spread
from tensorcast.search.execution.helper import LostHelper, helped
from tensorcast.search.execution.origin import FILES, PACKAGES, difference, environment, inputs_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tensorcast.search.axes.space import Shard
    from tensorcast.search.execution.executors import Evaluate, Executor

PATIENCE = 4.0  # seconds for a scheduler to answer, and for it to have a worker
LOOK = 5.0  # seconds between two looks at whether the cluster is still there
NOBODY = 60.0  # seconds without any worker after which none is waited for any longer
MOST_WORKERS = 1024  # on this machine
LONGEST_GREETING = 1 << 20  # bytes
_ADDRESS = re.compile(r"(\[[0-9a-f:.]+\]|[^:/\s\[\]]+):[0-9]{1,5}", re.ASCII | re.IGNORECASE)


class Cluster:
    """The workers of a `distributed.Client`; `owned`: what ends with the sweep, the client first."""

    def __init__(self, client: Any, owned: Iterable[Any] = ()) -> None:
        """InputError: it has no workers, or such as do not have our packages."""
        self.client, self.owned = client, list(owned)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, where: Any, jobs: int = 1) -> Executor:
        """`where`: a client, "dask", "dask://local", "dask://local:N" or "dask://HOST:PORT". InputError."""
        try:
            import distributed
        except ImportError:
            raise InputError(
                f"--executor {where}: Dask is not installed; pip install 'tensorcast[distributed]'"
            ) from None
        if isinstance(where, distributed.Client):
            return cls(where)
        if not isinstance(where, str):
            raise InputError(f"executor {where!r}: a text or a distributed.Client")
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what is wrong is said once, by us
        _, _, place = where.partition("://")
        name, _, count = place.partition(":")
        if not place or name == LOCAL:
            return LocalCluster(_workers(where, count, jobs))
        if not _ADDRESS.fullmatch(place):
            raise InputError(f"--executor {where}: dask://HOST:PORT of a scheduler, dask://local:N or {DASK}")
        try:
            _knock(place)
            client = distributed.Client(f"tcp://{place}", timeout=PATIENCE, set_as_default=False)
        except (OSError, OverflowError, ValueError) as error:
            raise InputError(f"--executor {where}: no scheduler answers there ({_line(error)})") from None
        return cls(client, [client])

    def close(self) -> None:
        for each in self.owned:
            each.close()
        self.owned = []

    def _check(self) -> None:
        """InputError unless there are workers, and all have the packages we have."""
        from distributed import TimeoutError as Late

        if self.client.asynchronous:
            raise InputError("executor: the Client is asynchronous; give one made with asynchronous=False")
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except Late:
            raise InputError(f"the Dask scheduler {self._address} has no workers; start some first") from None
        names = ("tensorcast", *PACKAGES)
        found = self.client.get_versions(packages=names)
        ours = {name: str(found["client"]["packages"][name]) for name in names}
        for address, worker in found["workers"].items():
            theirs = {name: str(worker["packages"][name]) for name in names}
            if differs := difference(theirs, ours):
                raise InputError(f"the Dask worker {address} has {differs}; install the same versions there")

    @property
    def _address(self) -> str:
        return self.client.scheduler.address if self.client.scheduler else "?"

    # -- shards --------------------------------------------------------------------------------------------------------

    def run(self, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
        self._task, self._seen = Task(evaluate, environment(), uuid4().hex), time.monotonic()
        self._inputs: dict[str, Mapping[str, str]] = {}
        from distributed import CancelledError
        from distributed.comm import CommClosedError

        try:
            yield from spread(self, shards, evaluate)
        except (CancelledError, CommClosedError):
            raise self._gone() from None
        finally:
            self.close()

    @property
    def size(self) -> int:
        return max(1, sum(self.client.nthreads().values()))

    def submit(self, evaluate: Evaluate, shard: Shard) -> Any:
        named = _named(shard)
        key = repr(named)
        if key not in self._inputs:
            self._inputs[key] = inputs_of([named])
        return self.client.submit(helped, os.getcwd(), self._task, shard, self._inputs[key], pure=False)

    def ended(self, futures: Collection[Any]) -> Iterable[Any]:
        from distributed import TimeoutError as Late
        from distributed import wait

        while True:
            try:
                with self.client.as_current():
                    return wait(list(futures), timeout=LOOK, return_when="FIRST_COMPLETED").done
            except Late:
                self._check_alive()

    def is_loss(self, error: BaseException) -> bool:
        from distributed import KilledWorker

        return isinstance(error, (KilledWorker, LostHelper))

    def _check_alive(self) -> None:
        """InputError when nobody is left to wait for."""
        if self.client.status != "running":
            raise self._gone()
        now = time.monotonic()
        if self.client.nthreads():
            self._seen = now
        elif now - self._seen > NOBODY:
            raise InputError(f"the Dask scheduler {self._address} has had no workers for {NOBODY:.0f} s; start some")

    def _gone(self) -> InputError:
        return InputError("the Dask scheduler does not answer any more; what is stored is kept: go on with --resume")


@dataclass(frozen=True)
class LocalCluster:
    """Workers on this machine, there for one sweep."""

    workers: int

    def run(self, shards: Iterable[Shard], evaluate: Evaluate) -> Iterator[tuple[Shard, pa.Table]]:
        import distributed

        cluster = distributed.LocalCluster(
            n_workers=self.workers,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            memory_limit=None,
        )
        client = distributed.Client(cluster, set_as_default=False)
        yield from Cluster(client, [client, cluster]).run(shards, evaluate)


@dataclass(frozen=True)
class Task:
    """What is done with a shard: nothing, unless it would give the same as in the client.

    `code`: the client's `environment()`. `run`: a number for this sweep.
    """

    evaluate: Evaluate
    code: Mapping[str, str]
    run: str

    def __call__(self, shard: Shard, inputs: Mapping[str, str]) -> pa.Table:
        if differs := difference(environment(), self.code):
            raise InputError(f"the worker on {os.uname().nodename} has {differs}; install the same there")
        named = _named(shard)
        if (checked := (self.run, repr(named))) not in _CHECKED:
            if differs := difference(inputs_of([named]), inputs):
                raise InputError(f"the worker on {os.uname().nodename} has {differs}; it needs the same files")
            _CHECKED.add(checked)
        return self.evaluate(shard)


_CHECKED: set[tuple[str, str]] = set()
"""In a helper: sweeps and what they name, found to be the same here as there."""


def _named(shard: Shard) -> dict[str, tuple]:
    """The shard's options that name files, as axes."""
    return {name: (shard.fixed[name],) for name in FILES if name in shard.fixed}


def _knock(place: str) -> None:
    """OSError where nobody listens, or something other than Dask; a client would try for long, or take fright.

    A Dask server speaks first: the length of its greeting, as 8 bytes.
    """
    host, _, port = place.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE) as line:
        greeting = line.recv(8, socket.MSG_WAITALL)
    if len(greeting) < 8 or int.from_bytes(greeting, "little") > LONGEST_GREETING:
        raise OSError("what listens there is not Dask")


def _workers(where: str, count: str, jobs: int) -> int:
    if not count:
        return jobs if jobs > 1 else os.cpu_count() or 1
    if not count.isdecimal() or not 1 <= int(count) <= MOST_WORKERS:
        raise InputError(f"--executor {where}: 1 to {MOST_WORKERS} workers")
    return int(count)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
