"""What a device's communication library needs for one collective: the parameters of a fitted curve.

The curves themselves are in `tensorcast.cost.collective`. W is the bytes one device sends, `link` its bandwidth into
the group (B/s), n the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorcast.errors import HardwareError
from tensorcast.hardware.checks import count, number

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "dispatch", "combine")


@dataclass(frozen=True)
class TwoProtocols:
    """A low-latency and a high-bandwidth protocol, the faster one taken smoothly, plus a ramp between them.

    base = t0 + hop (n-1);  LL = base + W/(e1 link);  SI = base + a2 + W/(e2 link);
    T = (LL^-4 + SI^-4)^(-1/4) + w sqrt(W/link base). Seconds; e1, e2 are shares of the link, w has no unit.
    """

    t0: float
    hop: float
    e1: float
    a2: float
    e2: float
    w: float
    provenance: str = ""
    kind: str = "calibrated"

    def __post_init__(self) -> None:
        for name in ("t0", "hop", "a2", "w"):
            number(getattr(self, name), name, zero=True)
        for name in ("e1", "e2"):
            number(getattr(self, name), name, at_most=1)


@dataclass(frozen=True)
class Floor:
    """T = t0 + W/(efficiency link): one kernel that does nothing else."""

    t0: float
    efficiency: float
    provenance: str = ""
    kind: str = "calibrated"

    def __post_init__(self) -> None:
        number(self.t0, "t0", zero=True)
        number(self.efficiency, "efficiency", at_most=1)


@dataclass(frozen=True)
class RankRow:
    """One curve for one number of ranks, in absolute figures.

    Up to `switch` bytes of full buffer: (floor^norm + (W/bandwidth)^norm)^(1/norm). Above, where another protocol takes
    over, max(plateau, alpha + W/peak). Seconds and B/s; `switch` None = the first curve holds everywhere.
    """

    ranks: int
    floor: float
    bandwidth: float
    norm: float = 1.0
    switch: float | None = None
    plateau: float = 0.0
    alpha: float = 0.0
    peak: float | None = None

    def __post_init__(self) -> None:
        if count(self.ranks, "ranks") < 2:
            raise HardwareError(f"ranks must be at least 2, not {self.ranks}")
        number(self.floor, "floor", zero=True)
        number(self.bandwidth, "bandwidth")
        if number(self.norm, "norm") < 1:
            raise HardwareError(f"norm must be at least 1, not {self.norm!r}")
        if (self.switch is None) != (self.peak is None):
            raise HardwareError("switch and peak go together")
        if self.switch is not None:
            number(self.switch, "switch")
            number(self.peak, "peak")
            number(self.plateau, "plateau", zero=True)
            number(self.alpha, "alpha", zero=True)

    def scaled(self, factor: float) -> RankRow:
        """The row of a device whose links are `factor` times as fast, with the same latencies."""
        return replace(self, bandwidth=self.bandwidth * factor, peak=self.peak and self.peak * factor)


@dataclass(frozen=True)
class RankTable:
    """Curves by number of ranks, in rising order.

    Between two measured counts the time is interpolated (log time over log ranks); beyond the last its curve holds.
    """

    rows: tuple[RankRow, ...]
    provenance: str = ""
    kind: str = "calibrated"

    def __post_init__(self) -> None:
        ranks = [row.ranks for row in self.rows]
        if not ranks or ranks != sorted(set(ranks)):
            raise HardwareError(f"rows must have rising ranks, not {ranks}")


Protocol = TwoProtocols | Floor | RankTable
