"""Fit every kernel of a table that was measured on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil

import numpy as np

from tensorcast.calibration.data import HELD_OUT, held_out
from tensorcast.calibration.fit import FEWEST, Sample, evaluate, fit, included, part
from tensorcast.calibration.score import Score
from tensorcast.calibration.write import with_rows
from tensorcast.cost.frames import call_of, match, seconds_of
from tensorcast.cost.tables import Table, groups
from tensorcast.errors import HardwareError
from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.profile import HardwareProfile

NEEDED = ceil(FEWEST / (1 - HELD_OUT / 100))  # rows of a kernel: FEWEST to fit, the rest to check
MOST_OF_THEM = 0.75  # a part larger than this tells nothing about what more rows bring


@dataclass(frozen=True)
class Calibrated:
    """One kernel's new coefficients, with the scores on held-out rows before and after.

    `fewer`: (rows, score) of a fit to part of them, on the same held-out rows: what it lacks, more rows may bring.
    """

    group: Mapping[str, str]
    row: Coefficient
    before: Score | None
    after: Score
    fewer: tuple[int, Score] | None = None


@dataclass(frozen=True)
class TooFew:
    """A kernel that was left alone, how many rows it has, and how many of them a fit would see."""

    family: str
    format: str
    kernel: str
    rows: int
    seen: int

    def __str__(self) -> str:
        name = " ".join(part for part in (self.family, self.format, self.kernel) if part)
        shapes = "1 row is" if self.rows == 1 else f"{self.rows} rows are"
        needed = f"at least {NEEDED} are needed ({FEWEST} to fit, the rest to check), 100 do well"
        few = f"{shapes} too few to calibrate a kernel" if self.rows < NEEDED else f"{self.seen} rows left to fit"
        return f"{name}: {few}; {needed}"


def calibrate_table(
    kind: Table,
    frame,
    hw: HardwareProfile,
    *,
    restarts: int = 2,
    told: Callable[[Calibrated], None] | None = None,
    left: Callable[[TooFew], None] | None = None,
    learn: bool = False,
) -> list[Calibrated]:
    """The coefficients of every kernel in `frame`, rows measured on `hw`; kernels with too few rows are left out.

    Rows of several groups that are kept under one family, format and kernel are fitted together. `told` hears of every
    kernel when it is done, `left` of those left out; `learn` asks for a second fit, to fewer rows.
    """
    samples: dict[tuple[str, str, str], list] = {}
    for group, rows in groups(frame):
        key = kind.family_of(group), kind.format(group), kind.kernel(group)
        samples.setdefault(key, []).append((group, frame.iloc[rows]))
    done = []
    for key, parts in samples.items():
        split = [(group, rows, held_out(kind, rows)) for group, rows in parts]
        total, seen = sum(len(rows) for _, rows in parts), sum(int((~out).sum()) for _, _, out in split)
        if total < NEEDED or seen < FEWEST or seen == total:
            if left:
                left(TooFew(*key, total, seen))
            continue
        result = _calibrated(kind, key, split, hw, restarts, learn)
        done.append(result)
        if told:
            told(result)
    return done


def _calibrated(kind: Table, key, split, hw, restarts: int, learn: bool) -> Calibrated:
    family, fmt, kernel = key
    seen, unseen, before, measured = [], [], [], []
    for group, rows, out in split:
        call, latency = call_of(kind, group, rows, hw), rows["latency_s"].to_numpy(dtype=float)
        seen.append(Sample(part(call, ~out), latency[~out], hw))
        unseen.append(Sample(part(call, out), latency[out], hw))
        before += _before(kind, group, rows[out], hw)
        measured += latency[out].tolist()
    found = fit(kind.formula, seen, starts=_starts(kind, split[0][0], hw), restarts=restarts)
    after = _score(kind, found, unseen)
    group = split[0][0]
    row = Coefficient(
        family=family,
        format=fmt,
        values=found.values,
        formula=kind.formula,
        kernel=kernel,
        provenance=provenance(kind, [(group, rows) for group, rows, _ in split]),
        kind="calibrated",
        includes=included(seen[0].call),
        rows=found.rows,
        error=(after.median, after.p90),
    )
    fewer = _with_fewer(kind, found, seen, unseen) if learn else None
    known = len(before) == len(measured)
    return Calibrated(group, row, Score.of(before, measured) if known else None, after, fewer)


def _score(kind: Table, found, samples) -> Score:
    predicted = [t for s in samples for t in evaluate(kind.formula, found.values, s)]
    return Score.of(predicted, [t for s in samples for t in s.measured])


def _with_fewer(kind: Table, found, seen, unseen) -> tuple[int, Score] | None:
    """(rows, score) of a fit to half of the rows or FEWEST, with the choices of the whole fit; None where that would
    be nearly all of them."""
    whole = sum(len(s.measured) for s in seen)
    share = max(0.5, FEWEST / whole)
    if share > MOST_OF_THEM:
        return None
    fewer = []
    for sample in seen:
        rows = np.arange(len(sample.measured))
        rows = rows[np.ceil((rows + 1) * share) > np.ceil(rows * share)]
        fewer.append(Sample(part(sample.call, rows), sample.measured[rows], hw=sample.hw))
    rows = sum(len(s.measured) for s in fewer)
    fixed = {n: found.values[n] for n, p in FORMULAS[kind.formula].parameters.items() if p.choices}
    return rows, _score(kind, fit(kind.formula, fewer, fixed=fixed, restarts=1), unseen)


def _before(kind: Table, group, rows, hw) -> list[float]:
    try:
        return seconds_of(kind, group, rows, hw).tolist() if len(rows) else []
    except HardwareError:  # nothing was known of this kernel
        return []


def _starts(kind: Table, group, hw) -> list[dict[str, float]]:
    """What is known of the kernel already, where it is in the same formula."""
    try:
        found = match(kind, group, hw)
    except HardwareError:
        return []
    known = found.coefficient
    return [dict(known.values)] if known.formula == kind.formula and known.kernel == found.wanted[1] else []


def provenance(kind: Table, parts) -> str:
    """Which rows, of which library and version, taken when: the text that goes into the file's sources."""
    group, rows = parts[0]
    library = " ".join(dict.fromkeys(str(v) for c in ("backend", "version") if c in rows for v in rows[c].unique()[:3]))
    kernel = group.get("kernel", "") or "default kernel"
    return f"{kind.name} table, {library or 'measured'}, {kernel}; fitted {date.today()}"


