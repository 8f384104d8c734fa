"""Write the page of accuracies: `python benchmarks/accuracy.py DIR … --out docs/accuracy.md`.

Every DIR holds measured tables, <family>.parquet. The page shows, for every kernel of every machine, the error on
shapes that no fit saw beside the plain roofline's; collectives' curves are fitted again to tell theirs (a minute).
`--left-out FAMILY` adds machines left out of a joint fit of that family's bf16 kernels (minutes each).
The last line on stderr is the summary for the README.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import tensorcast
from tensorcast.calibration.curves import Curve, calibrate_collectives
from tensorcast.calibration.data import COLLECTIVE, by_device, read_table, tables_in
from tensorcast.calibration.report import COMPOSED, Accuracy, Scored, Served, score_folder
from tensorcast.calibration.score import Score
from tensorcast.calibration.write import save

FEW = 10  # held-out rows below which a median says little: such kernels are counted, not listed
OFF = 20.0  # percent of median error from which on a kernel is listed as not agreeing
TITLES = {
    "gemm": "Matrix products", "bmm": "Batched matrix products", "attention_prefill": "Attention, prefill",
    "attention_decode": "Attention, decode", "attention_encoder": "Attention, encoders",
    "mla_prefill": "Latent attention, prefill", "mla_decode": "Latent attention, decode",
    "mla_module_prefill": "Latent attention modules, prefill", "mla_module_decode": "Latent attention modules, decode",
    "moe": "Routed experts", "moe_all_to_all_deepep": "Dispatch and combine of routed experts",
    "quantize": "Quantisation", "linear_attention": "Scans and convolutions",
    "memory": "Elementwise operators and norms",
}  # fmt: skip
KINDS = {
    "matrix products": ("gemm", "bmm"),
    "attention": ("attention_prefill", "attention_decode", "attention_encoder", "mla_prefill", "mla_decode"),
    "routed experts": ("moe",),
    "scans": ("linear_attention",),
}  # for the summary
INTRO = """# How accurate the cost model is

{summary}

Figures are errors of predicted against measured kernel times, in percent of the measured time, on shapes that no fit
saw (a fixed fifth of all shapes). *Median* and *90 %* are of the error's size; *bias* is the mean of log(predicted /
measured), above zero where predictions are too slow. *Roofline* is the median error of max(FLOP / peak, bytes /
bandwidth), which is what data sheets alone can say. `tensorcast accuracy DIR` gives the same figures for any folder of
measured tables, `tensorcast measure` makes such a folder, `tensorcast calibrate` fits a machine to it.

*Figures* says what priced the rows: **own** coefficients of this kernel on this machine; **near**: another kernel or
format of this machine; **inherited** from a related machine; **universal**: one set for all machines; **composed**: the
sum of several kernels.

The measurements are third-party tables of kernels (aiconfigurator 095f58a, Apache-2.0, and tables of Ascend runs);
they are not part of this project. Rows known to be wrong are left out. Written by `benchmarks/accuracy.py` on {day},
version {version}.
"""
TRUST = """## Where not to trust it

- **The same kernel measured twice differs.** Two versions of one library are 1 to 4 % apart in the median and 5 to
  15 % at the 90th percentile for products and attention; routed experts with uneven routing differ by more than 90 % at
  the 90th percentile, because the library's own tuner picks other kernels. No figure below those levels means anything.
- **Other kernels than those listed.** Between two libraries the same operator differs by 1.3 to 1.6 times, more than
  between two models of accelerator. A row priced *near* or *universal* carries that risk.
- **Latent attention modules.** They are sums of kernels whose own errors are on unseen shapes, but the few launch
  times between those kernels were set on all rows of the module tables: their errors are not held out.
- **Other machines.** A machine without measurements is priced with the universal set, moved by its data sheet: good
  within a generation, 10 to 35 % off across generations. `tensorcast measure` and `calibrate` mend that with a hundred
  shapes a family.
- **Warm caches.** The measured loops find part of their operands in the last-level cache, which the scores above
  account for. A simulation assumes cold operands; a small kernel right behind its producer is faster than that.
- **Power.** Large products run 17 to 35 % below the peak because the chip lowers its clock. The fits contain that for
  random data at the cooling of the machines measured; other limits of power shift it.
- **Chunked prefill and cached prefixes.** The attention tables have no rows with earlier tokens; such steps rest on the
  formula alone.
