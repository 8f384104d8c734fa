"""Operators that do what several others do, in turn or with the links at work beside the processor.

In turn, every call is a launch of its own: the times of all calls add up. Beside each other, in `pieces` equal pieces:

    T = max(device, links) + min(device, links) / pieces

with `device` and `links` the seconds of the two sides by themselves: the first piece has to be computed before it can
be sent, or received before it can be used, and all others hide behind the longer side. Never faster than either side
alone, never slower than both in turn. Seconds. Valid for any sizes. Source: own model, not measured.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorcast.cost.time import Time
from tensorcast.ops.base import Part, Parts

_RESOURCES = ("overhead", "matrix", "vector", "memory", "communication")


def composed_time(parts: Parts, time_of: Callable[[Part], Time]) -> Time:
    """Seconds of a composed operator; `time_of` gives those of one call of a part."""
    device = in_turn(parts.device, time_of)
    if not parts.links:
        return device
    links = in_turn(parts.links, time_of)
    seconds = overlapped(device.seconds, links.seconds, parts.pieces)
    return Time(device.overhead, device.matrix, device.vector, device.memory, links.seconds, seconds - device.overhead)


def overlapped(device, links, pieces) -> np.ndarray:
    """Seconds of two sides that work beside each other on `pieces` pieces."""
    return np.maximum(device, links) + np.minimum(device, links) / pieces


def in_turn(parts: tuple[Part, ...], time_of: Callable[[Part], Time]) -> Time:
    """Calls that follow each other."""
    times = [(part.count, time_of(part)) for part in parts]
    total = {name: sum(count * np.asarray(getattr(time, name)) for count, time in times) for name in _RESOURCES}
    body = sum(count * (time.seconds - time.overhead) for count, time in times)
    return Time(**total, body=body, launches=sum(count * time.launches for count, time in times))
