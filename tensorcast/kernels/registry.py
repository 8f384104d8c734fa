"""KernelSpec, the registry, and the slots that kernels fill.

A slot belongs to one module of one model. Which kernel fills it is decided once, while the model is deployed; the first
of these that speaks wins: the request (`--kernel`), the model's profile, the hardware profile, the op's own default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from tensorcast.catalog import Catalog, Entry
from tensorcast.errors import KernelError, near_names


@dataclass(frozen=True)
class HardwareRequirement:
    """What the simulated machine must be. Capability bounds are NVIDIA's, inclusive, and only read for a GPU."""

    device_type: Literal["any", "npu", "gpu"] = "any"
    min_compute_capability: int | None = None
    max_compute_capability: int | None = None
    features: frozenset[str] = frozenset()

    def unmet(self, hw: Any) -> str | None:
        """Why `hw` does not satisfy this, or None."""
        if self.device_type != "any" and hw.kind != self.device_type:
            return f"needs {self.device_type}, {hw.name} is {hw.kind}"
        if hw.kind == "gpu" and (self.min_compute_capability or self.max_compute_capability):
            have = hw.compute_capability
            if have is None:
                return f"needs a compute capability, {hw.name} states none"
            if self.min_compute_capability and have < self.min_compute_capability:
                return f"needs compute capability {self.min_compute_capability}, {hw.name} has {have}"
            if self.max_compute_capability and have > self.max_compute_capability:
                return f"needs compute capability at most {self.max_compute_capability}, {hw.name} has {have}"
        missing = self.features - hw.features
        return f"needs {', '.join(sorted(missing))}" if missing else None

    def __str__(self) -> str:
        parts = [self.device_type] if self.device_type != "any" else []
        if self.min_compute_capability:
            parts.append(f"cc>={self.min_compute_capability}")
        if self.max_compute_capability:
            parts.append(f"cc<={self.max_compute_capability}")
        return " ".join(parts + sorted(self.features)) or "any"


