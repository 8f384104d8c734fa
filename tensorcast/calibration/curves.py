"""Fit the curves of collectives to a measured table.

A GPU's library has two protocols (TwoProtocols), an engine's own all_reduce one or two steps (Shots), an NPU's library
a curve for every number of ranks (RankTable; calibration/ranks.py). Least squares on log(predicted / measured) with a
soft-L1 loss. A curve has a few dozen rows: it is scored on fifths of the shapes, each predicted by a fit that saw the
other four, and the fit to all rows is what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import NamedTuple

import numpy as np

from tensorcast.calibration.curve_text import written
from tensorcast.calibration.data import held_out
from tensorcast.calibration.ranks import fit_ranks
from tensorcast.calibration.score import Score
from tensorcast.cost.collective import collective_time, shots, two_protocols
from tensorcast.cost.measured.collective import full_bytes, libraries
from tensorcast.cost.tables import table
from tensorcast.errors import DeploymentError, HardwareError
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.hardware.protocol import Protocol, RankTable, Shots, TwoProtocols
from tensorcast.ops.collective import wire_bytes

__all__ = ["Curve", "calibrate_collectives", "fit_protocols", "written"]

FEWEST = 20  # rows below which a curve would be a guess
FOLDS = 5
LOSS_SCALE = 0.06
RESTARTS = 2
NO_RAMP = 1e-3
LIMIT_PRIOR = 0.1  # loss of a limit twice or half as large as that of the other numbers of ranks
POWER_PRIOR = 0.1  # log error that a power of 1 counts as: rows that tell nothing of it leave it at 0
SUMS = ("all_reduce", "reduce_scatter")
SIXTEEN_BITS = ("half", "float16", "fp16", "bfloat16", "bf16")  # sums of other formats take a few percent longer

# parameter → (lowest, start, highest); those from -1.5 to 1.5 are powers, all others are fitted as logarithms
_POWER = (-1.5, 0.0, 1.5)
PROTOCOLS = {
    "t0": (1e-7, 6e-6, 1e-3), "hop": (1e-10, 1.5e-6, 1e-4), "e1": (1e-3, 0.4, 1.0), "a2": (1e-8, 3e-5, 1e-3),
    "e2": (0.02, 0.7, 1.0), "w": (1e-5, 0.05, 5.0), "step": (1e-3, 0.15, 1.0), "at": (64.0, 1e4, 1e6),
    "low": _POWER, "late": _POWER, "high": _POWER,
}  # fmt: skip
OWN_KERNEL = {
    "t0": (1e-7, 4e-6, 1e-3), "hop": (1e-10, 3e-7, 1e-4), "e1": (1e-2, 0.5, 1.0), "a2": (1e-8, 3e-6, 1e-3),
    "e2": (1e-2, 0.6, 1.0), "w": (1e-5, 0.1, 5.0), "low": _POWER, "high": _POWER, "beyond": (0.8, 1.0, 2.0),
}  # fmt: skip
HOST = {"host": (1e-6, 2e-5, 1e-3)}


@dataclass(frozen=True)
class Rows:
    """Measured calls of one collective of one library on one machine."""

    ranks: np.ndarray
    nbytes: np.ndarray  # full buffer
    link: np.ndarray  # B/s of one device into the group
    seconds: np.ndarray
    default: np.ndarray  # seconds of the device's default curve

    def part(self, rows) -> Rows:
        return Rows(*(getattr(self, f.name)[rows] for f in fields(self)))


class Curve(NamedTuple):
    """A fitted curve, with its scores before (the profile's) and after, on rows its fit had not seen."""

    key: str
    curve: Protocol
    before: Score | None
    after: Score
    rows: int


def calibrate_collectives(frame, hw: HardwareProfile, *, told: Callable[[Curve], None] | None = None) -> list[Curve]:
    """The curves of every collective and library in `frame`, rows measured on `hw`.

    Those with too few rows are left out, and so are rows whose ranks reach beyond the innermost fabric.

    The default library's come first: engines' own kernels hand large buffers over to it.
    """
    done: list[Curve] = []
    frame = frame[frame["n_ranks"].between(2, _reach(hw))]
    named = frame.assign(_library=libraries(frame))
    for op, library in sorted({*zip(named["op"], named["_library"], strict=True)}, key=lambda k: (k[1], k[0])):
        rows = named[(named["op"] == op) & (named["_library"] == library)].drop(columns="_library")
        if op in SUMS and "dtype" in rows and rows["dtype"].isin(SIXTEEN_BITS).any():
            rows = rows[rows["dtype"].isin(SIXTEEN_BITS)]
        if len(rows) < FEWEST:
            continue
        new = _with(hw, {c.key: c.curve for c in done})
        done.append(_calibrated(op, library, rows, hw, new))
        if told:
            told(done[-1])
    return done


def _reach(hw: HardwareProfile) -> int:
    """Most ranks inside the innermost fabric: curves hold there alone."""
    return max(tier.devices for tier in hw.topology.tiers if tier.fabric == hw.topology.tiers[0].fabric)


def _with(hw: HardwareProfile, curves: dict[str, Protocol]) -> HardwareProfile:
    return replace(hw, collective={**hw.collective, **curves})


def _calibrated(op: str, library: str, frame, hw: HardwareProfile, new: HardwareProfile) -> Curve:
    rows, key = _rows(op, frame, new, bool(library)), f"{op}/{library}" if library else op
    try:
        before = Score.of(collective_time(op, rows.nbytes, rows.ranks, 1, hw, library=library), rows.seconds)
    except (HardwareError, DeploymentError):  # no curve of that library yet
        before = None
    fold, predicted = _folds(frame), np.empty(len(rows.seconds))
    for one in np.unique(fold):
        out = fold == one
        found = _fitted(op, library, rows.part(~out), hw)
        predicted[out] = evaluate(found, op, rows.part(out), _with(new, {key: found}), library)
    curve = replace(_fitted(op, library, rows, hw), provenance=_provenance(frame))
    return Curve(key, curve, before, Score.of(predicted, rows.seconds), len(rows.seconds))


def _rows(op: str, frame, hw: HardwareProfile, own: bool) -> Rows:
    ranks, nbytes = frame["n_ranks"].to_numpy(dtype=np.int64), full_bytes(frame, hw)
    links = {n: sum(tier.egress(k) for tier, k in hw.topology.split(int(n))[:1]) for n in np.unique(ranks)}
    default = collective_time(op, nbytes, ranks, 1, hw) if own else np.ones(len(frame))
    link = np.array([links[n] for n in ranks])
    return Rows(ranks, nbytes, link, frame["latency_s"].to_numpy(dtype=float), default)


def _folds(frame) -> np.ndarray:
    """Which of FOLDS parts of the shapes a row belongs to; part 0 is the one that every calibration holds out."""
    from pandas.util import hash_pandas_object

    hashed = hash_pandas_object(frame[["n_ranks", "bytes"]].astype(float), index=False).to_numpy()
    return np.where(held_out(table("collective"), frame), 0, 1 + hashed // 7 % (FOLDS - 1)).astype(int)


def evaluate(curve: Protocol, op: str, rows: Rows, hw: HardwareProfile, library: str = "") -> np.ndarray:
    """Seconds of the rows with `hw`, whose curve `curve` is, never below their wires."""
    return collective_time(op, rows.nbytes, rows.ranks, 1, hw, library=library)


def _fitted(op: str, library: str, rows: Rows, hw: HardwareProfile) -> Protocol:
    if hw.kind == "npu":
        return RankTable(fit_ranks(op, rows.ranks, rows.nbytes, rows.seconds))
    return _fit_shots(rows, library) if library else fit_protocols(op, [rows])


def fit_protocols(op: str, parts: Sequence[Rows]) -> TwoProtocols:
    """The two protocols of `op` on one machine, or on several at once."""
    groups = [p.part(p.ranks == n) for p in parts for n in np.unique(p.ranks)]
    wires = [wire_bytes(op, g.nbytes, int(g.ranks[0])) / g.link for g in groups]

    def residuals(values) -> np.ndarray:
        curve = TwoProtocols(**values)
        return np.concatenate(
            [
                np.log(np.maximum(two_protocols(curve, g.nbytes, wire, int(g.ranks[0])), wire) / g.seconds)
                for g, wire in zip(groups, wires, strict=True)
            ]
        )

    return TwoProtocols(**_without_ramp(_best(residuals, PROTOCOLS)[0]))


def _fit_shots(rows: Rows, library: str) -> Shots:
    """An engine's own kernel: its figures and the buffers it hands over, in turn until these stay."""
    groups = [rows.part(rows.ranks == n) for n in np.unique(rows.ranks)]
    space = OWN_KERNEL | (HOST if library.endswith("_eager") else {})
    steps = 2.0 ** np.arange(np.floor(np.log2(rows.nbytes.min())), np.ceil(np.log2(rows.nbytes.max())) + 1)

    def errors(values, group: Rows, limit: float) -> np.ndarray:
        n = int(group.ranks[0])
        curve = Shots(**values, limits=((n, limit),))
        wire = wire_bytes("all_reduce", group.nbytes, n) / group.link
        return np.log(np.maximum(shots(curve, group.nbytes, wire, n, group.default), wire) / group.seconds)

    def all_errors(values, limits) -> np.ndarray:
        return np.concatenate([errors(values, g, limit) for g, limit in zip(groups, limits, strict=True)])

    best = None
    for begin in (2.0**22, 2.0**24, 2.0**26):
        limits, start = [begin] * len(groups), None
        for _ in range(4):
            values, _ = _best(lambda v, at=tuple(limits): all_errors(v, at), space, start, restarts=0)
            start, usual = values, float(np.median(limits))
            chosen = [min(steps, key=lambda b, g=g: _handed_over(errors(values, g, b), b, usual)) for g in groups]
            if chosen == limits:
                break
            limits = chosen
        loss = _loss(all_errors(values, limits))
        if best is None or loss < best[0]:
            best = loss, values, limits
    _, values, limits = best
    return Shots(
        **_without_ramp(values), limits=tuple((int(g.ranks[0]), float(b)) for g, b in zip(groups, limits, strict=True))
    )


def _without_ramp(values: dict[str, float]) -> dict[str, float]:
    """The values, with a ramp that came out as next to nothing left out: it costs time for every call."""
    return values | {"w": 0.0} if values["w"] < NO_RAMP else values


def _handed_over(errors: np.ndarray, limit: float, usual: float) -> float:
    """Loss of a limit: between sizes that were measured, that of the other numbers of ranks is the likelier one."""
    return _loss(errors) + LIMIT_PRIOR * abs(np.log2(limit / usual))


def _loss(errors: np.ndarray) -> float:
    return float(np.sum(np.sqrt(1 + (errors / LOSS_SCALE) ** 2) - 1))


def _best(residuals, space, start=None, restarts: int = RESTARTS) -> tuple[dict[str, float], float]:
    """(values, loss) of the best of several descents; `residuals` takes a mapping of the parameters of `space`."""
    from scipy.optimize import least_squares

    names = list(space)
    power = np.array([space[n] is _POWER for n in names])
    low, begin, high = np.array([space[n] for n in names], dtype=float).T
    begin = begin if start is None else np.array([start[n] for n in names])

    def to(x):
        return np.where(power, x, np.log(np.where(power, 1.0, x)))

    def values(x) -> dict[str, float]:
        plain = np.clip(np.where(power, x, np.exp(np.where(power, 0.0, x))), low, high)
        return dict(zip(names, plain.tolist(), strict=True))

    generator, best = np.random.default_rng(0), None
    for turn in range(restarts + 1):
        x = to(begin) + (generator.normal(0, 0.4, len(names)) if turn else 0.0)
        x = np.clip(x, to(low) + 1e-6, to(high) - 1e-6)
        solved = least_squares(
            lambda x: np.concatenate([residuals(values(x)), POWER_PRIOR * x[power]]),
            x,
            bounds=(to(low), to(high)),
            loss="soft_l1",
            f_scale=LOSS_SCALE,
            max_nfev=100,
        )
        if best is None or solved.cost < best[1]:
            best = values(solved.x), float(solved.cost)
    return best


def _provenance(frame) -> str:
    """Which rows the curve was fitted to: the text that goes into the file's sources."""
    told = [" ".join(map(str, frame[c].unique()[:2])) for c in ("backend", "version", "kernel") if c in frame]
    ranks = ", ".join(str(n) for n in sorted(frame["n_ranks"].unique()))
    return f"collective table, {' '.join(told) or 'measured'}, {ranks} ranks; fitted {date.today()}"
