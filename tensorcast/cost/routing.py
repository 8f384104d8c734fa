"""How many tokens the experts of the busiest rank get: balanced, independent and uniform, or by a power law.

A load is asked for at arrays of sizes, one element a call. Shares of a power law: weights drawn from the density
x^-alpha between the least and the greatest popularity a benchmark gives an expert, then scaled to the number of
(token, expert) pairs and rounded. The weights are those of evenly spaced quantiles, dealt to the ranks in `DRAWS` fixed
orders; the rank that gets most of them is the one whose time counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

DRAWS = 4
_NORMAL = np.array([NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)])  # evenly spaced quantiles
_BLOCK = 1 << 19  # counts evaluated at once


@dataclass(frozen=True)
class Load:
    """What one rank's experts get. Arrays, one element a call; `tiles[i]` for the i-th asked tile height.

    pairs: (token, expert) pairs. active: experts with at least one. tiles: tiles of that many rows that hold them,
    where no tile holds pairs of two experts.
    """

    pairs: np.ndarray
    active: np.ndarray
    tiles: np.ndarray


def balanced(tokens, top_k, experts, ep, heights: Sequence[int]) -> Load:
    """Every expert gets the same number of tokens, give or take one."""
    tokens, top_k, experts, ep = _arrays(tokens, top_k, experts, ep)
    local = np.maximum(experts / ep, 1.0)
    mean = tokens * top_k / experts
    least = np.floor(mean)
    more = mean - least
    active = np.maximum(np.where(least > 0, local, local * more), 1.0)
    tiles = np.stack([local * ((1 - more) * np.ceil(least / h) + more * np.ceil((least + 1) / h)) for h in heights])
    return Load(np.maximum(local * mean, 1.0), active, np.maximum(tiles, active))


def uniform(tokens, top_k, experts, ep, heights: Sequence[int]) -> Load:
    """Expected values where every token chooses its experts at random, all of them equally likely."""
    tokens, top_k, experts, ep = _arrays(tokens, top_k, experts, ep)
    local, chance = experts / ep, np.minimum(top_k / experts, 1.0)
    mean = tokens * chance
    pairs, active = local * mean, local * (1 - (1 - chance) ** tokens)
    spread = np.sqrt(mean * (1 - chance))
    counts = np.maximum(mean + spread * _NORMAL[:, None], 0.0)
    # An expert's last tile is the only one that may be part empty.
    tiles = [np.minimum(local * np.ceil(counts / h).mean(axis=0), pairs / h + active) for h in heights]
    least = [np.maximum(pairs / h, active) for h in heights]
    return Load(pairs, active, np.maximum(tiles, least))


def power_law(tokens, top_k, experts, ep, heights: Sequence[int], alpha) -> Load:
    """The hottest of `ep` ranks, averaged over the draws."""
    tokens, top_k, experts, ep = _arrays(tokens, top_k, experts, ep)
    alpha = np.broadcast_to(np.asarray(alpha, dtype=float), tokens.shape)
    pairs, active = np.empty(tokens.size), np.empty(tokens.size)
    tiles = np.empty((len(heights), tokens.size))
    for number, ranks in {*zip(experts.tolist(), ep.tolist(), strict=True)}:
        rows = np.flatnonzero((experts == number) & (ep == ranks))
        step = max(1, int(_BLOCK // (DRAWS * number)))
        for at in range(0, len(rows), step):
            here = rows[at : at + step]
            counts = _hottest(_counts(tokens[here], top_k[here], int(number), alpha[here]), int(ranks))
            pairs[here] = counts.sum(axis=-1).mean(axis=0)
            active[here] = (counts > 0).sum(axis=-1).mean(axis=0)
            for i, height in enumerate(heights):
                tiles[i, here] = np.ceil(counts / height).sum(axis=-1).mean(axis=0)
    return Load(pairs, active, tiles)


def _arrays(*values: Any) -> list[np.ndarray]:
    return [np.ravel(a).astype(float) for a in np.broadcast_arrays(*values)]


def _counts(tokens, top_k, experts: int, alpha) -> np.ndarray:
    """Tokens of every expert, [draws, calls, experts]; each call's add up to tokens · top_k."""
    total = tokens * top_k
    many = total > experts
    low, high = np.where(many, 1.0, 0.01), np.where(many, np.maximum(0.8 * tokens, 1.0 + 1e-9), 2.0)
    weights = _quantile(_shares(experts)[:, None, :], low[:, None], high[:, None], alpha[:, None])
    wanted = weights / weights.sum(axis=-1, keepdims=True) * total[:, None]
    counts = np.minimum(np.round(wanted), tokens[:, None])
    return _made_up(counts, tokens, total)


def _quantile(share, low, high, alpha) -> np.ndarray:
    """Where the distribution x^-alpha between `low` and `high` has that share below it."""
    power = np.where(np.abs(1 - alpha) < 1e-6, 1e-6, 1 - alpha)
    return ((high**power - low**power) * share + low**power) ** (1 / power)


@cache
def _shares(experts: int) -> np.ndarray:
    """Evenly spaced quantiles in a fixed random order, [draws, experts]."""
    generator = np.random.default_rng(experts)
    return np.stack([(generator.permutation(experts) + 0.5) / experts for _ in range(DRAWS)])


def _made_up(counts, tokens, total) -> np.ndarray:
    """Counts whose sum is `total`: what rounding lost goes to the least popular experts, one each in turn, and what it
    added is taken from the most popular ones."""
    order = np.argsort(counts, axis=-1, kind="stable")
    ranked = np.take_along_axis(counts, order, -1)
    for _ in range(8):
        missing = (total - ranked.sum(axis=-1))[..., None]
        if not missing.any():
            break
        room = np.where(missing > 0, ranked < tokens[:, None], ranked > 0)
        place, free = np.cumsum(room, axis=-1) - 1, np.maximum(room.sum(axis=-1), 1)[..., None]
        place = np.where(missing > 0, place, free - 1 - place)
        each = np.floor(np.abs(missing) / free) + (place < np.abs(missing) % free)
        ranked = np.clip(ranked + np.sign(missing) * np.where(room, each, 0.0), 0.0, tokens[:, None])
    out = np.empty_like(counts)
    np.put_along_axis(out, order, ranked, -1)
    return out


def _hottest(counts, ep: int) -> np.ndarray:
    """The counts of the rank with most pairs, [draws, calls, experts of a rank]."""
    draws, calls, experts = counts.shape
    if ep <= 1 or experts % ep:
        return counts
    ranks = counts.reshape(draws, calls, ep, experts // ep)
    return np.take_along_axis(ranks, ranks.sum(-1).argmax(-1)[..., None, None], 2)[:, :, 0]
