"""How far predictions lie from measurements."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Score:
    """Absolute errors |predicted/measured - 1| in percent, and bias = 100 · mean(log(predicted/measured))."""

    rows: int
    median: float
    mean: float
    p90: float
    bias: float

    @classmethod
    def of(cls, predicted, measured) -> Score:
        return cls.of_ratios(np.asarray(predicted, dtype=float) / np.asarray(measured, dtype=float))

    @classmethod
    def of_ratios(cls, ratios) -> Score:
        """Of predicted / measured; at least one."""
        ratio = np.asarray(ratios, dtype=float)
        error = 100 * np.abs(ratio - 1)
        return cls(
            len(ratio),
            float(np.median(error)),
            float(np.mean(error)),
            float(np.quantile(error, 0.9)),
            float(100 * np.mean(np.log(ratio))),
        )

    def to_dict(self) -> dict:
        return asdict(self)
