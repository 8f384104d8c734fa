"""Which kernel fills which slot.

A slot belongs to one module of one model and is filled once, while the model is deployed. The first of these that
speaks decides: the request (`--kernel`), the configuration file, the model's profile, the machine's table, the op's own
default. Within one of them the most specific pattern of module paths counts. What a request or a configuration file
asks for is a demand: it must meet a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

from tensorcast.catalog import specificity
from tensorcast.errors import KernelError, TensorcastError
from tensorcast.kernels.registry import EAGER, KERNELS, KernelSpec

SOURCES = ("asked", "config", "profile", "hardware")  # in order of precedence; the op's default comes last
DEMANDS = ("asked", "config")
FORM = "OP[/VARIANT][@GLOB]"


@dataclass(frozen=True)
class OpSlot:
    """The choice made for one op of one module; frozen. `kernel` None = the model's own code."""

    op: str
    path: str
    name: str
    source: Literal["asked", "config", "profile", "hardware", "default"]
    kernel: Callable | None = field(compare=False, repr=False)
    variant: str = "standard"


@dataclass(frozen=True)
class KernelRequest:
    """A wish for the slots of one op: `OP[/VARIANT][@GLOB]` and the name of a kernel."""

    op: str
    name: str
    variant: str | None = None
    glob: str = "*"
    source: str = "asked"
    origin: str = field(default="", repr=False, compare=False)  # how the user wrote it, for messages

    @classmethod
    def parse(cls, text: str) -> KernelRequest:
        """From the command line: OP[/VARIANT][@GLOB]=NAME."""
        key, sep, name = text.partition("=")
        if not sep or not key.strip() or not name.strip():
            raise KernelError(f"--kernel {text!r}: expected {FORM}=NAME, as in attention=flash")
        return cls.of(key, name, "asked", f"--kernel {text}")

    @classmethod
    def of(cls, key: Any, name: Any, source: str, origin: str) -> KernelRequest:
        """From a key `OP[/VARIANT][@GLOB]` and a kernel's name."""
        if not isinstance(key, str) or not isinstance(name, str) or not name.strip():
            raise KernelError(f"{origin}: expected {FORM} = the name of a kernel, not {key!r} = {name!r}")
        left, at, glob = key.strip().partition("@")
        op, slash, variant = left.partition("/")
        if not op or (slash and not variant) or (at and not glob):
            raise KernelError(f"{origin}: {key!r} is not {FORM}, as in attention or rms_norm/offset@*.q_norm")
        return cls(op, name.strip(), variant or None, glob or "*", source, origin)

    @classmethod
    def table(cls, table: Mapping[str, str], source: str, origin: str) -> tuple[KernelRequest, ...]:
        """All requests of a table key → name; `origin` names the file and place it stands in."""
        return tuple(cls.of(key, name, source, f"{origin} {key}={name}") for key, name in table.items())

    def matches(self, op: str, variant: str, path: str) -> bool:
        return self.op == op and self.variant in (None, variant) and fnmatchcase(path, self.glob)

    @property
    def _rank(self) -> tuple:
        return specificity(self.glob), self.variant is None

    def __str__(self) -> str:
        return self.origin or f"{self.op}={self.name}"


