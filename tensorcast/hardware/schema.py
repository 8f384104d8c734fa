"""What a hardware file may contain, and how its sections become a HardwareProfile.

Every section with figures names its `source`, a key of the file's `sources:` table. `assumed:` and `measured:` list the
dotted fields that are not specifications. `aliases:` stands on one line in flow style.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from dataclasses import fields as fields_of
from typing import Any

from tensorcast.errors import HardwareError, TensorcastError, near_names
from tensorcast.hardware.checks import number
from tensorcast.hardware.coefficient import FAMILIES, Coefficient
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.profile import HardwareProfile, Source
from tensorcast.hardware.protocol import OPS, Floor, Protocol, RankRow, RankTable, Shots, TwoProtocols
from tensorcast.hardware.topology import Tier, Topology

REQUIRED = ("name", "kind", "vendor", "peaks", "vector", "memory", "reserved", "host", "topology", "sources")
OPTIONAL = (
    "description", "aliases", "compute_capability", "features", "chip", "coefficients",
    "coefficients_from", "collective", "collective_from", "kernels", "assumed", "measured",
)  # fmt: skip
SECTIONS = {
    "memory": (("bytes", "bandwidth"), ()),
    "reserved": (("bytes",), ()),
    "chip": ((), ("cores", "clock_hz", "l2_bytes", "tdp_w", "price_per_hour")),
    "host": (("op_time_s", "graph_launch_s"), ()),
    "coefficients_from": (("device",), ()),
    "collective_from": (("device",), ("bandwidth_scale",)),
}
TIER = (("name", "kind", "devices", "bandwidth", "source"), ("latency_s", "efficiency", "links", "fabric", "shared"))
ROW = ("format", "source", "kind", "kernel", "formula", "includes", "rows", "error")  # beside the formula's parameters
PROTOCOLS = {"limits": Shots, "e1": TwoProtocols, "efficiency": Floor, "rows": RankTable}


@dataclass(frozen=True)
class Universal:
    """Coefficients for devices, families and collectives nobody measured; their times hold at `clock_hz`."""

    clock_hz: float
    coefficients: Mapping[str, tuple[Coefficient, ...]]
    collective: Mapping[str, Protocol]


def build(
    data: dict[str, Any], file: str, relative: Callable[[str], HardwareProfile], universal: Universal | None
) -> HardwareProfile:
    """The profile a parsed file describes; `relative(name)` loads the device it inherits from."""
    try:
        return _build(data, relative, universal)
    except TensorcastError as error:
        if str(error).startswith(f"{file}: "):
            raise
        raise HardwareError(f"{file}: {error}") from None


def build_universal(data: dict[str, Any], file: str) -> Universal:
    """The shared set: `coefficients`, `collective` and `sources` alone; whatever it says is assumed of a device."""
    try:
        _fields(data, ("clock_hz", "coefficients", "collective", "sources"), (), "")
        told = _sources(data)
        rows = {
            family: tuple(replace(r, kind=_general(r), provenance=f"universal set: {r.provenance}") for r in rows)
            for family, rows in _coefficients(data["coefficients"], told).items()
        }
        curves = {op: replace(p, kind="universal") for op, p in _collective(data["collective"], told).items()}
        return Universal(number(data["clock_hz"], "clock_hz"), rows, curves)
    except TensorcastError as error:
        raise HardwareError(f"{file}: {error}") from None


def _general(row: Coefficient) -> str:
    return "assumed" if row.kind == "assumed" else "universal"


def _build(data, relative, universal) -> HardwareProfile:
    _fields(data, REQUIRED, OPTIONAL, "")
    told = _sources(data)
    part = {name: _section(data, name, told) for name in SECTIONS}
    rates = {}
    for name in ("peaks", "vector"):
        rates[name] = _mapping(data[name], name)
        _told(rates[name], name, told)
        rates[name] = {fmt: rate for fmt, rate in rates[name].items() if fmt != "source"}
    own = _coefficients(data.get("coefficients"), told)
    curves = _collective(data.get("collective"), told)
    clock = part["chip"].get("clock_hz")
    if lender := part["coefficients_from"].get("device"):
        _inherit_rows(own, relative(lender), clock)
    if lender := part["collective_from"].get("device"):
        scale = number(part["collective_from"].get("bandwidth_scale", 1.0), "collective_from.bandwidth_scale")
        _inherit_curves(curves, relative(lender), scale)
    if universal is not None:
        for family, rows in universal.coefficients.items():
            ratio = clock / universal.clock_hz if clock else 1.0
            own[family] = own.get(family, ()) + tuple(row.moved(ratio) for row in rows)
        curves = {**universal.collective, **curves}
    memory, chip, host = part["memory"], part["chip"], part["host"]
    return HardwareProfile(
        name=data["name"],
        description=data.get("description", ""),
        vendor=data["vendor"],
        kind=data["kind"],
        aliases=_texts(data.get("aliases"), "aliases"),
        compute_capability=data.get("compute_capability"),
        features=frozenset(_texts(data.get("features"), "features")),
        peaks=rates["peaks"],
        vector=rates["vector"],
        memory_bytes=memory["bytes"],
        memory_bw=memory["bandwidth"],
        reserved_bytes=part["reserved"]["bytes"],
        l2_bytes=chip.get("l2_bytes"),
        cores=chip.get("cores"),
        clock_hz=chip.get("clock_hz"),
        tdp_w=chip.get("tdp_w"),
        price_per_hour=chip.get("price_per_hour"),
        host_op_time_s=host["op_time_s"],
        graph_launch_s=host["graph_launch_s"],
        topology=_topology(data["topology"], told),
        coefficients=own,
        collective=curves,
        kernels=_kernels(data.get("kernels") or {}),
        sources=_field_sources(data, told),
    )


def _fields(section: Any, required, optional, where: str) -> None:
    """HardwareError unless `section` is a mapping with exactly these fields."""
    prefix = f"{where}." if where else ""
    _mapping(section, where or "the file")
    known = (*required, *optional)
    for name in section:
        if name not in known:
            near = near_names(name, known, 1)
            hint = f"nearest: {near[0]}" if near else f"known: {', '.join(known)}"
            raise HardwareError(f"unknown field {prefix}{name}; {hint}")
    for name in required:
        if section.get(name) is None:
            raise HardwareError(f"missing field {prefix}{name}")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise HardwareError(f"{where} must be a mapping, not {value!r}")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise HardwareError(f"{where} must be a list of texts, not {value!r}")
    return tuple(value)


def _kernels(value: Any) -> dict[str, str]:
    for op, kernel in _mapping(value, "kernels").items():
        if not isinstance(kernel, str):
            raise HardwareError(f"kernels.{op} must be the name of a kernel, not {kernel!r}")
    return value


def _sources(data: dict[str, Any]) -> dict[str, str]:
    table = _mapping(data["sources"], "sources")
    for key, value in table.items():
        if not isinstance(value, str) or not value.strip():
            raise HardwareError(f"sources.{key} must be a non-empty text")
    return table


def _told(section: dict[str, Any], where: str, told: Mapping[str, str]) -> str:
    """The text behind the section's `source` (one key, or several)."""
    keys = section.get("source")
    keys = keys if isinstance(keys, list) else [keys]
    for key in keys:
        if key is None:
            raise HardwareError(f"missing field {where}.source; every section names a key of sources:")
        if key not in told:
            raise HardwareError(f"{where}.source: {key!r} is not in sources: ({', '.join(told)})")
    return "; ".join(told[key] for key in keys)


