"""What a device's communication library needs for one collective: the parameters of a fitted curve.

The curves themselves are in `tensorcast.cost.collective`. W is the bytes one device sends, `link` its bandwidth into
the group (B/s), n the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorcast.errors import HardwareError
from tensorcast.hardware.checks import count, number

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "dispatch", "combine")
MOST_RANKS = 8  # beyond which nothing was measured inside one fabric: the shares of the link stay as they are


@dataclass(frozen=True)
class TwoProtocols:
    """A low-latency and a high-bandwidth protocol, the faster one taken smoothly, plus a ramp between them.

    base = (t0 + hop (n-1)) (1 + step b/(b+at)),  b bytes of full buffer:  more channels cost a little to start
    LL = base + W/(e1 g^low link) ;  SI = base + a2 g^late + W/(e2 g^high link) ,  g = min(n, MOST_RANKS)/2
    T = (LL^-3 + SI^-3)^(-1/3) + w sqrt(W/link base)

    Seconds; e1, e2 are shares of the link for two ranks; step, w, low, late and high have no unit.
    """

    t0: float
    hop: float
    e1: float
    a2: float
    e2: float
    w: float
    step: float = 0.0
    at: float = 1.0
    low: float = 0.0
    late: float = 0.0
    high: float = 0.0
    provenance: str = ""
    kind: str = "calibrated"

    def __post_init__(self) -> None:
        for name in ("t0", "hop", "a2", "w", "step"):
            number(getattr(self, name), name, zero=True)
        number(self.at, "at")
        for name in ("e1", "e2"):
            number(getattr(self, name), name, at_most=1)
        for name in ("low", "late", "high"):
            number(abs(getattr(self, name)), name, zero=True, at_most=3)


@dataclass(frozen=True)
class Shots:
    """An all_reduce kernel of an inference engine: ranks read each other's buffers, at once or in two steps.

    one = base + (n-1) b/(e1 g^low link) ;  two = base + a2 + W/(e2 g^high link) ,  base = t0 + hop (n-1), g = n/2
    T = (((one^-9 + two^-9)^(-1/9) + w sqrt(W/link base))^3 + host^3)^(1/3)     up to `limits` bytes
    T = beyond · (the device's default all_reduce)                              above, where the engine hands over to it

    limits: (ranks, bytes), rising; a number of ranks between two rows has the smaller one's, one beyond the last has
    none of the kernel. host: seconds the host needs, 0 in a captured graph. beyond: how much longer the handed-over
    call takes than in the library's own benchmark.
    """

    t0: float
    hop: float
    e1: float
    a2: float
    e2: float
    w: float
    limits: tuple[tuple[int, float], ...]
    low: float = 0.0
    high: float = 0.0
    host: float = 0.0
    beyond: float = 1.0
    provenance: str = ""
    kind: str = "calibrated"

    def __post_init__(self) -> None:
        for name in ("t0", "hop", "a2", "w", "host"):
            number(getattr(self, name), name, zero=True)
        for name in ("e1", "e2"):
            number(getattr(self, name), name, at_most=1)
        for name in ("low", "high"):
            number(abs(getattr(self, name)), name, zero=True, at_most=3)
        number(self.beyond, "beyond")
        if not isinstance(self.limits, (list, tuple)) or not all(
            isinstance(row, (list, tuple)) and len(row) == 2 for row in self.limits
        ):
            raise HardwareError(f"limits must be pairs of ranks and bytes, not {self.limits!r}")
        rows = tuple((count(n, "limits: ranks"), number(b, "limits: bytes", zero=True)) for n, b in self.limits)
        if not rows or [n for n, _ in rows] != sorted({n for n, _ in rows}):
            raise HardwareError(f"limits must have rising ranks, not {self.limits!r}")
        object.__setattr__(self, "limits", rows)

    def limit(self, ranks: int) -> float:
        """Most bytes the kernel itself works on."""
        known = [nbytes for n, nbytes in self.limits if n <= ranks]
        return known[-1] if known and ranks <= self.limits[-1][0] else 0.0


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


Protocol = TwoProtocols | Shots | Floor | RankTable
