"""The report of `optimize` on a terminal: the best deployment first, then what it is compared with and assumes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from rich.text import Text

from tensorcast.options import KNOWN, flag
from tensorcast.report.terminal import printed
from tensorcast.report.terminal.lines import facts, heading, remarks, wrapped
from tensorcast.search.optimization.optimum import HALVES, Optimum
from tensorcast.units import bytes_, count, percent, rate, seconds

DEGREES = ("tp", "pp", "dp", "ep")
SAID = (*DEGREES, "batch", "input_len", "output_len")
"""Options that have a place of their own."""
SERVED = {
    "aggregated": "a steady state: every client asks again at once, all prompts and all outputs of one length",
    "static": "one batch at a time, all of its prompts first",
    "disaggregated": "no waiting: instances are never idle; KV caches are passed on after the whole prompt",
}
GOALS = {"throughput": "tokens per device", "cost": "cost per token", "energy": "energy per token"}
REASONS = 5
BOLD = ("plan", *HALVES, "would do")
Fact = tuple[str, list[str]]
"""A label and what is said of it."""


def print_optimum(found: Optimum, *, file: IO[str] | None = None) -> None:
    """Print the report."""
    printed(lambda width, _: optimum_lines(found, width), file or sys.stdout)


def optimum_lines(found: Optimum, width: int) -> list[Text]:
    """The report as lines of at most `width` characters."""
    content = found.to_dict()
    row = content["best"] or content["nearest"]
    title = heading_of(content, row)
    sections = [
        [*wrapped(title, width, "bold"), *_facts(answer(content, row), width)],
        _facts(verdict(content, row), width),
        _next_best(content, width),
        _plans(content["plans"], width),
        remarks("Assumptions", [*assumptions(content, row)], width),
        remarks("Warnings", content["warnings"], width, "yellow"),
    ]
    return [line for section in sections if section for line in (*section, Text(""))][:-1]


def heading_of(content: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    said = "Best of" if content["best"] else "Nothing meets the limits; nearest:"
    return f"{said} {content['model']} on {content['devices']} x {row['hw']}"


def _facts(told: Iterable[Fact], width: int) -> list[Text]:
    return [line for label, parts in told for line in facts(label, parts, width, "bold" if label in BOLD else "")]


def answer(content: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Fact]:
    """Plan, batch, and the figures beside their limits."""
    limits = content["limits"]
    yield "search", [f"--mode {content['mode']}", f"by {GOALS[content['objective']]}"]
    for name in [half for half in HALVES if half in row] or [None]:
        side = row if name is None else row[name]
        many = row["copies"] * side.get("instances", 1)
        what = "client" if content["mode"] == "aggregated" else "sequence"
        of_each = f"{_several(many, 'instance')} of {_several(side['instance_devices'], 'device')}"
        yield name or "plan", [plan_flags(side), of_each, f"{_several(side['batch'], what)} each"]
    if "ratio" in row:
        used = row["copies"] * row["instance_devices"]
        yield "ratio", [f"{row['ratio']} prefill to decode", f"{used} of {content['devices']} devices used"]
    yield "options", [*other_flags(row)]
    yield "TTFT", [seconds(row["ttft_s"]), _limit(limits["ttft_s"])]
    if "kv_transfer_s" in row:
        sent = f"{bytes_(row['kv_transfer_bytes'])} a prompt and rank over {row['kv_transfer_tier']}"
        yield "KV transfer", [f"{seconds(row['kv_transfer_s'])} of that", sent]
    yield "TPOT", [seconds(row["tpot_s"]), _limit(limits["tpot_s"])]
    yield "throughput", _throughput(row)
    yield "memory", _memory(row, limits["memory_headroom"])
    yield "a token", [*_cost(row)]


def _limit(value: float | None) -> str:
    return f"limit {seconds(value)}" if value is not None else ""


def _throughput(row: Mapping[str, Any]) -> list[str]:
    whole = rate(row["tokens_per_s"] * row["copies"], "tokens/s in all")
    return [rate(row["tokens_per_s_per_device"], "tokens/s a device"), whole]


def _memory(row: Mapping[str, Any], headroom: float) -> list[str]:
    total, capacity = row["total_bytes"], row["capacity_bytes"]
    left = f"{percent(headroom)} to stay free" if headroom else ""
    return [f"{bytes_(total)} of {bytes_(capacity)} a device, {percent(total / capacity)}", left]


def _cost(row: Mapping[str, Any]) -> Iterator[str]:
    if "cost_per_million_tokens" in row:
        yield f"{row['cost_per_million_tokens']:.3g} a million, at the price of a device-hour"
    if "joules_per_token" in row:
        yield f"{row['joules_per_token']:.3g} J, at the devices' full power"


def verdict(content: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[Fact]:
    """What binds and how far the next plan is; or what would have to give."""
    if not content["best"]:
        yield "would do", [" and ".join(content["what_would"])]
        return
    binding, lead = content["binding"], content["lead"]
    why = "keeps the slower side back" if "ratio" in row else "a larger batch would be worth more without it"
    yield "binds", [f"{binding}: {why}" if binding else "no limit: no other batch would be worth more"]
    yield "lead", [f"{percent(lead)} ahead of the next plan" if lead is not None else "no other plan meets the limits"]


def _next_best(content: Mapping[str, Any], width: int) -> list[Text]:
    """The plans behind the best, a line each."""
    rows = content["runners_up"]
    if not rows:
        return []
    titles = ("tok/s/dev", "TTFT", "TPOT", "memory", "binds")
    figures = [
        (
            rate(row["tokens_per_s_per_device"], "").strip(), seconds(row["ttft_s"]), seconds(row["tpot_s"]),
            percent(row["total_bytes"] / row["capacity_bytes"]), row["binding"] or "-",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(titles, *figures, strict=True)]
    names = names_of([content["best"], *rows])[1:]
    room = width - sum(widths) - 2 * len(widths)
    apart = max(map(len, names)) > room  # then a name has a line of its own
    first = 2 if apart else max(map(len, names))
    lines = [heading("Next best"), _cells(" " * first, titles, widths)]
    lines[1].stylize("dim")
    for name, cells in zip(names, figures, strict=True):
        lines += wrapped(name, width) if apart else []
        lines.append(_cells(" " * first if apart else name.ljust(first), cells, widths))
    return lines


def _cells(name: str, cells: Sequence[str], widths: Sequence[int]) -> Text:
    """A line of the table; the last cell is a text."""
    figures = [cell.rjust(size) for cell, size in zip(cells[:-1], widths[:-1], strict=True)]
    return Text("  ".join((name, *figures, cells[-1])))


def names_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells each row from the others."""
    varying = [name for name in ("hw", *KNOWN) if len({str(row.get(name)) for row in rows}) > 1]
    return [_named(row, [name for name in varying if name not in SAID]) for row in rows]