class KernelChoice:
    """Chooses for every slot of one model.

    `requests` are those of the user (asked, config), `profile` those of the model's profile, each with its source;
    `variants` (op → variant) is what the profile knows better than the structure.
    """

    def __init__(
        self,
        requests: Iterable[KernelRequest],
        hw: Any,
        profile: Iterable[KernelRequest] = (),
        variants: Mapping[str, str] | None = None,
    ) -> None:
        table = hw.kernels if hw is not None else {}
        machine = KernelRequest.table(table, "hardware", f"hardware profile {hw.name}, kernels:" if table else "")
        self.requests, self.hw = (*requests, *profile, *machine), hw
        self.variants = dict(variants or {})
        self._slots: dict[tuple[str, str], OpSlot] = {}
        self._built: dict[tuple[str, str, str], tuple[KernelSpec, Callable | None]] = {}
        self._defaults: dict[tuple[str, str], str] = {}
        for r in self.requests:
            KERNELS.find(r.op, r.variant, r.name, hw, origin=str(r))
        for op, variant in self.variants.items():
            KERNELS.find(op, variant, EAGER, origin=f"profile, variants: {op}={variant}")

    @property
    def slots(self) -> tuple[OpSlot, ...]:
        """Every slot filled so far, in the order of filling."""
        return tuple(self._slots.values())

    def fill(self, op: str, path: str, variant: str = "standard") -> OpSlot:
        """The slot `op` of module `path`; bound on the first call, the same ever after."""
        if (op, path) not in self._slots:
            self._slots[op, path] = self._bind(op, path, self.variants.get(op, variant))
        return self._slots[op, path]

    def _bind(self, op: str, path: str, variant: str) -> OpSlot:
        fits = [r for r in self.requests if r.matches(op, variant, path)]
        chosen = next((r for source in SOURCES if (r := _most_specific(fits, source, path))), None)
        if chosen is None:
            name, source, origin = self._default(op, variant), "default", ""
        else:
            name, source, origin = chosen.name, chosen.source, str(chosen)
        if (op, variant, name) not in self._built:
            spec = KERNELS.find(op, variant, name, self.hw, origin=origin)
            self._built[op, variant, name] = spec, _guarded(KERNELS.build(spec), spec)
        return OpSlot(op, path, name, source, self._built[op, variant, name][1], variant)

    def _default(self, op: str, variant: str) -> str:
        if (op, variant) not in self._defaults:
            self._defaults[op, variant] = KERNELS.default(op, variant)
        return self._defaults[op, variant]

    def drop(self, path: str) -> None:
        """Forget the slots of a module that was taken out of the model, and of what was below it."""
        gone = [key for key in self._slots if key[1] == path or key[1].startswith(f"{path}.")]
        for key in gone:
            del self._slots[key]

    def check(self, model: Any) -> None:
        """Every demand must have met a slot or be waived, and every kernel must find in the model what it needs."""
        name = model.blueprint.source.name
        for r in (r for r in self.requests if r.source in DEMANDS and not self._met(r)):
            if r.op in model.waived:
                model.notes.append(f"kernel {r.op}={r.name} waived: {model.waived[r.op]}")
                continue
            have = sorted({_form(s.op, s.variant) for s in self.slots})
            where = "" if r.glob == "*" else f" at {r.glob!r}"
            slots = f"slots: {', '.join(have) or 'none'}{self._example(r)}"
            raise KernelError(f"{r}: {name} has no {_form(r.op, r.variant)} slot{where}; {slots}")
        used = {(s.op, s.variant, s.name) for s in self.slots}
        for key, (spec, _) in self._built.items():
            if key in used and spec.requires is not None and (reason := spec.requires(model)):
                raise KernelError(f"{spec.op_name} kernel {spec.name!r}: {name} {reason}")

    def _met(self, request: KernelRequest) -> bool:
        return any(request.matches(s.op, s.variant, s.path) for s in self.slots)

    def _example(self, request: KernelRequest) -> str:
        """An example of a path where only the pattern was wrong."""
        paths = [s.path for s in self.slots if s.op == request.op and request.variant in (None, s.variant)]
        return f"; {request.op} slots are at paths such as {paths[0]}" if paths else ""

    def summary(self) -> list[dict]:
        """One dict per (op, kernel, source): how many slots it fills."""
        rows: dict[tuple, int] = {}
        for slot in self.slots:
            key = (slot.op, slot.variant, slot.name, slot.source)
            rows[key] = rows.get(key, 0) + 1
        return [dict(zip(("op", "variant", "name", "source"), k, strict=True), slots=n) for k, n in rows.items()]


def _most_specific(fits: Iterable[KernelRequest], source: str, path: str) -> KernelRequest | None:
    """Of the requests of one source that fit a slot, the one with the most specific pattern."""
    ranked = sorted((r for r in fits if r.source == source), key=lambda r: r._rank)
    if len(ranked) > 1 and ranked[0]._rank == ranked[1]._rank and ranked[0].name != ranked[1].name:
        raise KernelError(f"{ranked[0]} and {ranked[1]} fit {path} equally well; give one, or a more specific @GLOB")
    return ranked[0] if ranked else None


def _guarded(kernel: Callable | None, spec: KernelSpec) -> Callable | None:
    """A user's kernel, whose errors name it."""
    origin = KERNELS.origin(spec)
    if kernel is None or origin == "builtin":
        return kernel

    def guarded(*args, **kwargs):
        try:
            return kernel(*args, **kwargs)
        except TensorcastError:
            raise
        except Exception as cause:
            why = " ".join(f"{type(cause).__name__}: {cause}".split())
            raise KernelError(f"{spec.op_name} kernel {spec.name!r} ({origin}): {why[:300]}") from cause

    guarded.exchanges = getattr(kernel, "exchanges", False)
    return guarded


def _form(op: str, variant: str | None) -> str:
    return op if variant in (None, "standard") else f"{op}/{variant}"
