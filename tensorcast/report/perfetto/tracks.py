"""What a phase does at every nanosecond: the slices of its streams and modules, and its counters.

All lie on one grid of whole nanoseconds, which is what Perfetto keeps: every time is rounded once, and pushed on to the
end of what its stream did before where rounding would let the two overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, takewhile
from math import inf
from operator import itemgetter
from typing import NamedTuple

from tensorcast.cost.timeline import COMPUTE_STREAM, LINK_STREAM, Slice

NS = 1e9
_ENDS, _STARTS, _PASSES = range(3)  # what a call does at a nanosecond; one without a rate only passes
COUNTERS = (
    ("FLOP/s", "matrix", lambda call: call.matrix_flops),
    ("FLOP/s", "vector", lambda call: call.vector_flops),
    ("memory bandwidth", "bytes/s", lambda call: call.read_bytes + call.write_bytes),
    ("link bandwidth", "message bytes/s", lambda call: call.comm_bytes),
)
"""Rates of what runs: counter, series, and the work of a call that its seconds divide."""


class Placed(NamedTuple):
    """A slice of the timeline, in whole nanoseconds."""

    begin: int
    end: int
    piece: Slice


class Grid:
    """Seconds of a phase to nanoseconds of the trace, of which `start` is the phase's first."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._free = dict.fromkeys((COMPUTE_STREAM, LINK_STREAM), start)

    def at(self, seconds: float) -> int:
        return self.start + round(seconds * NS)

    def barrier(self, seconds: float) -> int:
        """The nanosecond from which all streams are free."""
        now = max(self.at(seconds), *self._free.values())
        self._free = dict.fromkeys(self._free, now)
        return now

    def place(self, pieces: Iterable[Slice]) -> list[Placed]:
        """Slices in the order in which their streams take them up."""
        placed = []
        for piece in pieces:
            streams = piece.call.streams
            begin = max(self.at(piece.start_s), *(self._free[stream] for stream in streams))
            placed.append(Placed(begin, max(begin, self.at(piece.end_s)), piece))
            self._free.update(dict.fromkeys(streams, placed[-1].end))
        return placed


def in_view(placed: Sequence[Placed]) -> Iterator[tuple[int, int, Slice]]:
    """What the compute stream runs, and while it waits what the other stream does; one behind the other."""
    talking = [each for each in placed if COMPUTE_STREAM not in each.piece.call.streams]
    clock, upcoming = -inf, 0

    def until(end: float) -> Iterator[tuple[int, int, Slice]]:
        nonlocal upcoming
        while upcoming < len(talking) and talking[upcoming].begin < end:
            each = talking[upcoming]
            begin = max(each.begin, clock)
            if begin < min(each.end, end):
                yield begin, min(each.end, end), each.piece
            if each.end > end:
                return
            upcoming += 1

    for each in placed:
        if COMPUTE_STREAM in each.piece.call.streams:
            yield from until(each.begin)
            yield each
            clock = each.end
    yield from until(inf)


def path_of(piece: Slice) -> tuple[str, ...]:
    """The names of the modules around a call, outermost first: model, layers.3, self_attn, o_proj."""
    path: list[str] = []
    for part in filter(None, module_of(piece).split(".")):
        if path and part.isdigit():
            path[-1] += f".{part}"
        else:
            path.append(part)
    return tuple(path)


def module_of(piece: Slice) -> str:
    """The module of a call, with the number of its layer."""
    module = piece.call.module
    return module if piece.layer is None else module.replace("*", str(piece.layer), 1)


class Nest:
    """The slices that are open on a thread, outermost first, the first `kept` of which outlast gaps.

    `begin`, `end`: what is said of one, at a nanosecond.
    """

    def __init__(self, kept: int, begin: Callable[[int, tuple[str, ...]], str], end: Callable[[int], str]) -> None:
        self._kept, self._begin, self._end = kept, begin, end
        self._open: tuple[str, ...] = ()
        self.clock = 0

    def show(self, begin: int, end: int, path: tuple[str, ...]) -> Iterator[str]:
        """From `begin` to `end` the path is open; what it shares with the one before stays open if no time is between.

        Times do not go back: where they would, by rounding, they stand still.
        """
        if begin > self.clock:
            yield from self.close(self._kept)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._open, path, strict=False)))
        yield from self.close(shared)
        self.clock = max(self.clock, begin)
        for depth in range(shared, len(path)):
            yield self._begin(self.clock, path[: depth + 1])
        self._open, self.clock = path, max(self.clock, end)

    def close(self, depth: int = 0) -> Iterator[str]:
        """Close what is open below a depth."""
        for _ in range(len(self._open) - depth):
            yield self._end(self.clock)
        self._open = self._open[:depth]


class Meter:
    """The counters of a phase: bytes in use, and the rates of what runs.

    A rate is that of the call over its exact seconds, for as long as the call lasts on the grid; none where only part
    of its seconds is known, which would be too high a rate. `held`: bytes in use all the time; `activations`: whether
    those of the calls are known. `write`: says a counter and its series.
    """

    def __init__(self, held: int, activations: bool, write: Callable[[int, str, dict[str, float]], str]) -> None:
        self._held, self._activations, self._write = held, activations, write
        self._alive: dict[int | None, float] = {}
        self._written: dict[str, dict[str, float]] = {}
        self._due: tuple[int, dict[str, dict[str, float]]] | None = None

    def forget(self) -> None:
        """A pass begins: the activations of the one before are gone."""
        self._alive = {}

    def measure(self, placed: Sequence[Placed], summed: bool) -> Iterator[str]:
        """The counters while these run, of one run; `summed`: as there."""
        unknown = LINK_STREAM if summed else None
        changes: list[tuple[int, int, Slice]] = []
        for begin, end, piece in placed:
            rated = begin < end and piece.call.stream != unknown
            changes.append((begin, _STARTS if rated else _PASSES, piece))
            if rated:
                changes.append((end, _ENDS, piece))
        running: dict[int, Slice] = {}
        for now, group in groupby(sorted(changes, key=itemgetter(0, 1)), key=itemgetter(0)):
            for _, kind, piece in group:
                if kind == _ENDS:
                    del running[id(piece)]
                    continue
                if kind == _STARTS:
                    running[id(piece)] = piece
                if piece.call.memory_bytes is not None:
                    self._alive[piece.half] = piece.call.memory_bytes
            yield from self._at(now, running.values())

    def stop(self, now: int) -> Iterator[str]:
        """The phase ends."""
        self.forget()
        yield from self._at(now, ())
        yield from self._flush()

    def _at(self, now: int, running: Iterable[Slice]) -> Iterator[str]:
        """From `now` on; what is said again of the same nanosecond replaces what was said."""
        if self._due is not None and self._due[0] != now:
            yield from self._flush()
        values: dict[str, dict[str, float]] = {"memory held": {"bytes": self._held}}
        if self._activations:
            alive = round(sum(self._alive.values()))
            values = {"memory in use": {"bytes": self._held + alive}, "activations": {"bytes": alive}}
        for name, series, work in COUNTERS:
            rate = sum(work(each.call) / each.call.seconds for each in running)
            values.setdefault(name, {})[series] = rate
        self._due = now, values

    def _flush(self) -> Iterator[str]:
        now, values = self._due or (0, {})
        for name, series in values.items():
            if self._written.get(name) != series:
                yield self._write(now, name, series)
        self._written, self._due = values, None
