"""The memory of one device: a bar, its parts, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from tensorcast.report.terminal.lines import bullet, heading
from tensorcast.units import bytes_, count, percent

# key in the estimate, name for people, mark in the bar, the same in ASCII, style
PARTS = (
    ("weights_bytes", "weights", "█", "#", "blue"),
    ("gradients_bytes", "gradients", "▤", "g", "green"),
    ("optimizer_bytes", "optimizer", "▥", "o", "bright_black"),
    ("kv_cache_bytes", "KV cache", "▓", "=", "cyan"),
    ("activation_peak_bytes", "activations", "▒", "+", "magenta"),
    ("workspace_bytes", "workspace", "░", "-", "yellow"),
    ("reserved_bytes", "reserved", "▪", "x", "red"),
)


def memory_lines(memory: Mapping[str, Any], width: int, *, ascii_only: bool = False) -> list[Text]:
    """The memory section of a report."""
    total, capacity = memory["total_bytes"], memory["capacity_bytes"]
    verdict, style = ("FITS", "bold green") if memory["fits"] else ("DOES NOT FIT", "bold red")
    title = heading("Memory per device  ")
    title.append(f"{bytes_(total)} of {bytes_(capacity)}, {percent(total / capacity)}  ")
    title.append(verdict, style=style)
    lines = [title, bar(memory, width, ascii_only=ascii_only)]
    for key, name, mark, plain, colour in _parts(memory):
        line = Text("  ").append(plain if ascii_only else mark, style=colour)
        lines.append(line.append(f" {name:<12}{bytes_(memory[key]):>10}  {percent(memory[key] / capacity):>7}"))
    left = capacity - total
    lines.append(Text(f"    {'free' if left >= 0 else 'missing':<12}{bytes_(abs(left)):>10}"))
    limits = [
        f"{name} {count(memory[key])}"
        for key, name in (("max_batch", "largest batch"), ("max_context", "longest context"))
        if memory.get(key)
    ]
    if limits:
        lines.append(Text(f"  that fits: {' · '.join(limits)}"))
    suggestions = memory.get("suggestions", [])
    if suggestions:
        lines.append(Text("  plans that fit:"))
        lines += [line for plan in suggestions for line in bullet(plan, width)]
    elif not memory["fits"]:
        how = "more --tp or --pp" if "optimizer_bytes" in memory else "a narrower --quant"
        lines.append(Text(f"  no plan with more of these devices fits; try a larger device or {how}"))
    return lines


def _parts(memory: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """The parts that this memory has: training has no KV cache, only it has gradients and an optimizer."""
    other = "kv_cache_bytes" if "optimizer_bytes" in memory else ""
    return [part for part in PARTS if part[0] in memory and part[0] != other]


def bar(memory: Mapping[str, Any], width: int, *, ascii_only: bool = False) -> Text:
    """One cell per share of the larger of total and capacity; a `|` where the capacity ends."""
    cells = width - 4
    capacity = memory["capacity_bytes"]
    scale = max(memory["total_bytes"], capacity)
    line, drawn, used = Text("  "), 0, 0.0
    limit = round(capacity / scale * cells)
    marks: list[tuple[str, str]] = []
    for key, _, mark, plain, colour in _parts(memory):
        used += memory[key]
        # Rounding the running sum keeps the bar's length right whatever the parts are.
        end = min(cells, round(used / scale * cells))
        marks += [(plain if ascii_only else mark, colour)] * (end - drawn)
        drawn = max(drawn, end)
    empty = "." if ascii_only else "·"
    marks += [(empty, "dim")] * (cells - len(marks))
    for position, (mark, colour) in enumerate(marks):
        if position == limit:
            line.append("|", style="bold red")
        line.append(mark, style=colour)
    if limit >= len(marks):
        line.append("|", style="bold")
    return line
