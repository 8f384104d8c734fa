"""`sweep`: every configuration of a space, one row each."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tensorcast.errors import InputError
from tensorcast.search.axes.space import MOST_ROWS, Shard, Space
from tensorcast.search.evaluation.tables import prepare
from tensorcast.search.execution.executors import LOCAL, Here, executor_named
from tensorcast.search.frame import evaluate, joined, schema, to_pandas
from tensorcast.search.summary import Summary

if TYPE_CHECKING:
    from tensorcast.search.sweep_frame import SweepFrame

WORTH_SHARING = 4096
"""Configurations from which on several processes share a sweep unless told."""
MOST_PREPARED = 1000
"""Groups whose tables are traced before all else; of more, each traces its own when its turn comes."""
Progress = Callable[[str, "float | None"], None]
Done = Generator[tuple[Shard, pa.Table], None, None]


def sweep(
    model: Any = None,
    hw: Any = None,
    *,
    space: Any = None,
    executor: Any = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    jobs: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> SweepFrame:
    """Every configuration as one row of a DataFrame: inputs, metrics, memory, `fits`, `reason` (see search/frame.py).

    `model`, `hw` and the options of `tc.simulate` take a value, or a list, tuple, range or array of values; a number
    also a text such as "1:512:x2". `space`: the path of a YAML file, a mapping, a list of mappings (their union) or a
    Space, in place of options or beside them. `executor`: None, "local", "dask://HOST:PORT" …; `jobs`: processes here;
    unless told, as many as there are cores where the space is large enough to share out.
    `out`: a folder for the rows as Parquet, which `resume=True` continues. `progress`: called with (text, share done).

    A configuration that cannot be has its `reason`, NaN for figures and NA for `fits`. Raises InputError for a space
    that is empty, too large or wrong, and when every configuration is refused.
    """
    whole = combined(space, {"model": model, "hw": hw, **options})
    summary, found = Summary(top=0), []
    for table in joined(run(whole, executor, out, resume, jobs, cache, progress)):
        summary.add(table)
        found.append(table)
    summary.check()
    return to_pandas(pa.concat_tables(found).unify_dictionaries())


def combined(space: Any, options: Mapping[str, Any]) -> Space:
    """The space that is given, with every configuration of the options."""
    own = Space.of(**options)
    if space is None:
        return own
    if isinstance(space, Space):
        return space * own
    if isinstance(space, (str, os.PathLike)):
        return Space.read(space) * own
    parts = [space] if isinstance(space, Mapping) else space
    if not isinstance(parts, (list, tuple)) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise InputError(f"space {parts!r}: the path of a YAML file, a mapping of options, or a list of mappings")
    return Space(axes for part in parts for axes in Space.of(**part).products) * own


def run(
    space: Space,
    executor: Any = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    jobs: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Iterator[pa.Table]:
    """The rows in the order of the space's shards, in tables of at most `space.MOST_ROWS` or so.

    With `out` they are stored first, each shard as soon as it is done, and handed on when all are.
    """
    space.check()
    if out is None and resume:
        raise InputError("--resume continues what a run has written: it needs --out")
    local = executor in (None, LOCAL)
    if jobs is None:
        jobs = min(os.cpu_count() or 1, space.groups) if local and len(space) >= WORTH_SHARING and space.plain else 1
    team, work = executor_named(executor, jobs), partial(evaluate, cache=cache)
    if local and cache and 1 < space.groups <= MOST_PREPARED:
        prepare(space.shards(len(space)), progress)
    if isinstance(team, Here) and progress is not None:
        work = partial(work, progress=lambda text, _=None: progress(text, None))  # a share of a shard is none of all
    if out is None:
        yield from _in_order(_told(space, team.run(space.shards(), work), progress))
        return
    from tensorcast.report.data.rows import described
    from tensorcast.search.execution.store import Store

    with Store(out, space, resume) as store:
        for note in store.notes if progress is not None else ():
            progress(note, None)
        missing = (shard for shard in space.shards() if not store.done(shard))
        for shard, table in _told(space, team.run(missing, work), progress, store.rows):
            store.write(shard, described(table))
        for batch in store.dataset().to_batches(batch_size=MOST_ROWS, batch_readahead=0, fragment_readahead=0):
            yield pa.Table.from_batches([batch]).cast(schema(space.options))


def _told(space: Space, pairs: Done, progress: Progress | None, done: int = 0) -> Done:
    """The pairs; `progress` hears how many configurations there are so far, `done` of them before."""
    with closing(pairs):
        for shard, table in pairs:
            yield shard, table
            done += len(shard)
            if progress is not None:
                progress(f"{done:,} of {len(space):,} configurations", done / len(space))


def _in_order(pairs: Done) -> Iterator[pa.Table]:
    """The rows of shard 0, 1, 2 …; what comes too early waits."""
    early: dict[int, pa.Table] = {}
    following = 0
    for shard, table in pairs:
        early[shard.index] = table
        while following in early:
            yield early.pop(following)
            following += 1