- **Expert parallelism across nodes**, and collectives beyond one node, rest on link specifications: the tables end at
  eight devices.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--left-out", action="append", metavar="FAMILY", help="fit jointly, one machine left out")
    parser.add_argument("--out", type=Path, help="file to write  [default: standard output]")
    asked = parser.parse_args()
    found = [score_folder(folder, unseen=True) for folder in asked.folder]
    fitted = [row for folder in asked.folder for row in cross_validated(folder)]
    left_out = [line for folder in asked.folder for line in machines_left_out(folder, asked.left_out or ())]
    groups = [g for one in found for g in one.groups if g.family != COLLECTIVE]
    told = summary(groups, fitted)
    text = "\n".join(page(found, groups, fitted, left_out, told)) + "\n"
    if asked.out is None:
        sys.stdout.write(text)
    else:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        save(asked.out, text)
    print(told, file=sys.stderr)


def page(found: Sequence[Accuracy], groups, fitted, left_out: Sequence[str], told: str) -> Iterable[str]:
    yield INTRO.format(summary=told, day=date.today(), version=tensorcast.__version__)
    yield from families(groups, fitted)
    yield from machines(groups)
    yield from collectives(fitted)
    yield from served([s for one in found for s in one.served])
    if left_out:
        yield from ("## Machines left out of the fit", "")
        yield "One set of coefficients fitted to the other machines, each with its usual kernel, and scored on the one"
        yield "left out (median / 90 %)."
        yield from (
            "",
            "| family | format | errors on the machine left out |",
            "|---|---|---|",
            *left_out,
            "",
        )
    notes = [note for one in found for note in one.notes if not note.startswith(f"{COLLECTIVE}: its curves")]
    yield from disagreements(groups, notes)
    yield TRUST.rstrip()


def cross_validated(folder: str | Path) -> Iterable[tuple[str, Curve]]:
    """(machine, curve) of every collective: curves are fitted to all rows, so their scores are of fifths left out."""
    for _, path in [found for found in tables_in(folder) if found[0] == COLLECTIVE]:
        for hw, rows in by_device(read_table(COLLECTIVE, path)[1]):
            yield from ((hw.name, curve) for curve in calibrate_collectives(rows, hw))


def weighted(fitted: Sequence[tuple[str, Curve]], name: str) -> float:
    """Mean of a score over the curves, each by its rows."""
    return sum(c.rows * getattr(c.after, name) for _, c in fitted) / sum(c.rows for _, c in fitted)


def families(groups: Sequence[Scored], fitted: Sequence[tuple[str, Curve]]) -> Iterable[str]:
    yield from ("## By family", "", "| | rows | median | 90 % | bias | roofline |", "|---|--:|--:|--:|--:|--:|")
    for name in dict.fromkeys(g.family for g in groups):
        mine = [g for g in groups if g.family == name]
        yield f"| {TITLES.get(name, name)} | {figures(mine)} |"
    if fitted:
        median, p90, bias = (weighted(fitted, name) for name in ("median", "p90", "bias"))
        rows = sum(c.rows for _, c in fitted)
        yield f"| Collectives (mean of the curves) | {rows:,} | {median:.1f} | {p90:.0f} | {bias:+.0f} | |"
    yield ""


def collectives(fitted: Sequence[tuple[str, Curve]]) -> Iterable[str]:
    if not fitted:
        return
    yield from ("## Collectives", "")
    yield "A curve has a few dozen rows and is fitted to all of them; these errors are of fifths of the rows, each"
    yield "predicted by a fit to the other four. Behind the slash: the engine whose own kernel it is."
    yield from ("", "| machine | operation | rows | median | 90 % | bias |", "|---|---|--:|--:|--:|--:|")
    for device, c in fitted:
        yield f"| {device} | {c.key} | {c.rows} | {c.after.median:.1f} | {c.after.p90:.0f} | {c.after.bias:+.0f} |"
    yield ""


def machines(groups: Sequence[Scored]) -> Iterable[str]:
    for name in dict.fromkeys(g.family for g in groups):
        mine = [g for g in groups if g.family == name]
        listed = [g for g in mine if len(g.ratios) >= FEW]
        yield from (f"## {TITLES.get(name, name)}", "")
        yield "| machine | format | kernel | rows | median | 90 % | bias | roofline | figures |"
        yield "|---|---|---|--:|--:|--:|--:|--:|---|"
        for g in listed:
            what = " ".join(part for part in (g.op, g.format) if part)
            yield f"| {g.device} | {what} | {g.kernel.replace('|', '/')} | {figures([g])} | {word(g)} |"
        if len(listed) < len(mine):
            yield from ("", f"{len(mine) - len(listed)} more with fewer than {FEW} rows are in the family's sum alone.")
        yield ""