@dataclass(frozen=True)
class KernelSpec:
    """One implementation of one op."""

    name: str  # unique within (op_name, variant)
    op_name: str  # attention, mla, moe_experts, rms_norm, rotary, swiglu …
    factory: Callable[[], Callable]  # called when chosen; its result has the op's documented signature, works on meta
    variant: str = "standard"  # same variant = mathematically interchangeable
    hardware: HardwareRequirement = HardwareRequirement()
    coefficients: str = ""  # kernel whose figures price it; "" = the machine's default ones of the family
    description: str = ""
    default: bool = False  # fills the slot when nobody asks for another

    def __post_init__(self) -> None:
        for name in ("name", "op_name", "variant"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise KernelError(f"kernel spec: {name} must be a non-empty string, not {value!r}")
        if not callable(self.factory):
            raise KernelError(f"kernel {self.name!r}: factory must be callable")

    @property
    def key(self) -> str:
        return f"{self.op_name}/{self.variant}={self.name}"


@dataclass(frozen=True)
class OpSlot:
    """The choice made for one op of one module; frozen once the model is deployed."""

    op: str
    path: str
    name: str
    source: Literal["asked", "profile", "hardware", "default"]
    kernel: Callable = field(compare=False, repr=False)
    variant: str = "standard"


class KernelRegistry:
    """All kernels, by op, variant and name."""

    def __init__(self) -> None:
        self._catalog: Catalog[KernelSpec] = Catalog("kernel")

    def register(self, spec: KernelSpec, *, replace: bool = False) -> KernelSpec:
        return self._catalog.register(spec.key, spec, replace=replace)

    def entries(self) -> list[Entry[KernelSpec]]:
        return self._catalog.entries()

    def specs(self, op: str | None = None) -> list[KernelSpec]:
        return [e.value for e in self._catalog.entries() if op is None or e.value.op_name == op]

    def resolve(self, op: str, name: str, hw: Any, *, variant: str = "standard", origin: str = "") -> KernelSpec:
        """The spec called `name` for `op`, usable on `hw` (None = any machine); KernelError otherwise."""
        where = f" ({origin})" if origin else ""
        specs = self.specs(op)
        if not specs:
            ops = sorted({s.op_name for s in self.specs()})
            raise KernelError(f"unknown op {op!r}{where}{_nearest(op, ops)}; ops with kernels: {', '.join(ops)}")
        variants = sorted({s.variant for s in specs})
        if variant not in variants:
            raise KernelError(f"{op} has no variant {variant!r}{where}; it has {', '.join(variants)}")
        names = {s.name: s for s in specs if s.variant == variant}
        if name not in names:
            raise KernelError(f"{op} has no kernel {name!r}{where}{_nearest(name, names)}; it has {', '.join(names)}")
        spec = names[name]
        reason = spec.hardware.unmet(hw) if hw is not None else None
        if reason:
            usable = [s.name for s in names.values() if s.hardware.unmet(hw) is None]
            raise KernelError(f"{op} kernel {name!r} {reason}{where}; usable there: {', '.join(usable) or 'none'}")
        return spec

    def default(self, op: str) -> str:
        """Name of the kernel that fills a slot nobody speaks for."""
        return next(s.name for s in self.specs(op) if s.default)

    def list(self, hw: Any = None) -> list[dict]:
        rows = []
        for entry in self._catalog.entries():
            spec = entry.value
            reason = spec.hardware.unmet(hw) if hw is not None else None
            rows.append(
                {
                    "op": spec.op_name,
                    "variant": spec.variant,
                    "name": spec.name,
                    "needs": str(spec.hardware),
                    "priced_as": spec.coefficients,
                    "default": spec.default,
                    "available": reason is None,
                    "reason": reason or "",
                    "description": spec.description,
                    "origin": entry.origin,
                }
            )
        return rows


KERNELS = KernelRegistry()


@dataclass(frozen=True)
class KernelRequest:
    """One `--kernel OP[/VARIANT][@GLOB]=NAME`."""

    op: str
    name: str
    variant: str | None = None
    glob: str = "*"

    @classmethod
    def parse(cls, text: str) -> KernelRequest:
        left, sep, name = text.partition("=")
        if not sep or not left or not name:
            raise KernelError(f"--kernel {text!r}: expected OP[/VARIANT][@GLOB]=NAME, as in attention=flash")
        left, _, glob = left.partition("@")
        op, _, variant = left.partition("/")
        return cls(op=op, name=name, variant=variant or None, glob=glob or "*")

    def matches(self, op: str, path: str) -> bool:
        return self.op == op and fnmatchcase(path, self.glob)


class KernelChoice:
    """Chooses for every slot of one model and remembers which requests were met."""

    def __init__(self, requests: list[KernelRequest], hw: Any, profile: Mapping[str, str] | None = None) -> None:
        self.requests, self.hw, self.profile = requests, hw, dict(profile or {})
        self.met: set[KernelRequest] = set()
        self.slots: list[OpSlot] = []
        self._built: dict[str, Callable] = {}
        for request in requests:
            KERNELS.resolve(request.op, request.name, hw, variant=request.variant or "standard", origin="asked")

    def fill(self, op: str, path: str) -> OpSlot:
        """Bind the slot `op` of module `path`."""
        asked = [r for r in self.requests if r.matches(op, path)]
        if asked:
            request = max(asked, key=lambda r: sum(c not in "*?[]" for c in r.glob))
            self.met.update(asked)
            name, source, variant = request.name, "asked", request.variant or "standard"
        elif op in self.profile:
            name, source, variant = self.profile[op], "profile", "standard"
        elif self.hw is not None and op in self.hw.kernels:
            name, source, variant = self.hw.kernels[op], "hardware", "standard"
        else:
            name, source, variant = KERNELS.default(op), "default", "standard"
        spec = KERNELS.resolve(op, name, self.hw, variant=variant, origin=source)
        slot = OpSlot(op, path, name, source, self._build(spec), variant)
        self.slots.append(slot)
        return slot

    def _build(self, spec: KernelSpec) -> Callable:
        if spec.key not in self._built:
            try:
                self._built[spec.key] = spec.factory()
            except Exception as cause:
                raise KernelError(f"kernel {spec.name!r} for {spec.op_name} failed to load: {cause}") from cause
        return self._built[spec.key]

    def check(self, model_name: str) -> None:
        """Every request must have met a slot."""
        for request in self.requests:
            if request not in self.met:
                have = sorted({s.op for s in self.slots})
                where = "" if request.glob == "*" else f" matching {request.glob!r}"
                raise KernelError(f"{model_name} has no {request.op} slot{where}; slots: {', '.join(have)}")

    def summary(self) -> list[dict]:
        """One dict per (op, kernel, source): how many slots it fills."""
        rows: dict[tuple, int] = {}
        for slot in self.slots:
            key = (slot.op, slot.variant, slot.name, slot.source)
            rows[key] = rows.get(key, 0) + 1
        return [dict(zip(("op", "variant", "name", "source"), k, strict=True), slots=n) for k, n in rows.items()]


def _nearest(name: str, known: Any) -> str:
    near = near_names(name, known, 1)
    return f"; nearest: {near[0]}" if near else ""
