"""HardwareProfile: one device, the network it sits in, and how fast kernels run on it. SI units throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from tensorcast.errors import HardwareError
from tensorcast.formats import MATHS
from tensorcast.hardware.checks import count, number, one_of, text
from tensorcast.hardware.coefficient import FAMILIES, NEAR, Coefficient, choose
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.protocol import OPS, Protocol
from tensorcast.hardware.topology import Topology

KINDS = ("npu", "gpu")
STATUSES = ("specified", "measured", "assumed")


@dataclass(frozen=True)
class Source:
    """Where a figure comes from, and how far to trust it."""

    text: str
    status: str  # one of STATUSES

    def __post_init__(self) -> None:
        one_of(self.status, STATUSES, "status of a source")


@dataclass(frozen=True)
class HardwareProfile:
    """One device.

    peaks: math format -> dense FLOP/s of the matrix engine; a format that is absent does not exist on the device.
    vector: fp32 (and fp16) -> FLOP/s outside the matrix engine.
    memory_bytes, memory_bw: device memory, bytes and B/s. reserved_bytes: what the runtime keeps for itself.
    compute_capability: NVIDIA's (80, 90, 100 …), None elsewhere. features: formats of `peaks` plus engine names.
    host_op_time_s: seconds the host needs for one operator run eagerly. graph_launch_s: seconds for one captured graph.
    coefficients: family -> figures of this device, of a relative, then the universal set: first match counts.
    collective: op, or "op/library" -> fitted curve of the communication library. kernels: op -> default kernel.
    sources: dotted field ("memory.bytes") -> Source.
    """

    name: str
    kind: str
    vendor: str
    peaks: Mapping[str, float]
    vector: Mapping[str, float]
    memory_bytes: int
    memory_bw: float
    topology: Topology
    description: str = ""
    aliases: tuple[str, ...] = ()
    compute_capability: int | None = None
    features: frozenset[str] = frozenset()
    reserved_bytes: int = 0
    l2_bytes: int | None = None
    cores: int | None = None
    clock_hz: float | None = None
    tdp_w: float | None = None
    price_per_hour: float | None = None
    host_op_time_s: float = 0.0
    graph_launch_s: float = 0.0
    coefficients: Mapping[str, tuple[Coefficient, ...]] = field(default_factory=dict, repr=False)
    collective: Mapping[str, Protocol] = field(default_factory=dict, repr=False)
    kernels: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        text(self.name, "name")
        one_of(self.kind, KINDS, "kind")
        for fmt, rate in self.peaks.items():
            one_of(fmt, MATHS, "peaks: format")
            number(rate, f"peaks.{fmt}")
        if not {"bf16", "fp16"} & set(self.peaks):
            raise HardwareError("peaks needs bf16 or fp16")
        for fmt, rate in self.vector.items():
            one_of(fmt, ("fp32", "fp16"), "vector: format")
            number(rate, f"vector.{fmt}")
        if "fp32" not in self.vector:
            raise HardwareError("vector needs fp32")
        count(self.memory_bytes, "memory.bytes")
        number(self.memory_bw, "memory.bandwidth")
        number(self.reserved_bytes, "reserved.bytes", zero=True)
        if self.reserved_bytes >= self.memory_bytes:
            raise HardwareError(f"reserved.bytes ({self.reserved_bytes}) leaves nothing of memory.bytes")
        for name in ("l2_bytes", "cores", "compute_capability"):
            if getattr(self, name) is not None:
                count(getattr(self, name), name)
        for name in ("clock_hz", "tdp_w", "price_per_hour"):
            if getattr(self, name) is not None:
                number(getattr(self, name), name)
        number(self.host_op_time_s, "host.op_time_s", zero=True)
        number(self.graph_launch_s, "host.graph_launch_s", zero=True)
        for family in self.coefficients:
            one_of(family, FAMILIES, "coefficients: family")
        for op in self.collective:
            one_of(op.split("/")[0], OPS, "collective: op")
        object.__setattr__(self, "features", frozenset(self.features) | set(self.peaks))
        for name in ("peaks", "vector", "coefficients", "collective", "kernels", "sources"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self):  # read-only views cannot be pickled; worker processes need profiles
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _rebuild, ({k: dict(v) if isinstance(v, MappingProxyType) else v for k, v in values.items()},)

    def to_dict(self) -> dict[str, Any]:
        """The figures that an operator's time is bound by: FLOP/s, bytes, B/s, seconds."""
        tiers = ("name", "kind", "devices", "bandwidth", "latency_s")
        return {
            "description": self.description,
            "peak_flops": dict(self.peaks),
            "vector_flops": dict(self.vector),
            "memory_bytes": self.memory_bytes,
            "memory_bandwidth": self.memory_bw,
            "tiers": [{name: getattr(tier, name) for name in tiers} for tier in self.topology.tiers],
        }

    def has(self, math_format: str) -> bool:
        """Whether the matrix engine multiplies that format."""
        return math_format in self.peaks

    def peak(self, math_format: str) -> float:
        """Dense FLOP/s of the matrix engine in that format; HardwareError naming the formats it has."""
        if math_format not in self.peaks:
            raise HardwareError(f"{self.name} does not compute {math_format}; it has {', '.join(self.peaks)}")
        return self.peaks[math_format]

    def vector_peak(self, fmt: str = "fp32") -> float:
        """FLOP/s outside the matrix engine; fp16 where stated for 16-bit formats, the fp32 rate for all others."""
        return self.vector["fp16"] if fmt in ("fp16", "bf16") and "fp16" in self.vector else self.vector["fp32"]

    def coefficient(self, family: str, fmt: str = "any", kernel: str = "") -> Coefficient:
        """The figures for that kernel family, format and kernel; see `choose` for what stands in for a missing row."""
        one_of(family, FAMILIES, "kernel family")
        usable = tuple(row for row in self.coefficients.get(family, ()) if self.can_use(row))
        found = choose(usable, fmt, kernel)
        if found is None:
            raise HardwareError(f"{self.name} has no coefficients for {family} in {fmt}, nor has the universal set")
        return found

    def preferring(self, kernels: Sequence[str]) -> HardwareProfile:
        """The machine as software runs it that takes these kernels, earlier ones first, where they were measured."""

        def rank(row: Coefficient) -> int:
            return kernels.index(row.kernel) if row.kind in NEAR and row.kernel in kernels else len(kernels)

        return replace(self, coefficients={f: tuple(sorted(r, key=rank)) for f, r in self.coefficients.items()})

    def can_use(self, row: Coefficient) -> bool:
        """Whether the profile states the chip figures that the row's formula needs."""
        return all(getattr(self, name) for name in FORMULAS[row.formula].needs)

    def protocol(self, op: str, library: str = "") -> Protocol:
        """The collective's curve with that library ("" = the device's default one); HardwareError if there is none."""
        key = f"{op}/{library}" if library else op
        if key not in self.collective:
            raise HardwareError(f"{self.name} has no curve for {key}; it has {', '.join(sorted(self.collective))}")
        return self.collective[key]

    @property
    def usable_bytes(self) -> int:
        """Memory left for weights, cache and activations."""
        return self.memory_bytes - self.reserved_bytes


def _rebuild(values: dict) -> HardwareProfile:
    return HardwareProfile(**values)
