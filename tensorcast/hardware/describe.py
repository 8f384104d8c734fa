"""Machines as rows and facts, for `tensorcast list hardware` and `tensorcast show hardware`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tensorcast.content import shipped_root
from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.load import hardware, load_file, names, resolve
from tensorcast.hardware.profile import HardwareProfile


def list_hardware() -> list[dict[str, Any]]:
    """One row a machine: memory in bytes, bandwidth in B/s, dense peaks in FLOP/s (None where it lacks the format)."""
    rows = []
    for name, path in names().items():
        hw = load_file(path)
        rows.append(
            {
                "name": name,
                "aliases": list(hw.aliases),
                "vendor": hw.vendor,
                "memory_bytes": hw.memory_bytes,
                "memory_bw": hw.memory_bw,
                **{f"{fmt}_flops": hw.peaks.get(fmt) for fmt in ("bf16", "fp16", "fp8", "int8")},
                "formats": list(hw.peaks),
                "devices": hw.topology.devices,
                "origin": origin(path),
            }
        )
    return rows


def describe_hardware(reference: str) -> dict[str, Any]:
    """Everything about one machine, each figure with its source and status. UnknownNameError, HardwareError."""
    hw, path = hardware(reference), resolve(reference)
    return {
        "name": hw.name,
        "asked": str(reference),
        "origin": origin(path),
        "file": str(path),
        "aliases": list(hw.aliases),
        "description": hw.description,
        "vendor": hw.vendor,
        "kind": hw.kind,
        "compute_capability": hw.compute_capability,
        "features": sorted(hw.features),
        "kernels": dict(hw.kernels),
        "figures": figures(hw),
        "tiers": [dataclasses.asdict(tier) for tier in hw.topology.tiers],
        "coefficients": [_coefficient(row) for rows in hw.coefficients.values() for row in rows if hw.can_use(row)],
        "collectives": [
            {"op": op, "curve": type(curve).__name__, **_text_last(curve)} for op, curve in hw.collective.items()
        ],
    }


def _coefficient(row: Coefficient) -> dict[str, Any]:
    """Family, format and kernel, how the figures came about, then the formula's parameters."""
    facts = {name: getattr(row, name) for name in ("family", "format", "kernel", "formula", "kind", "rows", "error")}
    return {**facts, "includes": list(row.includes), "values": dict(row.values), "provenance": row.provenance}


def _text_last(row: Any) -> dict[str, Any]:
    """The fields of a dataclass, its long `provenance` at the end."""
    fields = dataclasses.asdict(row)
    return {**{name: value for name, value in fields.items() if name != "provenance"}, "provenance": row.provenance}


def figures(hw: HardwareProfile) -> dict[str, dict[str, Any]]:
    """Dotted field → value in SI units, its source, and whether that specifies, measured or assumed it."""
    values: dict[str, Any] = {
        **{f"peaks.{fmt}": rate for fmt, rate in hw.peaks.items()},
        **{f"vector.{fmt}": rate for fmt, rate in hw.vector.items()},
        "memory.bytes": hw.memory_bytes,
        "memory.bandwidth": hw.memory_bw,
        "reserved.bytes": hw.reserved_bytes,
        "chip.l2_bytes": hw.l2_bytes,
        "chip.cores": hw.cores,
        "chip.clock_hz": hw.clock_hz,
        "chip.tdp_w": hw.tdp_w,
        "host.op_time_s": hw.host_op_time_s,
        "host.graph_launch_s": hw.graph_launch_s,
    }
    for tier in hw.topology.tiers:
        for field in ("devices", "bandwidth", "latency_s", "efficiency"):
            values[f"topology.{tier.name}.{field}"] = getattr(tier, field)
    told = {}
    for field, value in values.items():
        if value is None:
            continue
        source = hw.sources.get(field)
        told[field] = {
            "value": value,
            "status": source.status if source else "default",
            "source": source.text if source else "not in the file",
        }
    return told


def origin(path: Path) -> str:
    """builtin for a file that ships with TensorCast, else where it lies."""
    return "builtin" if path.resolve().is_relative_to(shipped_root().resolve()) else str(path)
