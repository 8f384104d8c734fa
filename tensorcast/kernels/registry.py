"""KernelSpec and the registry of all kernels; what a kernel must find on the machine and in the model.

Every op has a kernel `eager`, registered or not: the model's own code, one kernel an operation. Attention, latent
attention and experts have a reference of ours under that name, because their models' code cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tensorcast.catalog import Catalog, Entry
from tensorcast.errors import DuplicateError, KernelError, near_names

EAGER = "eager"
DeviceType = Literal["any", "npu", "gpu"]
_SPECIAL = frozenset("=@/*?[] ")  # characters with a meaning in OP[/VARIANT][@GLOB]=NAME


@dataclass(frozen=True)
class HardwareRequirement:
    """What the simulated machine must be. Capability bounds are NVIDIA's, inclusive, and only read for a GPU."""

    device_type: DeviceType = "any"
    min_compute_capability: int | None = None
    max_compute_capability: int | None = None
    features: frozenset[str] = frozenset()  # all of them among the machine's, such as fp8

    def __post_init__(self) -> None:
        if self.device_type not in get_args(DeviceType):
            raise KernelError(f"device_type {self.device_type!r}: one of {', '.join(get_args(DeviceType))}")
        for name in ("min_compute_capability", "max_compute_capability"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise KernelError(f"{name} {value!r}: a number such as 90, or None")
        names = isinstance(self.features, (set, frozenset, list, tuple)) and all(
            isinstance(f, str) for f in self.features
        )
        if not names:
            raise KernelError(f"features {self.features!r}: a set of names such as {{'fp8'}}")
        object.__setattr__(self, "features", frozenset(self.features))

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
        return f"needs {', '.join(sorted(missing))}, {hw.name} has no such feature" if missing else None

    def __str__(self) -> str:
        parts = [self.device_type] if self.device_type != "any" else []
        if self.min_compute_capability:
            parts.append(f"cc>={self.min_compute_capability}")
        if self.max_compute_capability:
            parts.append(f"cc<={self.max_compute_capability}")
        return " ".join(parts + sorted(self.features)) or "any"


ANY = HardwareRequirement()


@dataclass(frozen=True)
class KernelSpec:
    """One implementation of one op."""

    name: str  # unique within (op_name, variant)
    op_name: str  # attention, mla, moe_experts, rms_norm, rotary, swiglu …
    factory: Callable[[], Callable | None]  # called when chosen; its result has the op's signature and works on meta
    variant: str = "standard"  # same variant = mathematically interchangeable
    hardware: HardwareRequirement = ANY  # what the simulated machine must be
    coefficients: str = ""  # kernel whose figures price it; "" = the machine's default ones of the family
    description: str = ""  # one line for `tensorcast list kernels`
    default: bool = False  # fills the slot when nobody asks for another
    requires: Callable[[Any], str | None] | None = None  # deployed model → why it cannot use this kernel, None = it can

    def __post_init__(self) -> None:
        for name in ("name", "op_name", "variant"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise KernelError(f"kernel spec: {name} must be a non-empty string, not {value!r}")
            if used := _SPECIAL & set(value):
                raise KernelError(f"kernel spec: {name} {value!r} must not have {' '.join(map(repr, sorted(used)))}")
        for name, optional in (("factory", False), ("requires", True)):
            value = getattr(self, name)
            if not callable(value) and not (optional and value is None):
                raise KernelError(f"kernel {self.name!r}: {name} must be callable, not {value!r}")
        if not isinstance(self.hardware, HardwareRequirement):
            raise KernelError(f"kernel {self.name!r}: hardware must be a HardwareRequirement, not {self.hardware!r}")

    @property
    def key(self) -> str:
        return f"{self.op_name}/{self.variant}={self.name}"


_OWN_CODE = KernelSpec(EAGER, "any", lambda: None, description="the model's own code, one kernel an operation")


class KernelRegistry:
    """All kernels, by op, variant and name."""

    def __init__(self) -> None:
        self._catalog: Catalog[KernelSpec] = Catalog("kernel")

    def register(self, spec: KernelSpec, *, replace: bool = False) -> KernelSpec:
        """Add a kernel. DuplicateError for a name that is taken, and for a second default of one op and variant."""
        if not isinstance(spec, KernelSpec):
            raise KernelError(f"register takes a KernelSpec, not {spec!r:.80}")
        if spec.default:
            others = [s.name for s in self.named(spec.op_name, spec.variant).values() if s.default]
            if others and others != [spec.name]:
                raise DuplicateError(
                    f"kernel {spec.key!r} cannot be the default: {others[0]!r} is; leave `default` out and choose it "
                    f"with --kernel {spec.op_name}={spec.name}"
                )
        return self._catalog.register(spec.key, spec, replace=replace)

    def entries(self) -> list[Entry[KernelSpec]]:
        return self._catalog.entries()

    def ops(self) -> list[str]:
        return sorted({e.value.op_name for e in self.entries()})

    def variants(self, op: str) -> list[str]:
        return sorted({e.value.variant for e in self.entries() if e.value.op_name == op})

    def named(self, op: str, variant: str | None) -> dict[str, KernelSpec]:
        """The kernels of an op by name, `eager` first; variant None = of any variant."""
        specs = [e.value for e in self.entries() if e.value.op_name == op and variant in (None, e.value.variant)]
        found = {s.name: s for s in specs}
        own = replace(_OWN_CODE, op_name=op, variant=variant or "standard")
        return {EAGER: found.pop(EAGER, own), **found}

    def find(self, op: str, variant: str | None, name: str, hw: Any = None, *, origin: str = "") -> KernelSpec:
        """The spec of that name, usable on `hw` (None = any machine); KernelError otherwise.

        Checked in this order: op, variant (None = any), name, machine. `origin` says who asked, for the message.
        """
        told = f"{origin}: " if origin else ""
        ops, variants = self.ops(), self.variants(op)
        if op not in ops:
            raise KernelError(f"{told}unknown op {op!r}{_nearest(op, ops)}; ops with kernels: {', '.join(ops)}")
        if variant is not None and variant not in variants:
            raise KernelError(f"{told}{op} has no variant {variant!r}; it has {', '.join(variants)}")
        named, what = self.named(op, variant), op if variant in (None, "standard") else f"{op}/{variant}"
        if name not in named:
            elsewhere = [v for v in variants if name in self.named(op, v)]
            only = f", which is for variant {', '.join(elsewhere)}" if elsewhere else ""
            near = _nearest(name, named)
            raise KernelError(f"{told}{what} has no kernel {name!r}{only}{near}; {_available(named, hw)}")
        spec = named[name]
        reason = spec.hardware.unmet(hw) if hw is not None else None
        if reason:
            usable = [s.name for s in named.values() if s.hardware.unmet(hw) is None]
            near = _nearest(name, usable)
            raise KernelError(f"{told}{what} kernel {name!r} {reason}{near}; {_available(named, hw)}")
        return spec

    def build(self, spec: KernelSpec) -> Callable | None:
        """Run the factory: the kernel, or None for the model's own code. KernelError naming the cause."""
        what = f"{spec.op_name} kernel {spec.name!r}{self._at(spec)}"
        try:
            kernel = spec.factory()
        except Exception as cause:
            why = " ".join(str(cause).split()) or type(cause).__name__
            raise KernelError(f"{what} failed to load: {why}") from cause
        reference = self._entry(self.named(spec.op_name, spec.variant)[EAGER]) is not None
        if not callable(kernel) and (kernel is not None or reference):
            needs = "a function" if reference else "a function, or None for the model's own code"
            raise KernelError(f"{what}: its factory must return {needs}, not {kernel!r}")
        return kernel

    def origin(self, spec: KernelSpec) -> str:
        """Where a spec was registered: "builtin", or a file and line."""
        entry = self._entry(spec)
        return entry.origin if entry is not None else "builtin"

    def resolve(self, op: str, variant: str, name: str, hw: Any = None) -> Callable | None:
        """The kernel itself, None for the model's own code: `find`, then `build`."""
        return self.build(self.find(op, variant, name, hw))

    def default(self, op: str, variant: str = "standard") -> str:
        """Name of the kernel that fills a slot nobody speaks for."""
        return next((s.name for s in self.named(op, variant).values() if s.default), EAGER)

    def list(self, hw: Any = None, op: str | None = None, variant: str | None = None) -> list[dict]:
        """One dict per kernel, `eager` included; on `hw`, which of them run there and why the rest do not."""
        rows = []
        for name in self.ops():
            for form in self.variants(name):
                if op in (None, name) and variant in (None, form):
                    rows += [self._row(spec, hw) for spec in self.named(name, form).values()]
        return rows

    def _row(self, spec: KernelSpec, hw: Any) -> dict:
        reason, entry = spec.hardware.unmet(hw) if hw is not None else None, self._entry(spec)
        return {
            "op": spec.op_name,
            "variant": spec.variant,
            "name": spec.name,
            "needs": str(spec.hardware),
            "priced_as": spec.coefficients,
            "default": spec.name == self.default(spec.op_name, spec.variant),
            "available": reason is None,
            "reason": reason or "",
            "description": spec.description,
            "origin": self.origin(spec),
            "replaces": (entry.replaces or "") if entry is not None else "",
        }

    def _entry(self, spec: KernelSpec) -> Entry[KernelSpec] | None:
        return next((e for e in self.entries() if e.key == spec.key), None)

    def _at(self, spec: KernelSpec) -> str:
        origin = self.origin(spec)
        return f" ({origin})" if origin != "builtin" else ""


KERNELS = KernelRegistry()


def _available(named: dict[str, KernelSpec], hw: Any) -> str:
    """The names, those usable on the machine first."""
    if hw is None:
        return f"it has {', '.join(named)}"
    usable = [s.name for s in named.values() if s.hardware.unmet(hw) is None]
    others = [name for name in named if name not in usable]
    return f"usable on {hw.name}: {', '.join(usable)}" + (f"; not there: {', '.join(others)}" if others else "")


def _nearest(name: str, known: Any) -> str:
    near = near_names(name, known, 1)
    return f"; nearest: {near[0]}" if near else ""
