"""Fit the parameters of a cost formula to measured calls.

Least squares on log(predicted / measured) with a soft-L1 loss, in the logarithm of the parameters, inside their legal
range, from several starts; choices (tile sizes, switches) are tried out one by one. A part of the rows is never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.formulas import FUNCTIONS
from tensorcast.errors import InputError
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.ops.base import Work

FEWEST = 30  # rows below which a kernel's coefficients would be guesses
MOST = 2500  # rows beyond which a fit does not get better, only slower
LOSS_SCALE = 0.08  # |log error| beyond which a row counts as an outlier


@dataclass(frozen=True)
class Sample:
    """Measured calls of one kernel on one machine; `clock` is the machine's over that of the fitted set."""

    call: Call
    measured: np.ndarray
    hw: object
    clock: float = 1.0


@dataclass(frozen=True)
class Fit:
    """Fitted parameters and how well they do."""

    formula: str
    values: Mapping[str, float]
    rows: int
    loss: float = field(repr=False)


def included(call: Call) -> tuple[str, ...]:
    """Families of the kernels that the calls time beside their own: the activation's quantisation, the cache write."""
    flags = {"quantize": "quantized", "copy": "appended"}
    return tuple(family for family, flag in flags.items() if call.sizes.get(flag))


def part(call: Call, rows) -> Call:
    """The calls at `rows` (indices or a mask)."""

    def take(value):
        array = np.asarray(value) if not isinstance(value, (str, bool, type(None))) else value
        return array[..., rows] if isinstance(array, np.ndarray) and array.ndim else value

    return Call(
        Work(*(take(v) for v in vars(call.work).values())),
        {name: take(value) for name, value in call.sizes.items()},
        call.math,
        call.vector,
        take(call.loop_bytes),
    )


def evaluate(formula: str, values: Mapping[str, float], sample: Sample) -> np.ndarray:
    """Predicted seconds of a sample."""
    moved = FORMULAS[formula].moved(values, sample.clock) if sample.clock != 1.0 else values
    time = FUNCTIONS[formula](sample.call, moved, sample.hw).at_least(sample.call.floor(sample.hw))
    return np.broadcast_to(time.seconds, sample.measured.shape)


def log_errors(formula: str, values: Mapping[str, float], samples: Sequence[Sample]) -> np.ndarray:
    """log(predicted / measured) of every call."""
    return np.concatenate([np.log(evaluate(formula, values, s) / s.measured) for s in samples])


def fit(
    formula: str,
    samples: Sequence[Sample],
    *,
    fixed: Mapping[str, float] | None = None,
    starts: Sequence[Mapping[str, float]] = (),
    restarts: int = 3,
    seed: int = 0,
) -> Fit:
    """The parameters of `formula` that fit `samples` best.

    fixed: parameters not to touch. starts: where to begin, beside the formula's own start; `restarts` more are drawn
    around the best of them. InputError for fewer than FEWEST rows, naming how many are needed.
    """
    rows = sum(len(s.measured) for s in samples)
    if rows < FEWEST:
        raise InputError(f"{rows} rows are too few to fit a kernel; at least {FEWEST} are needed, 100 do well")
    samples = [_thinned(s, MOST // len(samples), seed) for s in samples]
    parameters, fixed = FORMULAS[formula].parameters, dict(fixed or {})
    tried = {n: p.choices for n, p in parameters.items() if p.choices and n not in fixed}
    free = [n for n, p in parameters.items() if not p.choices and n not in fixed]
    chosen = fixed | {n: parameters[n].start for n in tried}
    best = min((_descend(formula, samples, free, start, chosen) for start in ({}, *starts)), key=lambda r: r.loss)
    for name, choices in tried.items():
        for other in choices:
            if other != best.values[name]:
                kept = {n: v for n, v in best.values.items() if n not in free} | {name: other}
                # From where it stands, and from the start: a parameter that has vanished does not come back.
                found = [_descend(formula, samples, free, start, kept) for start in (best.values, {})]
                best = min(best, *found, key=lambda r: r.loss)
    kept = {n: v for n, v in best.values.items() if n not in free}
    generator = np.random.default_rng(seed)
    for _ in range(restarts):
        jitter = {n: best.values[n] * np.exp(generator.normal(0, 0.7)) for n in free}
        best = min(best, _descend(formula, samples, free, jitter, kept), key=lambda r: r.loss)
    return best


def _descend(formula, samples, free, start, kept) -> Fit:
    from scipy.optimize import least_squares

    parameters = FORMULAS[formula].parameters
    low = np.log([max(parameters[n].low, 1e-13) for n in free])
    high = np.log([parameters[n].high for n in free])
    begin = np.clip(np.log([max(start.get(n, parameters[n].start), 1e-13) for n in free]), low + 1e-6, high - 1e-6)

    def values(x) -> dict[str, float]:
        return {**dict(zip(free, np.exp(x).tolist(), strict=True)), **kept}

    def residuals(x):
        return log_errors(formula, values(x), samples)

    solved = least_squares(
        residuals, begin, bounds=(low, high), loss="soft_l1", f_scale=LOSS_SCALE, diff_step=1e-3, max_nfev=60
    )
    return Fit(formula, values(solved.x), sum(len(s.measured) for s in samples), float(solved.cost))


def _thinned(sample: Sample, most: int, seed: int) -> Sample:
    if len(sample.measured) <= most:
        return sample
    rows = np.sort(np.random.default_rng(seed).choice(len(sample.measured), most, replace=False))
    return Sample(part(sample.call, rows), sample.measured[rows], sample.hw, sample.clock)
