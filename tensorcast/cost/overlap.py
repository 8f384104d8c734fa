"""Seconds that communication hides behind computation in one forward pass. Pure NumPy, many passes at once.

A device has two lanes: one computes, one talks to other devices; each does one operator at a time, in a fixed order. An
operator starts when its lane is free and everything that it waits for has ended. A kernel that computes and talks at
once holds both lanes: how the two overlap inside is part of its own time.

`streams`: a layer starts when the one before it has ended. In it, operators that more collectives of the layer wait for
go first, so that what no collective waits for is left to fill the gaps; else in the order of the model's code.

    finish(i) = max(free(lane of i), max of finish(j), j in after(i)) + t(i)      layer = max of finish(i)

`dual-batch`: two halves of the batch take turns, one computes while the other talks. Each half runs its operators one
after another, in the order above; its turn is all that it computes up to its next collective, and that collective. With
c, l the seconds of the two, `end` that of the half, `compute` and `link` the times from which the lanes are free:

    end = compute = max(compute, end) + c        end = link = max(link, end) + l

Either way: time of the busier lane <= time of the pass <= all operators one after another. Seconds. Valid for any
times >= 0. Source: own model, not measured; operators beside each other do not slow each other down here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from heapq import heapify, heappop, heappush
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from tensorcast.cost.described import calls_of, talks
from tensorcast.optable import Row

COMPUTE, LINK = 0, 1


class Task(NamedTuple):
    """One row of a table and the seconds of one of its calls: [passes], or one element for all."""

    row: Row
    seconds: np.ndarray


Plan = Sequence[tuple[Task, tuple[int, ...]]]
"""Calls in the order in which lanes take them up, each with the lanes it holds."""


class Turn(NamedTuple):
    """What a half computes, if anything, and the collective behind it; `both`: it computes, too."""

    computing: tuple[Task, ...]
    talking: Task | None = None
    both: bool = False


class Placed(NamedTuple):
    """A call and when it starts, seconds [passes]."""

    task: Task
    start: np.ndarray

    @property
    def end(self) -> np.ndarray:
        return self.start + self.task.seconds


def hidden_seconds(chains: Sequence[Sequence[Task]], layers: range | None = None) -> np.ndarray:
    """Seconds [passes] by which a pass is shorter than all its operators one after another; 0 where nothing overlaps.

    One chain is scheduled by the rule of `streams`, two (of the halves of a batch) by that of `dual-batch`. A chain:
    the rows that one device runs; `layers`: those of the main stack that are its pipeline stage's, None for all.
    """
    plans: dict[tuple[int, ...], Plan] = {}
    runs = []
    for half, chain in enumerate(chains):
        for _, _, run in runs_of(chain, layers):
            kind = (half, *(task.row.number for task in run))
            if kind not in plans:
                plans[kind] = plan_of(in_order(run))
            runs.append(kind)
    if len(chains) == 1:
        hidden = sum(n * (_in_sequence(plans[kind]) - _end(beside(plans[kind]))) for kind, n in Counter(runs).items())
    else:
        halves = [[item for kind in runs if kind[0] == half for item in plans[kind]] for half in range(len(chains))]
        hidden = sum(map(_in_sequence, halves)) - _end(in_turns(halves))
    return np.maximum(hidden, 0.0)  # rounding


def plan_of(run: Iterable[Task]) -> Plan:
    return [(task, lanes(task.row)) for task in run]


def lanes(row: Row) -> tuple[int, ...]:
    """The lanes that an operator holds: all that its calls need, for as long as it runs."""
    return tuple(sorted({LINK if talks(call) else COMPUTE for call in calls_of(row)}))


class Run(NamedTuple):
    """Calls of one layer of a stack (None: outside of layers), in the order in which they run."""

    stack: str
    layer: int | None
    tasks: tuple[Task, ...]


def runs_of(chain: Sequence[Task], layers: range | None = None, backwards: bool = False) -> Iterator[Run]:
    """The calls of every layer, and of every place outside of layers, in the order in which they run.

    `layers`: those of the main stack that are there, None for all; `backwards`: from the last to the first.
    """
    groups: dict[str, list[Task]] = {}
    for task in chain:
        groups.setdefault(task.row.stack or f"({task.row.place})", []).append(task)
    for group in groups.values():
        first, times = group[0].row, [Counter(task.row.layers or {0: task.row.count}) for task in group]
        inside = layers if first.stack and not first.place else None
        for layer in sorted(set().union(*times), reverse=backwards):
            if inside is None or layer in inside:
                for again in range(max(count[layer] for count in times)):
                    tasks = tuple(task for task, count in zip(group, times, strict=True) if count[layer] > again)
                    yield Run(first.stack, layer if first.stack else None, tasks)


def in_order(run: Sequence[Task]) -> list[Task]:
    """The run as its lanes take it up, nothing before what it waits for.

    First what most collectives wait for, counted one behind the other; then by number.
    """
    rows = {task.row.number: task for task in run}
    after = {number: {n for n in task.row.after if n in rows} for number, task in rows.items()}
    before: dict[int, list[int]] = {number: [] for number in rows}
    for number, others in after.items():
        for other in others:
            before[other].append(number)
    missing = {number: len(others) for number, others in after.items()}
    ready, placed = [number for number, count in missing.items() if not count], []
    heapify(ready)
    while ready:
        placed.append(heappop(ready))
        for number in before[placed[-1]]:
            missing[number] -= 1
            if not missing[number]:
                heappush(ready, number)
    if len(placed) < len(rows):
        raise ValueError(f"rows wait for each other: {sorted(rows.keys() - {*placed})}")
    behind: dict[int, int] = {}  # collectives, one behind the other, that wait for the row
    for number in reversed(placed):
        behind[number] = max((behind[n] + (LINK in lanes(rows[n].row)) for n in before[number]), default=0)
    return [rows[number] for number in sorted(placed, key=lambda number: -behind[number])]


def _in_sequence(plan: Plan) -> np.ndarray:
    return sum((task.seconds for task, _ in plan), np.zeros(1))


def _end(placed: Iterable[Placed]) -> np.ndarray:
    return reduce(np.maximum, (each.end for each in placed), np.zeros(1))


def beside(plan: Plan) -> Iterator[Placed]:
    """The calls of one run by the rule of `streams`, from second 0 on."""
    free, finish = [np.zeros(1), np.zeros(1)], {}
    for task, held in plan:
        start = np.maximum(free[held[0]], free[held[-1]])
        for other in task.row.after:
            if other in finish:
                start = np.maximum(start, finish[other])
        yield Placed(task, start)
        finish[task.row.number] = done = start + task.seconds
        for lane in held:
            free[lane] = done


def _turns(plan: Plan) -> Iterator[Turn]:
    computing: tuple[Task, ...] = ()
    for task, held in plan:
        if LINK in held:
            yield Turn(computing, task, COMPUTE in held)
            computing = ()
        else:
            computing += (task,)
    yield Turn(computing)


def in_turns(halves: Sequence[Plan]) -> Iterator[Placed]:
    """The calls of two halves by the rule of `dual-batch`, from second 0 on."""
    compute = link = np.zeros(1)
    ends = [np.zeros(1) for _ in halves]
    for turns in zip_longest(*map(_turns, halves), fillvalue=Turn(())):
        for half, turn in enumerate(turns):
            for task in turn.computing:
                placed = Placed(task, np.maximum(compute, ends[half]))
                yield placed
                ends[half] = compute = placed.end
            if turn.talking is not None:
                free = np.maximum(link, compute) if turn.both else link
                placed = Placed(turn.talking, np.maximum(free, ends[half]))
                yield placed
                ends[half] = link = placed.end
                compute = link if turn.both else compute
