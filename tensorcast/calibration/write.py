"""Put fitted coefficients into a hardware file, leaving every other line of it as it was."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.formulas import FORMULAS

NOT_TEXTS = ("y", "n", "on", "off", "yes", "no", "true", "false", "null")  # YAML reads them as something else


def row_text(row: Coefficient, source: str) -> str:
    """One coefficient as a YAML flow mapping; `source` is a key of the file's sources."""
    parts = [f"format: {word(row.format)}"]
    if row.kernel:
        parts.append(f"kernel: {word(row.kernel)}")
    if row.formula != "roofline":
        parts.append(f"formula: {row.formula}")
    defaults = {name: p.default for name, p in FORMULAS[row.formula].parameters.items()}
    parts += [f"{name}: {number_text(v)}" for name, v in row.values.items() if v != defaults[name]]
    if row.kind not in ("calibrated", "universal"):
        parts.append(f"kind: {row.kind}")
    if row.includes:
        parts.append(f"includes: [{', '.join(row.includes)}]")
    if row.rows is not None:
        parts.append(f"rows: {row.rows}")
    if row.error is not None:
        parts.append(f"error: [{row.error[0]:.1f}, {row.error[1]:.1f}]")
    return f"    - {{{', '.join(parts)}, source: {source}}}"


def word(text: str) -> str:
    """A text as a YAML scalar: as it is where YAML reads it back so, else in quotes."""
    plain = re.fullmatch(r"[A-Za-z_][\w.+/-]*", text) and text.lower() not in NOT_TEXTS
    return text if plain else json.dumps(text)


def number_text(value: float) -> str:
    """Four significant digits, in a form that YAML reads as a number."""
    text = f"{value:.4g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+d}"
    return text


def with_rows(text: str, family: str, rows: Sequence[tuple[Coefficient, str]], sources: Mapping[str, str]) -> str:
    """The hardware file `text` with the family's coefficients replaced by `rows` (coefficient, key of its source).

    `sources`: texts of the keys that are new or changed. Keys that no row names any more are dropped.
    """
    return _with_block(text, family, [row_text(row, source) for row, source in rows], sources)


def with_universal(text: str, family: str, rows: Sequence[Coefficient]) -> str:
    """The universal set `text` with `rows` before what it has of the family; rows of the same kernel are replaced."""
    lines = text.split("\n")
    start, end = _section(lines, "coefficients:")
    inside = next(i for i in range(start + 1, end) if lines[i].startswith(f"  {family}:"))
    old = list(takewhile(lambda line: line.startswith("    - "), lines[inside + 1 : end]))
    new = {f"{{format: {row.format}, kernel: {row.kernel}, formula: {row.formula}," for row in rows}
    old = [line for line in old if not any(head in line for head in new)]
    old.sort(key=lambda line: "formula: " not in line)  # rooflines last: for machines that lack what a formula needs
    keys = [f"{family}_{row.format}_{row.kernel}" for row in rows]
    block = [row_text(row, key) for row, key in zip(rows, keys, strict=True)] + old
    return _with_block(text, family, block, {key: row.provenance for row, key in zip(rows, keys, strict=True)})


def _with_block(text: str, family: str, rows: Sequence[str], sources: Mapping[str, str]) -> str:
    lines = text.rstrip("\n").split("\n")
    block = [f"  {family}:", *rows]
    start, end = _section(lines, "coefficients:")
    if start is None:
        at, _ = _section(lines, "sources:")
        at = len(lines) if at is None else at
        lines[at:at] = ["coefficients:", *block]
    else:
        inside = next((i for i in range(start + 1, end) if lines[i].startswith(f"  {family}:")), None)
        if inside is None:
            lines[end:end] = block
        else:
            stop = next((i for i in range(inside + 1, end) if not lines[i].startswith("   ")), end)
            lines[inside:stop] = block
    return _with_sources(lines, sources)


def _with_sources(lines: list[str], sources: Mapping[str, str]) -> str:
    start, end = _section(lines, "sources:")
    if start is None:
        lines += ["sources:"]
        start, end = len(lines) - 1, len(lines)
    kept = [line for line in lines[start + 1 : end] if line.split(":")[0].strip() not in sources]
    body = "\n".join(lines[:start] + lines[end:])
    kept = [
        line for line in kept if not line.strip() or re.search(rf"\b{re.escape(line.split(':')[0].strip())}\b", body)
    ]
    told = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in sources.items()]
    return "\n".join([*lines[: start + 1], *kept, *told, *lines[end:]]) + "\n"


def _section(lines: Sequence[str], head: str) -> tuple[int | None, int]:
    """(first line of a top-level section, the line after its last), or (None, 0)."""
    start = next((i for i, line in enumerate(lines) if line.startswith(head)), None)
    if start is None:
        return None, 0
    return start, next((i for i in range(start + 1, len(lines)) if lines[i][:1] not in (" ", "")), len(lines))


def save(path: str | Path, text: str) -> None:
    """Write the file whole or not at all."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(name, path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
