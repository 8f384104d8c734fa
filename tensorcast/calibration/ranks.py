"""Fit a RankTable: one curve for every number of ranks (tensorcast.hardware.protocol.RankRow)."""

from __future__ import annotations

import numpy as np

from tensorcast.hardware.protocol import RankRow
from tensorcast.ops.collective import wire_bytes

FEWEST_ABOVE = 4  # rows that another protocol above the switch needs to be seen
COST_OF_SWITCH = 1.5  # loss by which four more figures must do better
LOSS_SCALE = 0.04


def fit_ranks(op: str, ranks: np.ndarray, nbytes: np.ndarray, seconds: np.ndarray) -> tuple[RankRow, ...]:
    """A row for every number of ranks. nbytes: full buffers."""
    return tuple(_fit_row(op, int(n), nbytes[ranks == n], seconds[ranks == n]) for n in np.unique(ranks))


def _fit_row(op: str, n: int, nbytes: np.ndarray, seconds: np.ndarray) -> RankRow:
    order = np.argsort(nbytes, kind="stable")
    b, t = nbytes[order], seconds[order]
    wire = wire_bytes(op, b, n)
    (floor, bandwidth, norm), loss = _lower(wire, t)
    best = loss, RankRow(n, floor, bandwidth, norm)
    for at in range(FEWEST_ABOVE, len(b) - FEWEST_ABOVE + 1):
        if b[at] <= b[at - 1]:
            continue
        (floor, bandwidth, norm), below = _lower(wire[:at], t[:at])
        (plateau, alpha, peak), above = _upper(wire[at:], t[at:])
        if below + above + COST_OF_SWITCH < best[0]:
            switch = float(np.sqrt(b[at - 1] * b[at]))
            best = below + above + COST_OF_SWITCH, RankRow(n, floor, bandwidth, norm, switch, plateau, alpha, peak)
    return best[1]


def _lower(wire, t):
    """(floor, bandwidth, norm) of (floor^norm + (W/bandwidth)^norm)^(1/norm)."""
    start = [t.min(), max(wire[-1] / t[-1], 1.0), 1.1]
    bounds = [1e-7, 1e6, 1.0], [1e-2, 1e13, 4.0]
    return _fit(lambda v: (v[0] ** v[2] + (wire / v[1]) ** v[2]) ** (1 / v[2]), t, start, bounds)


def _upper(wire, t):
    """(plateau, alpha, peak) of max(plateau, alpha + W/peak)."""
    start = [t.min(), t.min() / 2, wire[-1] / t[-1]]
    bounds = [1e-7, 1e-7, 1e6], [1e-1, 1e-1, 1e13]
    return _fit(lambda v: np.maximum(v[0], v[1] + wire / v[2]), t, start, bounds)


def _fit(curve, t, start, bounds) -> tuple[tuple[float, ...], float]:
    """(values, loss) of the curve, in logarithms."""
    from scipy.optimize import least_squares

    low, high = np.log(bounds[0]), np.log(bounds[1])
    solved = least_squares(
        lambda x: np.log(curve(np.exp(x)) / t),
        np.clip(np.log(start), low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=LOSS_SCALE,
        max_nfev=40,
    )
    values = np.clip(np.exp(solved.x), bounds[0], bounds[1])
    return tuple(values.tolist()), float(np.sum(np.sqrt(1 + (solved.fun / LOSS_SCALE) ** 2) - 1))
