"""The timelines of an estimate as a trace that Perfetto and chrome://tracing open.

JSON in the Trace Event Format (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU): a
process a phase, one behind the other; in it a thread of modules, one a stream, and counters. Slices are written as
begin and end, not as begin and duration: both are then rounded alike by whoever reads them, and none overlaps the next.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import lru_cache
from itertools import islice
from typing import IO, Any

from tensorcast.cost.timeline import COMPUTE_STREAM, HOST, LINK_STREAM, Call, Pass, Slice, Timeline
from tensorcast.report.data.json import strict
from tensorcast.report.perfetto.tracks import Grid, Meter, Nest, Placed, in_view, module_of, path_of

THREADS = ("modules", COMPUTE_STREAM, LINK_STREAM)
NOT_HIDDEN = "what computation does not hide"
MIDDLE = "one pass in the middle of those that the phase is the mean of"
CHUNK = 4096  # events that are written at a time
_OF_CALL = ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes")
_OF_ROW = ("math", "collective", "ranks", "tier")
_HELD = {
    "weights_bytes": "weights", "kv_cache_bytes": "KV cache at its full length", "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer states",
}  # fmt: skip


def write_trace(
    file: IO[bytes], estimate: Mapping[str, Any], timelines: Mapping[str, Timeline], packed: bool = False
) -> None:
    """Write the trace, with gzip where `packed`. `estimate`: as `Estimate.to_dict()`; the same gives the same bytes."""
    pieces = trace(estimate, timelines)
    with gzip.GzipFile("", "wb", 6, file, mtime=0) if packed else nullcontext(file) as stream:
        while text := "".join(islice(pieces, CHUNK)):
            stream.write(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair is escaped, as in JSON


def trace(estimate: Mapping[str, Any], timelines: Mapping[str, Timeline]) -> Iterator[str]:
    """The document, in pieces."""
    yield f'{{"otherData":{_json(_about(estimate, timelines))},"traceEvents":['
    start, between = 0, "\n"
    for pid, (name, line) in enumerate(timelines.items(), 1):
        process = _Process(pid, start, name, line, estimate)
        for event in process.events():
            yield between + event
            between = ",\n"
        start = process.end
    yield "\n]}\n"


def _about(estimate: Mapping[str, Any], timelines: Mapping[str, Timeline]) -> dict[str, Any]:
    import tensorcast

    memory = estimate["memory"]
    held = ", ".join(said for name, said in _HELD.items() if memory.get(name))
    counted = f"{held}, the same all the time" + ("" if _trains(memory) else "; and the activations of the moment")
    return {
        "version": f"tensorcast {tensorcast.__version__}",
        "command": estimate.get("command"),
        "model": estimate["model"]["name"],
        "machine": estimate["hardware"]["name"],
        **{name: estimate[name] for name in ("plan", "quant", "workload", "uncosted_ops", "warnings")},
        "device": "one, of the slowest pipeline stage",
        "phases": {name: "whole" if line.whole else MIDDLE for name, line in timelines.items()},
        "memory": f"{counted}; of the fullest device; not the scratch memory of operators, nor what is reserved",
    }


def _trains(memory: Mapping[str, Any]) -> bool:
    """Whether the traced activations are not those in use: what is kept for the backward pass is not in them."""
    return "gradients_bytes" in memory


class _Process:
    """The events of a phase, which starts at nanosecond `start`; `end` is known when all are out."""

    def __init__(self, pid: int, start: int, phase: str, line: Timeline, estimate: Mapping[str, Any]) -> None:
        self.pid, self.phase, self.line, self.end = pid, phase, line, start
        self.grid, self.estimate = Grid(start), estimate
        self.nest = Nest(2, lambda now, path: self._begin(now, THREADS[0], path[-1], *self._within(path)), self._close)
        memory = estimate["memory"]
        held = sum(memory.get(name, 0) for name in _HELD)
        self.activations = not _trains(memory)
        self.meter = Meter(held, self.activations, self._count)
        self.rows = _rows(estimate["phases"][phase]["ops"])
        self.kernels = _kernels(estimate["kernels"])
        self.said: dict[int, str] = {}  # the arguments of the calls of a pass
        self.heads: list[tuple[str, str]] = []  # category and arguments of the slices around the modules
        self.component, self.summed = "", False

    def events(self) -> Iterator[str]:
        yield from self._names()
        for name, each in zip(self.line.names, self.line.passes, strict=True):
            yield from self._pass(name, each)
        yield from self.nest.close()
        yield from self.meter.stop(self.end)

    def _names(self) -> Iterator[str]:
        model, machine = self.estimate["model"]["name"], self.estimate["hardware"]["name"]
        components = ", ".join(dict.fromkeys(each.component for each in self.line.passes if each.component))
        name = f"{self.phase}: {components + ' of ' if components else ''}{model} on {machine}"
        yield self._meta("process_name", self.pid, name=name)
        yield self._meta("process_sort_index", self.pid, sort_index=self.pid)
        used = {stream for _, _, piece in self.line.slices for stream in piece.call.streams}
        for number, thread in enumerate(THREADS):
            if not number or thread in used:
                yield self._meta("thread_name", self._tid(thread), name=thread)
                yield self._meta("thread_sort_index", self._tid(thread), sort_index=number)

    def _pass(self, name: str, each: Pass) -> Iterator[str]:
        begin = self.grid.barrier(each.start_s)
        head = self._heads(name, each)
        self.said, self.component, clock = {}, each.component, begin
        self.meter.forget()
        for run in each.runs:
            self.summed = run.summed
            placed = self.grid.place(run.slices)
            yield from self._operators(placed)
            for start, end, piece in in_view(placed):
                yield from self.nest.show(start, end, (*head, *path_of(piece)))
            yield from self.meter.measure(placed, run.summed)
            clock = max(clock, *(one.end for one in placed))
        self.end = self.grid.barrier(each.end_s)
        if self.end > clock:
            yield from self.nest.show(clock, self.end, (*head, HOST))

    def _heads(self, name: str, each: Pass) -> tuple[str, str]:
        """The names of the slices around the modules: the phase, and the pass or what runs beside the passes."""
        shape, part = {}, {"component": each.component} if each.component else {}
        if each.through_model:
            shape = {"sequences": each.batch, "tokens": each.tokens, "in_cache": each.past}
        whole = {"of": "the whole phase" if self.line.whole else MIDDLE, "command": self.estimate.get("command")}
        self.heads = [("phase", _json(whole)), ("pass", _json({**part, **shape, "time_s": each.end_s - each.start_s}))]
        return self.phase, name

    def _within(self, path: tuple[str, ...]) -> tuple[str, str]:
        """Category and arguments of a slice of the modules."""
        if len(path) <= len(self.heads):
            return self.heads[len(path) - 1]
        if path[-1] == HOST:
            return "host", "{}"
        return "module", f'{{"module":{_quoted(".".join(path[len(self.heads) :]))}}}'

    def _operators(self, placed: list[Placed]) -> Iterator[str]:
        """Every call on its stream; one that holds both is on both, and counts once: on the first."""
        for begin, end, piece in placed:
            call = piece.call
            for category, stream in zip(("operator", "same operator"), call.streams, strict=False):
                yield self._begin(begin, stream, call.op, category, self._arguments(piece))
                yield self._close(end, stream)

    def _arguments(self, piece: Slice) -> str:
        call = piece.call
        if id(call) not in self.said:
            self.said[id(call)] = _json(self._figures(call))[1:]
        half = "" if piece.half is None else f'"half":{piece.half + 1},'
        return f'{{"module":{_quoted(module_of(piece))},{half}{self.said[id(call)]}'

    def _figures(self, call: Call) -> dict[str, Any]:
        found: dict[str, Any] = {"bound": call.bound, "time_s": call.seconds}
        found |= {name: value for name in _OF_CALL if (value := getattr(call, name))}
        if self.activations and call.memory_bytes is not None:
            found["activation_bytes"] = call.memory_bytes
        component = f"{self.component}." if self.component else ""
        row = self.rows.get((call.op, f"{component}{call.module}".rstrip(".")), {})
        kernel = {"kernel": self.kernels[call.op]} if not component and call.op in self.kernels else {}
        streams = {"streams": call.stream} if len(call.streams) > 1 else {}
        part = {"time": NOT_HIDDEN} if self.summed and call.stream == LINK_STREAM else {}
        return found | row | kernel | streams | part

    # -- the format ----------------------------------------------------------------------------------------------------

    def _tid(self, thread: str) -> int:
        """Numbers of threads that no other process has, and that are none of a process."""
        return 1000 * self.pid + THREADS.index(thread)

    def _meta(self, kind: str, tid: int, **args: Any) -> str:
        return f'{{"ph":"M","pid":{self.pid},"tid":{tid},"name":"{kind}","args":{_json(args)}}}'

    def _begin(self, now: int, thread: str, name: str, category: str, args: str) -> str:
        at = f'"ph":"B","pid":{self.pid},"tid":{self._tid(thread)},"ts":{_us(now)}'
        return f'{{{at},"cat":"{category}","name":{_quoted(name)},"args":{args}}}'

    def _close(self, now: int, thread: str = THREADS[0]) -> str:
        return f'{{"ph":"E","pid":{self.pid},"tid":{self._tid(thread)},"ts":{_us(now)}}}'

    def _count(self, now: int, name: str, series: Mapping[str, float]) -> str:
        values = ",".join(f'"{label}":{value!r}' for label, value in series.items())
        return f'{{"ph":"C","pid":{self.pid},"ts":{_us(now)},"name":"{name}","args":{{{values}}}}}'


def _rows(ops: list[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(operator, module) → the format of its products and whom it talks to, where all its calls agree."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for op in ops:
        said = {name: op[name] for name in _OF_ROW if name in op}
        known = found.setdefault((op["op"], op["module"]), said)
        found[op["op"], op["module"]] = {name: value for name, value in known.items() if said.get(name) == value}
    return found


def _kernels(kernels: list[Mapping[str, Any]]) -> dict[str, str]:
    """Operator → its kernel, of those that the model runs with one kernel everywhere."""
    names: dict[str, set[str]] = {}
    for kernel in kernels:
        names.setdefault(kernel["op"], set()).add(kernel["name"])
    return {op: next(iter(found)) for op, found in names.items() if len(found) == 1}


def _us(now: int) -> str:
    """Nanoseconds as microseconds, which the format counts in."""
    return f"{now // 1000}.{now % 1000:03d}"


def _json(value: Any) -> str:
    return json.dumps(strict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@lru_cache(maxsize=1 << 14)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
