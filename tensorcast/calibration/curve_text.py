"""Put fitted curves of collectives into a hardware file, leaving every other line of it as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from tensorcast.calibration.write import _section, _with_sources, number_text
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.hardware.protocol import Protocol, RankTable

if TYPE_CHECKING:
    from tensorcast.calibration.curves import Curve


def written(text: str, done: Sequence[Curve], hw: HardwareProfile) -> str:
    """The hardware file `text` with the new curves; those that were not fitted again keep their lines."""
    sources: dict[str, str] = {}
    for c in done:
        sources.setdefault(c.curve.provenance, f"collective_{len(sources) + 1}")
    entries = {c.key: entry_text(c.key, c.curve, sources[c.curve.provenance]) for c in done}
    return _with_entries(text, entries, {key: told for told, key in sources.items()})


def _with_entries(text: str, entries: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> str:
    """`text` with the entries of its section `collective:` replaced, or put before its sources where it has none."""
    lines = text.rstrip("\n").split("\n")
    start, end = _section(lines, "collective:")
    if start is None:
        at, _ = _section(lines, "sources:")
        at = len(lines) if at is None else at
        old: list[list[str]] = []
        start, end = at, at
    else:
        old = _entries(lines[start + 1 : end])
    kept = {lines[0].split(":")[0].strip(): lines for lines in old}
    block = [line for entry in (kept | dict(entries)).values() for line in entry]
    return _with_sources([*lines[:start], "collective:", *block, *lines[end:]], sources)


def _entries(lines: Sequence[str]) -> list[list[str]]:
    """The lines of every entry: one that is indented by two spaces begins it."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("  ") and not line.startswith("   "):
            found.append([])
        found[-1].append(line)
    return found


def entry_text(key: str, curve: Protocol, source: str) -> list[str]:
    """The lines of a curve under `collective:`."""
    if isinstance(curve, RankTable):
        return [f"  {key}:", f"    source: {source}", "    rows:", *(f"      - {_flow(row)}" for row in curve.rows)]
    return [f"  {key}: {_flow(curve, source)}"]


def _flow(of, source: str = "") -> str:
    """A dataclass as a YAML flow mapping, without what is at its default."""
    parts = []
    for f in fields(of):
        value = getattr(of, f.name)
        if f.name in ("provenance", "kind") or value == f.default:
            continue
        if isinstance(value, tuple):
            shown = f"[{', '.join(f'[{n}, {int(b)}]' for n, b in value)}]"
        else:
            shown = str(value) if isinstance(value, int) else number_text(value)
        parts.append(f"{f.name}: {shown}")
    return "{" + ", ".join(parts + ([f"source: {source}"] if source else [])) + "}"
