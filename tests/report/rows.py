"""Rows as `tc.sweep` gives them, made by hand: figures that are equal, missing, refused; names that look like HTML."""

from __future__ import annotations

import numpy as np
import pandas as pd

MODELS = ("<script>alert(1)</script>", "b & <b>c</b>")


def swept(count: int = 240, seed: int = 1) -> pd.DataFrame:
    """Every third row does not fit, every seventh is refused, every eleventh has no latency."""
    random, number = np.random.default_rng(seed), np.arange(count)
    refused, unfit = number % 7 == 6, number % 3 == 2
    # Few different values, so that many rows are equal in a figure.
    values = {
        "ttft_s": random.integers(1, 60, count) / 100, "tpot_s": random.integers(1, 40, count) / 1000,
        "request_latency_s": np.where(number % 11 == 0, np.nan, random.random(count) * 9),
        "tokens_per_s_per_device": random.integers(1, 90, count) * 10.0,
        "tokens_per_s_per_user": random.integers(1, 70, count) * 1.0,
    }  # fmt: skip
    figures = {name: np.where(refused, np.nan, column) for name, column in values.items()}
    total = pd.array(random.integers(1, 80, count) * 2**30 + 12345, dtype="Int64")
    total[refused] = pd.NA
    fits = pd.arrays.BooleanArray(~unfit, refused.copy())
    return pd.DataFrame(
        {
            "model": pd.Categorical([MODELS[n] for n in number % 2]),
            "hw": pd.Categorical(np.where(number % 4 < 2, "h100-sxm", "own, \"odd\".yaml")),
            "tp": pd.array(2 ** (number // 3 % 3), dtype="Int64"),
            "quant": pd.Categorical(["auto"] * count),
            "batch": pd.array(2 ** (number % 5), dtype="Int64"),
            **figures,
            "total_bytes": total,
            "fits": fits,
            "reason": pd.Categorical(np.where(refused, "--tp 3: <img src=x onerror=alert(2)>, 8 heads", "")),
        }
    )  # fmt: skip


def dominated(rows: pd.DataFrame, x: str, y: str, more: tuple[bool, bool]) -> np.ndarray:
    """Of each row, whether another is at least as good in both figures and better in one: by the definition."""
    one, other = (rows[n].to_numpy(dtype=float) * (1 if m else -1) for n, m in zip((x, y), more, strict=True))
    better = (one[:, None] > one) | (other[:, None] > other)
    as_good = (one[:, None] >= one) & (other[:, None] >= other)
    return (better & as_good).any(axis=0)
