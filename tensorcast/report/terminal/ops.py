"""One phase: where its time goes, and its most expensive operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from tensorcast.report.terminal.lines import crop_left, crop_right, facts, heading
from tensorcast.units import NOT_A_NUMBER, bytes_, flop, percent, seconds

SHORT_BOUND = {"communication": "comm"}
# Everything but op and module has a fixed width; those two share what is left.
FIGURES = (("count", 5), ("time", 8), ("share", 7), ("bound", 9), ("FLOP", 7), ("bytes", 10))


def phase_lines(name: str, phase: Mapping[str, Any], width: int, top: int) -> list[Text]:
    """The section of one phase: step time, bounds, utilisation and the `top` operators by time."""
    ops = phase["ops"]
    device_time, hidden = sum(op["time_s"] for op in ops), phase.get("overlapped_s")
    title = heading(f"{name.replace('_', ' ').capitalize()}  ")
    title.append(seconds(phase["step_time_s"]) + (" per step" if name == "decode" else ""))
    lines = [title]
    lines += facts(
        "  time",
        [
            f"device {seconds(device_time - (hidden or 0.0))}",
            *([f"hidden by overlap {seconds(hidden)}"] if hidden is not None else []),
            f"host {seconds(phase['host_time_s'])}",
            f"MFU {percent(phase['mfu'])}",
            f"MBU {percent(phase['mbu'])}",
        ],
        width,
    )
    bounds = phase["time_by_bound_s"]
    whole = sum(bounds.values())
    by_bound = sorted(((value, bound) for bound, value in bounds.items() if value > 0), reverse=True)
    lines += facts("  bound by", [f"{b} {seconds(v)} ({percent(v / whole)})" for v, b in by_bound], width)
    lines += facts(
        "  work",
        [
            f"matrix {flop(phase['matrix_flops'])}",
            f"vector {flop(phase['vector_flops'])}",
            f"read {bytes_(phase['read_bytes'])}",
            f"written {bytes_(phase['write_bytes'])}",
            f"sent {bytes_(phase['comm_bytes'])}",
        ],
        width,
    )
    if top and ops:
        lines += op_table(ops, device_time, width, top)
    return lines


def op_table(ops: Sequence[Mapping[str, Any]], device_time: float, width: int, top: int) -> list[Text]:
    """The `top` operators by time, shares of `device_time`; bytes are memory traffic, or what a collective sends."""
    room = width - 2 - sum(size for _, size in FIGURES)
    op_width = max(14, room * 2 // 5)
    module_width = room - op_width
    header = f"  {'op':<{op_width}}{'module':<{module_width}}"
    lines = [Text(header + "".join(f"{name:>{size}}" for name, size in FIGURES), style="dim")]
    ranked = sorted(ops, key=lambda op: -op["time_s"])
    for op in ranked[:top]:
        cells = (f"{op['count']:,}", *_figures(op, device_time))
        line = f"  {crop_right(op['op'], op_width - 1):<{op_width}}"
        line += f"{short_module(op['module'], module_width):<{module_width}}"
        lines.append(Text(line + "".join(f"{cell:>{size}}" for cell, (_, size) in zip(cells, FIGURES, strict=True))))
    rest = ranked[top:]
    if rest:
        time = sum(op["time_s"] for op in rest)
        lines.append(Text(f"  {len(rest):,} more: {seconds(time)}, {_share(time, device_time)}", style="dim"))
    return lines


def short_module(path: str, width: int) -> str:
    """A module path of at most `width` characters: inside a stack of layers its place in the layer tells it apart.

    >>> short_module("model.layers.*.mlp.experts", 11), short_module("model.layers.*.mlp.experts", 9)
    ('mlp.experts', '….experts')
    """
    return path if len(path) <= width else crop_left(path.rpartition(".*.")[2], width)


def _figures(op: Mapping[str, Any], device_time: float) -> tuple[str, ...]:
    """Time, share, bound, FLOP and bytes of one operator, as short as the columns."""
    work = op["matrix_flops"] + op["vector_flops"]
    traffic = op["comm_bytes"] or op["read_bytes"] + op["write_bytes"]
    bound = SHORT_BOUND.get(op["bound"], op["bound"])
    return (
        seconds(op["time_s"]),
        _share(op["time_s"], device_time),
        bound,
        flop(work).removesuffix("FLOP").strip() if work else "",
        bytes_(traffic) if traffic else "",
    )


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if whole else NOT_A_NUMBER
