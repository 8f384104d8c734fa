"""What is best, and what is allowed: limits and objectives of a search, on columns of figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorcast.errors import InputError

OBJECTIVES = ("throughput", "cost", "energy")
TTFT, TPOT, MEMORY = "TTFT", "TPOT", "memory"


@dataclass(frozen=True)
class Limits:
    """What is asked; None: nothing. Seconds; `headroom`: the share of the memory that must stay free."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    headroom: float = 0.0

    def __post_init__(self) -> None:
        for flag, value in (("--ttft", self.ttft_s), ("--tpot", self.tpot_s)):
            if value is not None and not (_number(value) and 0 < value < float("inf")):
                raise InputError(f"{flag} {value!r}: seconds above 0, such as 2s, 50ms or 0.05")
        if not (_number(self.headroom) and 0 <= self.headroom < 1):
            raise InputError(f"--memory-headroom {self.headroom!r}: a share of the memory from 0 to below 1, or 10%")

    def to_dict(self) -> dict[str, float | None]:
        return {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "memory_headroom": self.headroom}

    def excess(self, figures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """By how much each limit is missed, as a share of it; 0 or less where it is met."""
        room = figures["capacity_bytes"] * (1 - self.headroom)
        found = {MEMORY: figures["total_bytes"] / room - 1}
        for name, key, limit in ((TTFT, "ttft_s", self.ttft_s), (TPOT, "tpot_s", self.tpot_s)):
            if limit is not None:
                found[name] = figures[key] / limit - 1
        return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Objective:
    """Output tokens a second and device, or what a token costs.

    cost: in the currency of `price_per_hour` (of one device), for a million output tokens. energy: joules a token, at
    the power that the machine's profile states for a device.
    """

    name: str = "throughput"
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OBJECTIVES:
            raise InputError(f"--objective {self.name!r}: one of {', '.join(OBJECTIVES)}")
        price = self.price_per_hour
        if price is not None and not (_number(price) and 0 < price < float("inf")):
            raise InputError(f"--price {price!r}: what a device costs an hour, above 0")

    def weight(self, hw) -> float:
        """What a token a second and device is worth on a machine: more is better. InputError: its profile lacks it."""
        if self.name == "throughput":
            return 1.0
        if self.name == "energy":
            if not hw.tdp_w:
                raise InputError(f"--objective energy: the profile of {hw.name} has no chip.tdp_w; state it there")
            return 1 / hw.tdp_w
        price = self.price_per_hour or hw.price_per_hour
        if not price:
            raise InputError(f"--objective cost: the profile of {hw.name} has no price; give --price, of a device-hour")
        return 3600 / price / 1e6

    def figures(self, hw) -> dict[str, float]:
        """Factors of 1 / (tokens a second and device) that give costs: of those figures the machine has."""
        price = self.price_per_hour or hw.price_per_hour
        found = {"cost_per_million_tokens": price / 3600 * 1e6} if price else {}
        return found | ({"joules_per_token": hw.tdp_w} if hw.tdp_w else {})
