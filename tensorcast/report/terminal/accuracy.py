"""What `tensorcast accuracy` shows: the answer per family, then each machine's kernels; 80 columns of ASCII."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.text import Text

from tensorcast.calibration.report import COMPOSED, Accuracy, Scored, Served
from tensorcast.calibration.score import Score
from tensorcast.report.terminal import printed
from tensorcast.report.terminal.lines import bullet, heading, wrapped

WIDTH, FIGURES = 80, 49
"""Of the report; of a line without its name."""
WORDS = {"calibrated": "own", COMPOSED: "composed"}
LEGEND = (
    "Errors in percent of the measured time: median, mean and 90th percentile of their size; bias > 0: predicted "
    "too slow. 'roof' is the median error of max(FLOP/peak, bytes/bandwidth). Last column: coefficients fitted to "
    "this kernel here (own), to another kernel or format here (near), moved from a relative (inherited), "
    "the set for all machines (universal), a guess (assumed), or a sum of others (composed)."
)


def print_accuracy(found: Accuracy, *, file: IO[str] | None = None) -> None:
    """Print the report: no colour where nobody watches."""
    printed(lambda width, _: accuracy_lines(found, width), file)


def accuracy_lines(found: Accuracy, width: int = WIDTH) -> list[Text]:
    """The whole report as lines of at most `width` characters; no more than `WIDTH` are used."""
    width = min(width, WIDTH)
    name = width - FIGURES
    rows = sum(len(g.ratios) for g in found.groups)
    which = "rows that no fit has seen" if found.unseen else "rows"
    lines = wrapped(f"{found.folder}: {rows:,} {which}, {len(found.groups)} kernels on machines", width, "bold")
    lines.append(Text(""))
    if found.groups:
        lines += [_head("family", "", name), *_families(found, name)]
    for what in dict.fromkeys((g.family, g.device) for g in found.groups):
        mine = [g for g in found.groups if (g.family, g.device) == what]
        lines += [Text(""), _head(" on ".join(what), "figures", name), *_section(mine, name)]
    if found.served:
        lines += [Text(""), *_served(found.served, name)]
    if found.notes:
        lines += [Text(""), heading("Notes")]
        lines += [line for note in found.notes for line in bullet(note, width, "yellow")]
    return [*lines, Text(""), *_legend(width)]


def _head(title: str, last: str, name: int) -> Text:
    line = heading(f"{title:<{name}}")
    if len(title) > name:
        line.append("\n" + " " * name)
    return line.append(
        f"{'rows':>7}{'median':>7}{'mean':>6}{'p90':>6}{'bias':>7}{'roof':>6} {last}", style="not bold dim"
    )


def _families(found: Accuracy, name: int) -> list[Text]:
    return [_figures(f"  {family:<{name - 2}}", *scores) for family, scores in found.families().items()]


def _section(groups: list[Scored], name: int) -> list[Text]:
    """One machine's kernels of one family."""
    whats = [" ".join(part for part in (g.op, g.format) if part and part != "any") or "any" for g in groups]
    wide = min(max(9, *map(len, whats)), 22)
    return [
        _group(g, f"{f'  {_crop(what, wide):<{wide}} {_crop(g.kernel, name - 4 - wide)}':<{name}}")
        for what, g in zip(whats, groups, strict=True)
    ]


def _group(g: Scored, name: str) -> Text:
    plain = Score.of_ratios(g.roofline) if g.roofline is not None else None
    word = WORDS.get(g.kind, g.kind) if g.exact or g.kind != "calibrated" else "near"
    return _figures(name, g.score, plain).append(f" {word}", style="dim")


def _figures(name: str, score: Score, plain: Score | None) -> Text:
    line = Text(name)
    line.append(f"{score.rows:>7,}")
    line.append(f"{_figure(score.median):>7}", style=_colour(score.median))
    line.append(f"{_figure(score.mean):>6}{_figure(score.p90):>6}{score.bias:>+7.1f}")
    return line.append(f"{_figure(plain.median) if plain else '-':>6}", style="dim")


def _served(served: Iterable[Served], name: int) -> list[Text]:
    title = heading(f"{'served models':<{name}}")
    title.append(f"{'rows':>7}{'done':>7}{'TPOT':>10}{'p90':>6}{'TTFT':>10}{'p90':>6}", style="not bold dim")
    lines = [title]
    for s in served:
        line = Text(f"{_crop(f'  {s.device} {s.mode}', name):<{name}}{s.asked:>7,}{len(s.tpot):>7,}")
        for ratios in (s.tpot, s.ttft):
            score = Score.of_ratios(ratios) if len(ratios) else None
            median, p90 = (_figure(score.median), _figure(score.p90)) if score else ("-", "-")
            line.append(f"{median:>10}", style=_colour(score.median) if score else "").append(f"{p90:>6}")
        lines.append(line)
    return lines


def _legend(width: int) -> list[Text]:
    import textwrap

    return [Text(line, style="dim") for line in textwrap.wrap(LEGEND, width)]


def _figure(percent: float) -> str:
    return f"{percent:.1f}" if percent < 999.95 else ">999"


def _colour(median: float) -> str:
    return "green" if median < 10 else "" if median < 20 else "yellow"


def _crop(text: str, width: int) -> str:
    """`text` in `width` characters: where it is longer without its middle, as kernels differ at either end."""
    if len(text) <= width:
        return text
    end = max(width - 1, 0) // 2
    return text[: max(width - 1, 0) - end] + "~" + text[len(text) - end :]
