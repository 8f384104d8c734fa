"""Reads a trace as the Trace Event Format says and as Perfetto does, and says what it finds wrong.

Written from the format's document (https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU)
and from how Perfetto's JSON importer turns microseconds into nanoseconds; knows nothing of who wrote the trace.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REQUIRED = {
    "B": {"ph", "pid", "tid", "ts", "name", "cat", "args"},
    "E": {"ph", "pid", "tid", "ts"},
    "C": {"ph", "pid", "ts", "name", "args"},
    "M": {"ph", "pid", "tid", "name", "args"},
}
METADATA = {
    "process_name": ("name", str), "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int), "thread_sort_index": ("sort_index", int),
}  # fmt: skip


@dataclass
class Span:
    """A slice, in nanoseconds; `depth`: how many are around it."""

    name: str
    category: str
    begin: int
    args: dict[str, Any]
    depth: int
    parent: Span | None = field(repr=False)
    end: int = -1

    @property
    def ns(self) -> int:
        return self.end - self.begin


@dataclass
class Track:
    """A process: its name, its threads by name, and its counters by (counter, series) as (nanosecond, value)."""

    name: str = ""
    threads: dict[str, list[Span]] = field(default_factory=dict)
    counters: dict[tuple[str, str], list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))


def read(path: Path) -> dict[str, Any]:
    """The document; numbers that JSON does not have, and keys that are given twice, are errors."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs), f"a key twice in {pairs}"
        return dict(pairs)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    return json.loads(text, object_pairs_hook=once, parse_constant=refuse)


def nanoseconds(microseconds: float) -> int:
    """As Perfetto since v50 (rounds); the older ones truncate, which must not matter."""
    return round(microseconds * 1000.0)


def tracks_of(document: dict[str, Any], to_ns=nanoseconds) -> dict[int, Track]:
    """Process → its track, from events in the order of the file."""
    tracks: dict[int, Track] = {}
    names: dict[tuple[int, int], str] = {}
    spans: dict[tuple[int, int], list[Span]] = defaultdict(list)
    opened: dict[tuple[int, int], list[Span]] = defaultdict(list)
    last: dict[Any, int] = defaultdict(int)
    for event in document["traceEvents"]:
        kind = event["ph"]
        assert set(event) == REQUIRED[kind], event
        assert isinstance(event["pid"], int) and isinstance(event.get("tid", 0), int)
        track, thread = tracks.setdefault(event["pid"], Track()), (event["pid"], event.get("tid"))
        if kind == "M":
            key, expected = METADATA[event["name"]]
            assert set(event["args"]) == {key} and isinstance(event["args"][key], expected)
            if event["name"] == "process_name":
                assert not track.name
                track.name = event["args"]["name"]
            elif event["name"] == "thread_name":
                assert thread not in names
                names[thread] = event["args"]["name"]
            continue
        assert isinstance(event["ts"], float) and event["ts"] >= 0
        now = to_ns(event["ts"])
        lane = (event["pid"], event["name"]) if kind == "C" else thread
        assert now >= last[lane], f"time goes back: {event}"
        last[lane] = now
        if kind == "C":
            assert event["args"]
            for series, value in event["args"].items():
                assert isinstance(value, (int, float)) and value >= 0, event
                track.counters[event["name"], series].append((now, value))
        elif kind == "B":
            assert isinstance(event["name"], str) and isinstance(event["args"], dict)
            parent = opened[thread][-1] if opened[thread] else None
            span = Span(event["name"], event["cat"], now, event["args"], len(opened[thread]), parent)
            opened[thread].append(span)
            spans[thread].append(span)
        else:
            assert opened[thread], f"nothing to end: {event}"
            opened[thread].pop().end = now
    assert not any(opened.values()), "a slice is never ended"
    assert len({tid for _, tid in names}) == len(names), "two processes share the number of a thread"
    for (pid, tid), found in spans.items():
        tracks[pid].threads[names[pid, tid]] = found
    for track in tracks.values():
        assert track.name
        for found in track.threads.values():
            _check_nesting(found)
    return tracks


def _check_nesting(spans: list[Span]) -> None:
    """A slice lies in its parent; those side by side do not overlap."""
    ends: dict[int, int] = defaultdict(int)
    for span in spans:
        assert span.begin <= span.end
        assert span.parent is None or (span.parent.begin <= span.begin and span.end <= span.parent.end)
        assert span.begin >= ends[id(span.parent)], f"{span} overlaps the one before it"
        ends[id(span.parent)] = span.end


def integral(counter: list[tuple[int, float]], end: int) -> float:
    """Of a rate a second that holds until the next value."""
    stops = [now for now, _ in counter[1:]] + [end]
    return sum(value * (stop - now) for (now, value), stop in zip(counter, stops, strict=True)) * 1e-9
