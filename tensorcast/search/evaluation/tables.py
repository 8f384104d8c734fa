"""The tables that a sweep needs and the disk does not have, traced several at a time before anything is priced.

Building a model costs as much as tracing it, so one that several plans share is built once and cut for each of them in
a child process of its own (`Forks`, `Models`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from tensorcast.answer import Answer
from tensorcast.errors import TensorcastError
from tensorcast.search.axes.space import Shard
from tensorcast.search.evaluation.group import Group
from tensorcast.search.execution.forks import CAN_FORK, Forks
from tensorcast.search.execution.models import Models
from tensorcast.trace import cache as disk


def prepare(shards: Iterable[Shard], progress: Callable[[str, float | None], None] | None = None) -> None:
    """Fill the cache of traced models for the first configuration of every group; what fails is left to the sweep."""
    if not CAN_FORK:
        return
    missing: dict[str, Group] = {}
    firsts: dict[str, Shard] = {}
    for shard in shards:
        group = Group(shard.fixed)
        with suppress(TensorcastError):
            if not group.together:
                continue
            key = disk.key_of(group.request.cache_key(), group.request.sources.files())
            if key not in missing and not disk.known(key):
                missing[key], firsts[key] = group, shard
    if len(missing) < 2:
        return
    forks, models = Forks(), Models()
    left = list(missing)
    try:
        while left or len(forks):
            while left and not forks.full:
                key = left.pop(0)
                if progress is not None:
                    progress("tracing the models", 1 - len(left) / len(missing))
                forks.start(key, _trace, firsts[key], models.whole_for(missing[key].request, cache=True))
            with suppress(TensorcastError):
                key, polynomial = forks.next()
                models.shown(missing[key].request, polynomial)
    finally:
        forks.stop()


def _trace(shard: Shard, ready: Any) -> bool:
    """Trace the shard's first configuration; whether the sizes in its tables are polynomials."""
    request = Group(shard.fixed).request
    first = {name: values[0].item() for name, values in shard.variables().items()}
    return Answer(request.doing(**first), ready=ready).traced.polynomial
