"""What `tensorcast accuracy` shows: the answer per family, then each machine's kernels; 80 columns of ASCII."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO

from rich.console import Console
from rich.text import Text

from tensorcast.calibration.report import COMPOSED, Accuracy, Scored, Served
from tensorcast.calibration.score import Score
from tensorcast.report.lines import bullet, heading

WIDTH = 80
WORDS = {"calibrated": "own", COMPOSED: "composed"}
LEGEND = (
    "Errors in percent of the measured time: median, mean and 90th percentile of their size; bias > 0: predicted "
    "too slow. 'roof' is the median error of max(FLOP/peak, bytes/bandwidth). Last column: coefficients fitted to "
    "this kernel here (own), to another kernel or format here (near), moved from a relative (inherited), "
    "the set for all machines (universal), a guess (assumed), or a sum of others (composed)."
)


def print_accuracy(found: Accuracy, *, file: IO[str] | None = None) -> None:
    """Print the report: no colour where nobody watches."""
    print_lines(accuracy_lines(found), file=file)


def print_lines(lines: Iterable[Text], *, file: IO[str] | None = None) -> None:
    """Styled lines on a stream that may be a terminal, a pipe or closed."""
    stream = file or sys.stdout
    if stream is None:
        return
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        for line in lines:
            line.rstrip()
            console.print(line, soft_wrap=True)
    # Written by us, whole: rich would end the process itself when the reader has left.
    stream.write(capture.get())


def accuracy_lines(found: Accuracy) -> list[Text]:
    """The whole report."""
    rows = sum(len(g.ratios) for g in found.groups)
    which = "rows that no fit has seen" if found.unseen else "rows"
    lines = [heading(f"{found.folder}: {rows:,} {which}, {len(found.groups)} kernels on machines"), Text("")]
    if found.groups:
        lines += [_head("family", ""), *_families(found)]
    for name in dict.fromkeys((g.family, g.device) for g in found.groups):
        mine = [g for g in found.groups if (g.family, g.device) == name]
        lines += [Text(""), _head(" on ".join(name), "figures"), *_section(mine)]
    if found.served:
        lines += [Text(""), *_served(found.served)]
    if found.notes:
        lines += [Text(""), heading("Notes")]
        lines += [line for note in found.notes for line in bullet(note, WIDTH, "yellow")]
    return [*lines, Text(""), *_legend()]


def _head(title: str, last: str) -> Text:
    line = heading(f"{title:<31}")
    if len(title) > 31:
        line.append("\n" + " " * 31)
    return line.append(
        f"{'rows':>7}{'median':>7}{'mean':>6}{'p90':>6}{'bias':>7}{'roof':>6} {last}", style="not bold dim"
    )


def _families(found: Accuracy) -> list[Text]:
    return [_figures(f"  {name:<29}", score, plain) for name, (score, plain) in found.families().items()]


def _section(groups: list[Scored]) -> list[Text]:
    """One machine's kernels of one family."""
    whats = [" ".join(part for part in (g.op, g.format) if part and part != "any") or "any" for g in groups]
    wide = min(max(9, *map(len, whats)), 22)
    return [
        _group(g, f"  {_crop(what, wide):<{wide}} {_crop(g.kernel, 27 - wide)}")
        for what, g in zip(whats, groups, strict=True)
    ]


def _group(g: Scored, name: str) -> Text:
    plain = Score.of_ratios(g.roofline) if g.roofline is not None else None
    word = WORDS.get(g.kind, g.kind) if g.exact or g.kind != "calibrated" else "near"
    return _figures(f"{name:<31}", g.score, plain).append(f" {word}", style="dim")


def _figures(name: str, score: Score, plain: Score | None) -> Text:
    line = Text(name)
    line.append(f"{score.rows:>7,}")
    line.append(f"{_figure(score.median):>7}", style=_colour(score.median))
    line.append(f"{_figure(score.mean):>6}{_figure(score.p90):>6}{score.bias:>+7.1f}")
    return line.append(f"{_figure(plain.median) if plain else '-':>6}", style="dim")


def _served(served: Iterable[Served]) -> list[Text]:
    title = heading(f"{'served models':<31}")
    title.append(f"{'rows':>7}{'done':>7}{'TPOT':>10}{'p90':>6}{'TTFT':>10}{'p90':>6}", style="not bold dim")
    lines = [title]
    for s in served:
        line = Text(f"{_crop(f'  {s.device} {s.mode}', 31):<31}{s.asked:>7,}{len(s.tpot):>7,}")
        for ratios in (s.tpot, s.ttft):
            score = Score.of_ratios(ratios) if len(ratios) else None
            median, p90 = (_figure(score.median), _figure(score.p90)) if score else ("-", "-")
            line.append(f"{median:>10}", style=_colour(score.median) if score else "").append(f"{p90:>6}")
        lines.append(line)
    return lines


def _legend() -> list[Text]:
    import textwrap

    return [Text(line, style="dim") for line in textwrap.wrap(LEGEND, WIDTH)]


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
