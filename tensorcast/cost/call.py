"""What a cost formula is asked: one kernel call, or as many as its arrays have elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tensorcast.ops.base import Work


@dataclass(frozen=True)
class Call:
    """Calls of one kernel, in one format, on arrays of one shape.

    work: FLOP and bytes with cold operands, the physical bound of the call. sizes: what the formula wants to know
    beyond that (each family's file says which). math: format of the matrix engine, "" for none; vector: format of the
    vector units. loop_bytes: bytes touched before the same operands are read again, as a benchmark loop does; None for
    real inference, where they are found cold.
    """

    work: Work
    sizes: Mapping[str, Any] = field(default_factory=dict)
    math: str = ""
    vector: str = "fp32"
    loop_bytes: Any = None

    def hit(self, hw, sharpness: Literal[3, 4] = 4) -> Any:
        """Weight of the last-level cache, 0 (cold) to 1: h = 1 / (1 + r^sharpness), r = loop bytes / cache bytes."""
        if self.loop_bytes is None or not hw.l2_bytes:
            return 0.0
        h = np.asarray(self.loop_bytes, dtype=float) / hw.l2_bytes
        ratio = h.copy() if sharpness == 3 else None
        h *= h
        h *= h if ratio is None else ratio
        h += 1.0
        return np.divide(1.0, h, out=h) if h.ndim else 1.0 / h

    def floor(self, hw) -> np.ndarray:
        """Seconds below which no implementation gets: FLOP over the dense peak, bytes not in the cache over the
        bandwidth of the memory."""
        memory = np.asarray(self.work.read_bytes + self.work.write_bytes, dtype=float) / hw.memory_bw
        if self.loop_bytes is not None:
            memory = memory * (1 - self.hit(hw))
        return np.maximum(memory, self.work.matrix_flops / hw.peak(self.math)) if self.math else np.asarray(memory)


def soft_max(*seconds) -> np.ndarray:
    """(Σ xᵢ³)^(1/3): the slowest of several resources that work side by side, rounded where two are equal."""
    return np.cbrt(sum(x * x * x for x in seconds))
