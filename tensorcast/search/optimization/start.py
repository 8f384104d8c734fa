"""What starts the winner of a search on a serving engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.emit.launch import fields_of
from tensorcast.emit.line import start_line, start_lines
from tensorcast.errors import InputError
from tensorcast.request import Request
from tensorcast.search.optimization.optimum import Optimum

CONNECTOR = "nixl"


def start_of(optimum: Optimum, engine: str, connector: str = CONNECTOR) -> str:
    """The line, or for instances of two kinds both lines; comments say how many of each are started.

    Memory that must stay free is taken off the share that the server may use. Raises as `emit.line.start_line`;
    InputError where no configuration meets the limits.
    """
    if not optimum.feasible:
        raise InputError("nothing meets the limits, so there is nothing to start; give other limits")
    row, free = optimum.rows[0], 1 - optimum.limits.headroom
    launches = [_launch(asked, memory, free) for asked, memory in zip(row.asked, row.instances, strict=True)]
    if len(launches) == 1:
        copies = optimum.asked["devices"] // row.devices
        devices = "1 device" if copies * row.devices == 1 else f"{copies * row.devices} devices"
        return f"{start_line(engine, launches[0])}\n# started {_times(copies)}: {devices} in all"
    lines = start_lines(engine, *launches, connector)
    return "\n".join(
        f"{line}\n# started {_times(side['instances'])}" for line, side in zip(lines, row.instances, strict=True)
    )


def _launch(asked: Mapping[str, Any], memory: Mapping[str, Any], free: float) -> dict[str, Any]:
    """As `emit.launch.launch_of` reads it."""
    share = asked.get("gpu_memory_utilization", 1.0) * free
    request = Request.of(**{**asked, "gpu_memory_utilization": share})
    room = {"capacity_bytes": memory["capacity_bytes"] * free, "fits": True}
    return {**fields_of(request), "memory": {**memory, **room}}


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