def _section(data: dict[str, Any], name: str, told: Mapping[str, str]) -> dict[str, Any]:
    if data.get(name) is None:
        return {}
    required, optional = SECTIONS[name]
    _fields(data[name], (*required, "source"), optional, name)
    _told(data[name], name, told)
    return data[name]


def _field_sources(data: dict[str, Any], told: Mapping[str, str]) -> dict[str, Source]:
    """Dotted field -> Source for every figure outside coefficients and curves."""
    fields = {}
    for name in ("peaks", "vector", "memory", "reserved", "chip", "host"):
        section = data.get(name) or {}
        for key in section:
            if key != "source":
                fields[f"{name}.{key}"] = _told(section, name, told)
    for tier in data["topology"]["tiers"]:
        for key in ("devices", "bandwidth", "latency_s", "efficiency"):
            if key in tier:
                fields[f"topology.{tier['name']}.{key}"] = _told(tier, "topology.tiers", told)
    marked = {}
    for status in ("assumed", "measured"):
        for name in _texts(data.get(status), status):
            hit = [f for f in fields if f == name or f.startswith(f"{name}.")]
            if not hit:
                raise HardwareError(f"{status}: {name!r} is no field of this file; fields: {', '.join(fields)}")
            marked.update(dict.fromkeys(hit, status))
    return {name: Source(origin, marked.get(name, "specified")) for name, origin in fields.items()}


def _topology(section: Any, told: Mapping[str, str]) -> Topology:
    _fields(section, ("tiers",), (), "topology")
    if not isinstance(section["tiers"], list):
        raise HardwareError("topology.tiers must be a list")
    tiers = []
    for i, tier in enumerate(section["tiers"]):
        _fields(tier, *TIER, f"topology.tiers[{i}]")
        tiers.append(Tier(**{**tier, "source": _told(tier, f"topology.tiers[{i}]", told)}))
    return Topology(tuple(tiers))