def _named(row: Mapping[str, Any], varying: Sequence[str]) -> str:
    """What tells a row from the others: the plan, and the options that are not the same for all."""
    if "ratio" in row:
        plan = " + ".join(f"{row[name]['instances']} x {_short(row[name])}" for name in HALVES)
    else:
        plan = _short(row)
    return " ".join((plan, *(f"{name.replace('_', '-')} {row.get(name)}" for name in varying)))


def _short(side: Mapping[str, Any]) -> str:
    """A plan and its batch: tp 2 dp 4 b 64."""
    return " ".join((*(f"{name} {size}" for name, size in degrees(side)), f"b {side['batch']}"))


def plan_flags(side: Mapping[str, Any]) -> str:
    """The degrees of a plan as flags.

    >>> plan_flags({"tp": 8, "pp": 1, "dp": 1, "ep": 8})
    '--tp 8 --ep 8'
    """
    return " ".join(f"--{name} {size}" for name, size in degrees(side))


def degrees(side: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Those of a plan that are not 1, tp always."""
    return [(name, side[name]) for name in DEGREES if side[name] > 1 or name == "tp"]


def other_flags(row: Mapping[str, Any]) -> Iterator[str]:
    """Options that a row has beside the plan, as flags; not what is usual.

    >>> [*other_flags({"tp": 2, "quant": "fp8", "dcp": 2, "sequence_parallel": False, "kernel": ("attention=fa3",)})]
    ['--dcp 2', '--quant fp8', '--kernel attention=fa3']
    """
    for name in (name for name in KNOWN if name in row and name not in SAID):
        value = row[name]
        if name == "reuse":
            yield "--no-reuse"
        elif value is True:
            yield flag(name)
        elif value not in (None, False, "auto", ()):
            pairs = [f"{key}={each}" for key, each in value.items()] if isinstance(value, Mapping) else value
            yield " ".join((flag(name), *(pairs if isinstance(pairs, (list, tuple)) else (str(pairs),))))


def _plans(plans: Mapping[str, Any], width: int) -> list[Text]:
    commonest = sorted(plans["refused"].items(), key=lambda item: -item[1])[:REASONS]
    told = remarks("Refused", [f"{count(many)} x {reason}" for reason, many in commonest], width, "yellow")
    return facts("plans", looked_at(plans), width) + told


def looked_at(plans: Mapping[str, Any]) -> list[str]:
    """How many plans there are, and what became of them."""
    return [
        f"{count(plans['considered'])} considered", f"{count(plans['priced'])} priced",
        f"{count(plans['ruled_out'])} ruled out by bounds", f"{count(sum(plans['refused'].values()))} refused",
    ]  # fmt: skip


def assumptions(content: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    yield f"requests of {count(row['input_len'])} tokens in and {count(row['output_len'])} out"
    yield SERVED[content["mode"]]
    yield "precision: the checkpoint's own" if row["quant"] == "auto" else f"precision: --quant {row['quant']}"
    if row.get("engine", "bare") == "bare":
        yield "the engine's own time is left out (--engine counts it)"


def _several(number: int, what: str) -> str:
    return f"{count(number)} {what}{'' if number == 1 else 's'}"