def written(
    text: str, kind: Table, done: Sequence[Calibrated], hw: HardwareProfile, *, newest_first: bool = False
) -> str:
    """The hardware file `text` of `hw` with the new coefficients; kernels that were not fitted again keep theirs.

    The first row of a format is what the machine runs when nobody names a kernel: kernels stand in the table's order,
    with `newest_first` those just fitted before those that were there.
    """
    for family in dict.fromkeys(c.row.family for c in done):
        text = _with_family(text, family, kind, [c.row for c in done if c.row.family == family], hw, newest_first)
    return text


def _with_family(text: str, family: str, kind: Table, new: Sequence[Coefficient], hw, newest_first: bool) -> str:
    names, formats = {(row.format, row.kernel) for row in new}, {row.format for row in new}
    old = [
        row
        for row in hw.coefficients.get(family, ())
        if row.kind in ("calibrated", "assumed")
        and not row.provenance.startswith(("universal set", "inherited"))
        and (row.format, row.kernel) not in names
        and not (row.formula != kind.formula and row.format in formats)
    ]
    order = [name for _, name in kind.kernels]

    def place(row: Coefficient):
        at = order.index(row.kernel) if row.kernel in order else len(order)
        return row.format, newest_first and (row.format, row.kernel) not in names, at, row.kernel

    rows, keys = sorted([*new, *old], key=place), {}
    for row in rows:
        keys.setdefault(row.provenance, f"{family}_{len(keys) + 1}")
    return with_rows(text, family, [(r, keys[r.provenance]) for r in rows], {k: v for v, k in keys.items()})