def _coefficients(section: Any, told: Mapping[str, str]) -> dict[str, tuple[Coefficient, ...]]:
    found: dict[str, tuple[Coefficient, ...]] = {}
    for family, rows in _mapping(section or {}, "coefficients").items():
        if family not in FAMILIES:
            raise HardwareError(f"unknown field coefficients.{family}; families: {', '.join(FAMILIES)}")
        if not isinstance(rows, list):
            raise HardwareError(f"coefficients.{family} must be a list of rows")
        built = [_coefficient(family, row, f"coefficients.{family}[{i}]", told) for i, row in enumerate(rows)]
        if len({(r.format, r.kernel) for r in built}) < len(built):
            raise HardwareError(f"coefficients.{family} has two rows for one format and kernel")
        found[family] = tuple(built)
    return found


def _coefficient(family: str, row: Any, where: str, told: Mapping[str, str]) -> Coefficient:
    formula = _mapping(row, where).get("formula", "roofline")
    if formula not in FORMULAS:
        raise HardwareError(f"{where}.formula must be one of {', '.join(FORMULAS)}, not {formula!r}")
    parameters = FORMULAS[formula].parameters
    needed = [name for name, parameter in parameters.items() if parameter.default is None]
    _fields(row, ("format", "source", *needed), (*ROW, *parameters), where)
    facts = {name: row[name] for name in ("format", "kind", "kernel", "rows") if name in row}
    facts["includes"] = _texts(row.get("includes"), f"{where}.includes")
    if "error" in row:
        facts["error"] = tuple(row["error"]) if isinstance(row["error"], list) else (row["error"],)
    values = {name: row[name] for name in parameters if name in row}
    return _made(
        Coefficient,
        {"kind": "calibrated", **facts, "family": family, "formula": formula, "values": values}
        | {"provenance": _told(row, where, told)},
        where,
    )


def _collective(section: Any, told: Mapping[str, str]) -> dict[str, Protocol]:
    found: dict[str, Protocol] = {}
    for op, entry in _mapping(section or {}, "collective").items():
        where = f"collective.{op}"
        if op.split("/")[0] not in OPS:
            raise HardwareError(f"unknown field {where}; ops: {', '.join(OPS)}")
        _mapping(entry, where)
        shape = next((kind for key, kind in PROTOCOLS.items() if key in entry), None)
        if shape is None:
            raise HardwareError(f"{where} needs one of {', '.join(PROTOCOLS)}")
        values = {k: v for k, v in entry.items() if k != "source"}
        if shape is RankTable:
            _mapping(values, where)
            if not isinstance(values["rows"], list):
                raise HardwareError(f"{where}.rows must be a list")
            values["rows"] = tuple(_made(RankRow, row, f"{where}.rows[{i}]") for i, row in enumerate(values["rows"]))
        found[op] = _made(shape, {**values, "provenance": _told(entry, where, told)}, where)
    return found


def _made(kind: type, values: Any, where: str) -> Any:
    """`kind(**values)`, with unknown and missing fields and bad values reported under `where`."""
    required = [f.name for f in fields_of(kind) if f.default is MISSING]
    _fields(values, required, [f.name for f in fields_of(kind) if f.default is not MISSING], where)
    try:
        return kind(**values)
    except HardwareError as error:
        raise HardwareError(f"{where}.{error}") from None


def _inherit_rows(own: dict[str, tuple[Coefficient, ...]], lender: HardwareProfile, clock: float | None) -> None:
    """Append the lender's rows, moved to this clock, below the device's own. Its universal rows stay behind."""
    ratio = clock / lender.clock_hz if clock and lender.clock_hz else 1.0
    for family, rows in lender.coefficients.items():
        lent = tuple(
            r.moved(
                ratio,
                kind="assumed" if r.kind == "assumed" else "inherited",
                provenance=f"inherited from {lender.name}: {r.provenance}",
            )
            for r in rows
            if not r.provenance.startswith("universal set")
        )
        own[family] = own.get(family, ()) + lent


def _inherit_curves(own: dict[str, Protocol], lender: HardwareProfile, scale: float) -> None:
    """Fill `own` with the lender's curves; absolute bandwidths are multiplied by `scale`."""
    for op, curve in lender.collective.items():
        if op in own or curve.kind in ("universal", "assumed"):
            continue
        if isinstance(curve, RankTable):
            curve = replace(curve, rows=tuple(row.scaled(scale) for row in curve.rows))
        own[op] = replace(curve, kind="inherited", provenance=f"inherited from {lender.name}: {curve.provenance}")
