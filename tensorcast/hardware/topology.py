"""How devices are wired: tiers, innermost first, and how a group of ranks spreads over them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from tensorcast.errors import DeploymentError, HardwareError
from tensorcast.hardware.checks import count, number, one_of, text

KINDS = ("full_mesh", "switch", "ring")


@dataclass(frozen=True)
class Tier:
    """One level of the network.

    devices: devices reachable inside this tier, those of inner tiers included.
    bandwidth: B/s, one direction, that one device can send into this tier when it uses all its links.
    kind: full_mesh = a link of its own to each of `links` peers, so a group of n ranks uses n-1 of them; switch = the
        whole bandwidth towards any peer; ring = the whole bandwidth along the ring.
    latency_s: seconds one message takes for no bytes.
    efficiency: share of `bandwidth` a large transfer reaches (used where no curve was fitted).
    fabric: name that adjoining tiers share when the communication library treats them as one flat network.
    shared: the tier's ports are those of the next inner tier (the same cable, a longer way).
    """

    name: str
    kind: str
    devices: int
    bandwidth: float
    latency_s: float = 0.0
    efficiency: float = 1.0
    links: int = 0
    fabric: str = ""
    shared: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        text(self.name, "tier name")
        one_of(self.kind, KINDS, f"tier {self.name}: kind")
        if count(self.devices, f"tier {self.name}: devices") < 2:
            raise HardwareError(f"tier {self.name}: devices must be at least 2")
        number(self.bandwidth, f"tier {self.name}: bandwidth")
        number(self.latency_s, f"tier {self.name}: latency_s", zero=True)
        number(self.efficiency, f"tier {self.name}: efficiency", at_most=1)
        if not isinstance(self.shared, bool):
            raise HardwareError(f"tier {self.name}: shared must be true or false, not {self.shared!r}")
        if self.kind == "full_mesh":
            count(self.links, f"tier {self.name}: links")
        if not self.fabric:
            object.__setattr__(self, "fabric", self.name)

    def egress(self, ranks: int) -> float:
        """B/s one device can send to the other `ranks` - 1 of a group inside this tier."""
        if self.kind == "full_mesh":
            return self.bandwidth * min(ranks - 1, self.links) / self.links
        return self.bandwidth

    @property
    def to_one_peer(self) -> float:
        """B/s between two devices."""
        return self.egress(2)


@dataclass(frozen=True)
class Topology:
    """Tiers, innermost first."""

    tiers: tuple[Tier, ...]

    def __post_init__(self) -> None:
        if not self.tiers:
            raise HardwareError("topology needs at least one tier")
        for inner, outer in pairwise(self.tiers):
            if outer.devices <= inner.devices or outer.devices % inner.devices:
                raise HardwareError(
                    f"tier {outer.name}: devices ({outer.devices}) must be a multiple of those of {inner.name} "
                    f"({inner.devices}), counting the devices of inner tiers too"
                )

    @property
    def devices(self) -> int:
        """Most devices this topology connects."""
        return self.tiers[-1].devices

    def validate(self, devices: int) -> None:
        """DeploymentError unless that many devices exist."""
        if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
            raise DeploymentError(f"number of devices must be a whole number of at least 1, not {devices!r}")
        if devices > self.devices:
            sizes = ", ".join(f"{t.name} {t.devices}" for t in self.tiers)
            raise DeploymentError(f"{devices} devices asked for, the machine connects at most {self.devices} ({sizes})")

    def split(self, size: int, stride: int = 1) -> list[tuple[Tier, int]]:
        """How `size` ranks, neighbours `stride` devices apart, spread over the tiers: (tier, ranks), innermost first.

        The product of the ranks is `size`, save for a group that does not fill its last units evenly, where the largest
        unit counts and the product is rounded up. Tiers that only one rank of a unit uses are left out.
        """
        for name, value in (("size", size), ("stride", stride)):
            if isinstance(value, bool) or value != int(value) or value < 1:
                raise DeploymentError(f"group {name} must be a whole number of at least 1, not {value!r}")
        self.validate(int((size - 1) * stride + 1))
        parts: list[tuple[Tier, int]] = []
        inside = 1  # ranks of the group inside one unit of the tiers seen so far
        for tier in self.tiers:
            reach = min(size, -(-tier.devices // stride))
            across = -(-reach // inside)
            if across > 1:
                parts.append((tier, across))
                inside *= across
            if inside >= size:
                break
        return parts
