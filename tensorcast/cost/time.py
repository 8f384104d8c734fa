"""The seconds of an operator call and what bounds them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

BOUNDS = ("matrix", "vector", "memory", "communication", "overhead")


@dataclass(frozen=True)
class Time:
    """Seconds each resource needs; they work side by side, after the fixed overhead of a launch.

    `body`: the seconds after the overhead where a formula knows better than "as long as the slowest resource".
    `launches`: kernels that the host starts.
    """

    overhead: Any = 0.0
    matrix: Any = 0.0
    vector: Any = 0.0
    memory: Any = 0.0
    communication: Any = 0.0
    body: Any = None
    launches: Any = 1

    @property
    def seconds(self) -> np.ndarray:
        """overhead + body, or overhead + the slowest resource."""
        return np.asarray(self.overhead + (self._slowest() if self.body is None else self.body), dtype=float)

    def at_least(self, floor: Any) -> Time:
        """The same time, lifted to its physical bound where it lies below."""
        body = np.maximum(self.seconds, floor)
        body -= self.overhead
        return replace(self, body=body)

    def _slowest(self):
        return np.maximum(np.maximum(self.matrix, self.vector), np.maximum(self.memory, self.communication))

    @property
    def bound(self) -> np.ndarray:
        """Index into BOUNDS: the slowest resource, or overhead where that takes longer than any of them."""
        parts = np.broadcast_arrays(self.matrix, self.vector, self.memory, self.communication, self.overhead)
        return np.argmax(np.stack([np.asarray(p, dtype=float) for p in parts]), axis=0)
