"""Fit every kernel of a table that was measured on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from tensorcast.calibration.data import held_out
from tensorcast.calibration.fit import FEWEST, Sample, evaluate, fit, part
from tensorcast.calibration.score import Score
from tensorcast.calibration.write import with_rows
from tensorcast.cost.frames import match, seconds_of
from tensorcast.cost.tables import Table, groups
from tensorcast.errors import HardwareError
from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.profile import HardwareProfile


@dataclass(frozen=True)
class Calibrated:
    """One kernel's new coefficients, with the scores on held-out rows before and after."""

    group: Mapping[str, str]
    row: Coefficient
    before: Score | None
    after: Score


def calibrate_table(
    kind: Table, frame, hw: HardwareProfile, *, restarts: int = 2, told: Callable[[Calibrated], None] | None = None
) -> list[Calibrated]:
    """The coefficients of every kernel in `frame`, rows measured on `hw`; kernels with too few rows are left out.

    Rows of several groups that are kept under one format and kernel are fitted together.
    """
    samples: dict[tuple[str, str], list] = {}
    for group, rows in groups(frame):
        samples.setdefault((kind.format(group), kind.kernel(group)), []).append((group, frame.iloc[rows]))
    done = []
    for (fmt, kernel), parts in samples.items():
        if sum(len(rows) for _, rows in parts) < FEWEST:
            continue
        result = _calibrated(kind, fmt, kernel, parts, hw, restarts)
        done.append(result)
        if told:
            told(result)
    return done


def _calibrated(kind: Table, fmt: str, kernel: str, parts, hw, restarts: int) -> Calibrated:
    seen, unseen, before, measured = [], [], [], []
    for group, rows in parts:
        out = held_out(kind, rows)
        call, latency = kind.call(rows, group, hw), rows["latency_s"].to_numpy(dtype=float)
        seen.append(Sample(part(call, ~out), latency[~out], hw))
        unseen.append(Sample(part(call, out), latency[out], hw))
        before += _before(kind, group, rows[out], hw)
        measured += latency[out].tolist()
    found = fit(kind.formula, seen, starts=_starts(kind, fmt, kernel, hw), restarts=restarts)
    after = Score.of([t for s in unseen for t in evaluate(kind.formula, found.values, s)], measured)
    group = parts[0][0]
    row = Coefficient(
        family=kind.family,
        format=fmt,
        values=found.values,
        formula=kind.formula,
        kernel=kernel,
        provenance=provenance(kind, parts),
        kind="calibrated",
        includes=("quantize",) if seen[0].call.sizes.get("quantized") else (),
        rows=found.rows,
        error=(after.median, after.p90),
    )
    return Calibrated(group, row, Score.of(before, measured) if len(before) == len(measured) else None, after)


def _before(kind: Table, group, rows, hw) -> list[float]:
    try:
        return seconds_of(kind, group, rows, hw).tolist() if len(rows) else []
    except HardwareError:  # nothing was known of this kernel
        return []


def _starts(kind: Table, fmt: str, kernel: str, hw) -> list[dict[str, float]]:
    """What is known of the kernel already, where it is in the same formula."""
    try:
        known = match(kind, {"dtype": fmt}, hw).coefficient
    except (HardwareError, KeyError):
        return []
    return [dict(known.values)] if known.formula == kind.formula and known.kernel == kernel else []


def provenance(kind: Table, parts) -> str:
    """Which rows, of which library and version, taken when: the text that goes into the file's sources."""
    group, rows = parts[0]
    library = " ".join(dict.fromkeys(str(v) for c in ("backend", "version") if c in rows for v in rows[c].unique()[:3]))
    kernel = group.get("kernel", "") or "default kernel"
    return f"{kind.name} table, {library or 'measured'}, {kernel}; fitted {date.today()}"


def written(text: str, kind: Table, done: Sequence[Calibrated], hw: HardwareProfile) -> str:
    """The hardware file `text` of `hw` with the new coefficients; kernels that were not fitted again keep theirs.

    The first row of a format is what the machine runs when nobody names a kernel: kernels stand in the table's order.
    """
    new = {(c.row.format, c.row.kernel): c.row for c in done}
    old = [
        row
        for row in hw.coefficients.get(kind.family, ())
        if row.kind in ("calibrated", "assumed")
        and not row.provenance.startswith(("universal set", "inherited"))
        and (row.format, row.kernel) not in new
        and not (row.formula != kind.formula and row.format in {fmt for fmt, _ in new})
    ]
    order = [name for _, name in kind.kernels]
    rows = sorted(
        [*new.values(), *old],
        key=lambda r: (r.format, order.index(r.kernel) if r.kernel in order else len(order), r.kernel),
    )
    keys: dict[str, str] = {}
    for row in rows:
        keys.setdefault(row.provenance, f"{kind.family}_{len(keys) + 1}")
    return with_rows(text, kind.family, [(r, keys[r.provenance]) for r in rows], {k: v for v, k in keys.items()})
