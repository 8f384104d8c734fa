"""One set of coefficients for several machines: what holds for devices nobody measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from tensorcast.calibration.data import by_device, held_out
from tensorcast.calibration.fit import Fit, Sample, evaluate, fit, included, part
from tensorcast.calibration.score import Score
from tensorcast.cost.tables import Table, groups
from tensorcast.hardware.coefficient import Coefficient

REFERENCE_CLOCK = 1.83e9  # Hz, to which the times of the universal set refer


@dataclass(frozen=True)
class Part:
    """Rows of one kernel on one machine: those a fit sees, and those it does not."""

    device: str
    seen: Sample
    unseen: Sample


def kernel_parts(kind: Table, frame) -> dict[tuple[str, str], list[Part]]:
    """(format, kernel) → its rows on every machine that measured it."""
    found: dict[tuple[str, str], list[Part]] = {}
    for hw, rows in by_device(frame):
        clock = hw.clock_hz / REFERENCE_CLOCK if hw.clock_hz else 1.0
        for group, at in groups(rows):
            sub = rows.iloc[at]
            call, latency, out = kind.call(sub, group, hw), sub["latency_s"].to_numpy(dtype=float), held_out(kind, sub)
            seen = Sample(part(call, ~out), latency[~out], hw, clock)
            unseen = Sample(part(call, out), latency[out], hw, clock)
            found.setdefault((kind.format(group), kind.kernel(group)), []).append(Part(hw.name, seen, unseen))
    return found


def usual_parts(kind: Table, frame) -> dict[str, list[Part]]:
    """format → the rows of the kernel that each machine runs for it unless told otherwise, whatever it is called."""
    found: dict[str, list[Part]] = {}
    for (fmt, kernel), parts in kernel_parts(kind, frame).items():
        for p in parts:
            if kernel == p.seen.hw.coefficient(kind.family, fmt).kernel:
                found.setdefault(fmt, []).append(p)
    return found


def joint(kind: Table, parts: Sequence[Part], restarts: int = 1) -> Fit:
    """The coefficients that serve all the parts; every device weighs the same."""
    return fit(kind.formula, [p.seen for p in parts], restarts=restarts)


def score(kind: Table, values: Mapping[str, float], parts: Sequence[Part]) -> Score:
    """Errors on the rows no fit saw."""
    predicted = [evaluate(kind.formula, values, p.unseen) for p in parts]
    return Score.of(np.concatenate(predicted), np.concatenate([p.unseen.measured for p in parts]))


def universal_row(kind: Table, fmt: str, kernel: str, parts: Sequence[Part]) -> Coefficient:
    """A row of the universal set. Its stated error is what a device met that was left out of the fit, at the worst."""
    devices = sorted({p.device for p in parts})
    found = joint(kind, parts)
    left = left_out(kind, parts) if len(devices) > 2 else {}
    worst = max(left.values(), key=lambda s: s.median, default=score(kind, found.values, parts))
    return Coefficient(
        family=kind.family,
        format=fmt,
        values=found.values,
        formula=kind.formula,
        kernel=kernel,
        provenance=f"{kind.name} table, joint fit over {', '.join(devices)}; fitted {date.today()}",
        kind="universal",
        includes=included(parts[0].seen.call),
        rows=found.rows,
        error=(worst.median, worst.p90),
    )


def left_out(kind: Table, parts: Sequence[Part]) -> dict[str, Score]:
    """Device → errors of a joint fit over the others on it."""
    scores = {}
    for device in sorted({p.device for p in parts}):
        others = [p for p in parts if p.device != device]
        if others:
            values = joint(kind, others).values
            scores[device] = score(kind, values, [p for p in parts if p.device == device])
    return scores