def figures(groups: Sequence[Scored]) -> str:
    """Cells of all the groups' rows together."""
    score = Score.of_ratios(np.concatenate([g.ratios for g in groups]))
    plain = [g.roofline for g in groups if g.roofline is not None]
    roofline = f"{Score.of_ratios(np.concatenate(plain)).median:.0f}" if len(plain) == len(groups) else ""
    return f"{score.rows:,} | {score.median:.1f} | {score.p90:.0f} | {score.bias:+.0f} | {roofline}"


def word(g: Scored) -> str:
    if g.kind == "calibrated":
        return "own" if g.exact else f"near: {g.priced_as}"
    return g.kind if g.exact or g.kind == COMPOSED else f"{g.kind}: {g.priced_as}"


def served(rows: Sequence[Served]) -> Iterable[str]:
    if not rows:
        return
    yield from (
        "## Served models",
        "",
        "Time per output token and time to first token under load, all requests at once. Unlike the kernels above,",
        "these rows were seen: an engine has five figures, fitted to the dense models among them.",
        "`benchmarks/serving.py DIR` fits them again with each model, and each machine, left out.",
    )
    yield "Repeated runs of one configuration differ by 4.5 % in the median and by over 2 times at the 90th percentile."
    yield from ("", "| machine | mode | rows | answered | TPOT median | 90 % | bias | TTFT median | 90 % | bias |")
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for s in rows:
        cells = []
        for ratios in (s.tpot, s.ttft):
            score = Score.of_ratios(ratios) if len(ratios) else None
            cells += [f"{score.median:.1f}", f"{score.p90:.0f}", f"{score.bias:+.0f}"] if score else ["", "", ""]
        yield f"| {s.device} | {s.mode} | {s.asked:,} | {len(s.tpot):,} | {' | '.join(cells)} |"
    yield ""


def disagreements(groups: Sequence[Scored], notes: Sequence[str]) -> Iterable[str]:
    """What the page would rather not show."""
    off = sorted((g for g in groups if len(g.ratios) >= FEW and g.score.median >= OFF), key=lambda g: -g.score.median)
    yield from ("## What does not agree", "")
    if off:
        yield f"{len(off)} of {len(groups)} kernels are off by {OFF:.0f} % or more in the median:"
        yield ""
        for g in off:
            name = " ".join(part for part in (g.family, g.op, g.format, g.kernel) if part)
            yield f"- {name} on {g.device}: {g.score.median:.0f} %, bias {g.score.bias:+.0f} ({word(g)})"
    else:
        yield f"No kernel with {FEW} rows or more is off by {OFF:.0f} % in the median."
    if notes:
        yield from ("", "Not scored:", "", *(f"- {note}" for note in dict.fromkeys(notes)))
    yield ""


def summary(groups: Sequence[Scored], fitted: Sequence[tuple[str, Curve]]) -> str:
    """One line: the median error of each kind of kernel, and what a roofline would give."""
    parts = []
    for name, kinds in KINDS.items():
        if mine := [g.ratios for g in groups if g.family in kinds]:
            parts.append(f"{Score.of_ratios(np.concatenate(mine)).median:.0f} % for {name}")
    if fitted:
        parts.append(f"{weighted(fitted, 'median'):.0f} % for collectives")
    ours = [g for g in groups if g.roofline is not None]
    plain = ""
    if ours:
        both = [Score.of_ratios(np.concatenate([getattr(g, n) for g in ours])).median for n in ("ratios", "roofline")]
        plain = f"; over all kernels {both[0]:.0f} %, where a data-sheet roofline errs by {both[1]:.0f} %"
    devices = len({g.device for g in groups} | {device for device, _ in fitted})
    return f"Median error on shapes no fit saw, {devices} machines: {', '.join(parts)}{plain}."


def machines_left_out(folder: str | Path, families: Sequence[str]) -> Iterable[str]:
    from tensorcast.calibration.joint import left_out, usual_parts

    for family, path in tables_in(folder):
        if family not in families:
            continue
        kind, frame = read_table(family, path)
        parts = usual_parts(kind, frame).get("bf16", [])
        if len({p.device for p in parts}) > 2:
            scores = left_out(kind, parts)
            told = ", ".join(f"{device} {s.median:.1f} / {s.p90:.0f}" for device, s in scores.items())
            yield f"| {family} | bf16 | {told} |"


if __name__ == "__main__":
    main()
