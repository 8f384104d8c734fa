"""A report as Markdown: the answer first, tables with figures as people read them, the command at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from tensorcast.report.facts import facts_of
from tensorcast.report.tables import Row, Table, tables
from tensorcast.report.tables.columns import NUMBER, WHOLE, Column
from tensorcast.units import bytes_, count, percent

SPECIAL = re.compile(r"[\\`*<>|\[\]~&$#]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that begin markup; an underscore only where it is not inside a word."""
RUNS = Column("runs", "count", "alike, one after the other")
LISTED = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[-+](?:\s|$))|(?=(?:-+|=+)$))")
"""Where a line would begin a list or a rule."""


def to_markdown(estimate: Mapping[str, Any], top: int = 10) -> str:
    """The report of `Estimate.to_dict()`, with the `top` operators of each phase by time."""
    made = tables(estimate)
    return document(
        _head(estimate),
        section(made.get("metrics")),
        _memory(estimate["memory"], made["memory"]),
        section(made.get("phases")),
        *(_operators(name, made["operators"], top) for name in estimate["phases"] if top),
        section(made.get("communication")),
        *_timeline(made, top),
        remarks("Not costed", map(str, estimate["uncosted_ops"])),
        remarks("Warnings", estimate["warnings"]),
        *(section(made.get(name)) for name in ("steps", "kernels", "assumptions")),
        commands(estimate.get("command")),
    )


def document(*parts: Sequence[str]) -> str:
    """Sections with a line between them; what is empty is left out."""
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def escaped(text: Any) -> str:
    """Text that shows as it is, whatever is in it, on one line.

    >>> escaped("<script>|`a*b`_c_ d_e"), escaped("- 1"), escaped("2. x")
    ('\\\\<script\\\\>\\\\|\\\\`a\\\\*b\\\\`\\\\_c\\\\_ d_e', '\\\\- 1', '2\\\\. x')
    """
    one_line = " ".join(str(text).split())
    return LISTED.sub(r"\1\\", SPECIAL.sub(lambda found: f"\\{found[0]}", one_line), count=1)


def grid(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """A table; `right`: of each column, whether it is aligned to the right."""
    rule = ["--:" if each else "---" for each in right]
    return [_line(map(escaped, titles)), _line(rule), *(_line(map(escaped, row)) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(made: Table) -> list[str]:
    """The columns that have a value, each figure with its unit."""
    rows = ([made.text(row, each) for each in made.filled] for row in made.rows)
    return grid([each.name for each in made.filled], rows, [each.type in (WHOLE, NUMBER) for each in made.filled])


def section(made: Table | None, title: str = "") -> list[str]:
    return [] if made is None else [f"## {escaped(title or made.title)}", "", *table(made)]


def remarks(title: str, texts: Iterable[str]) -> list[str]:
    """A titled list; nothing when it is empty."""
    lines = [f"- {escaped(text)}" for text in texts if text]
    return [f"## {title}", "", *lines] if lines else []


def commands(command: str | None, start: str | None = None) -> list[str]:
    """How to get this report again, where a command line can say it; and how to start what it is about."""
    lines = []
    for title, line in (("Command", command), ("Start", start)):
        if line is not None:
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
            lines += [*([""] if lines else []), f"## {title}", "", fence, line, fence]
    return lines


def heading(title: str, facts: Mapping[str, Sequence[str]]) -> list[str]:
    """A title, and a line for each label that has parts."""
    lines = [f"- {name}: {escaped(' · '.join(filter(None, parts)))}" for name, parts in facts.items() if any(parts)]
    return [f"# {escaped(title)}", *([""] if lines else []), *lines]


def _head(estimate: Mapping[str, Any]) -> list[str]:
    """What was simulated: model, machine, plan, precision, work."""
    hardware = estimate["hardware"]
    asked = hardware.get("asked")
    facts = facts_of(estimate) | ({"asked for as": [asked]} if asked and asked != hardware["name"] else {})
    title = f"{estimate['model']['name']} on {hardware['devices']} x {hardware['name']}"
    return heading(title, facts)


def _memory(memory: Mapping[str, Any], made: Table) -> list[str]:
    total, capacity = memory["total_bytes"], memory["capacity_bytes"]
    verdict = "fits" if memory["fits"] else "does not fit"
    said = f"{bytes_(total)} of {bytes_(capacity)}, {percent(total / capacity)}: {verdict}"
    plans = [f"- {escaped(f'would fit: {plan}')}" for plan in memory.get("suggestions", ())]
    return [f"## {made.title}", "", escaped(said), "", *plans, *([""] if plans else []), *table(made)]


def _timeline(made: Mapping[str, Table], top: int) -> Iterator[list[str]]:
    """Passes, the layers of one, and the calls of a layer of each kind."""
    if "timeline" not in made:
        return
    yield section(_in_stretches(made["passes"], lambda row: (row["phase"], row["batch"] or row["name"])))
    yield section(_in_stretches(made["timeline"], itemgetter("phase", "kind")))
    layers = made["layers"]
    for (phase, _), group in groupby(layers.rows if top else (), key=itemgetter("phase", "kind")):
        calls = list(group)
        longest = sorted(calls, key=itemgetter("time_s"), reverse=True)[:top]
        title = f"{calls[0]['run']} of {phase}"
        if len(calls) > top:
            title += f", the longest {count(top)} of {count(len(calls))} calls"
        columns = tuple(each for each in layers.columns if each.name not in ("phase", "kind", "run"))
        yield section(replace(layers, title=title, columns=columns, rows=sorted(longest, key=itemgetter("start_s"))))


def _in_stretches(made: Table, alike: Callable[[Row], Any]) -> Table:
    """A timeline in which those that follow each other and are alike are one row."""
    rows = []
    for _, group in groupby(made.rows, key=alike):
        first, *others = group
        last = others[-1] if others else first
        name = f"{first['name']} … {last['name']}" if others else first["name"]
        rows.append({**first, "name": name, "runs": 1 + len(others), "end_s": last["end_s"]})
    return replace(made, columns=(*made.columns[:2], RUNS, *made.columns[2:]), rows=rows)


def _operators(phase: str, made: Table, top: int) -> list[str]:
    """The operators of one phase that take longest."""
    rows = sorted((row for row in made.rows if row["phase"] == phase), key=lambda row: -row["time_s"])
    columns = tuple(each for each in made.columns if each.name != "phase")
    share = sum(row["share"] or 0.0 for row in rows[:top])
    title = f"Operators of {phase}"
    if len(rows) > top:
        title += f", {count(top)} of {count(len(rows))}: {percent(share)} of their time"
    return section(Table(made.name, title, columns, rows[:top]))
