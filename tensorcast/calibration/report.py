"""Score the cost model against folders of measured tables: per device, format and kernel, beside the plain roofline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tensorcast.calibration.data import COLLECTIVE, SERVING, by_device, held_out, read_table, tables_in
from tensorcast.calibration.score import Score
from tensorcast.cost.frames import call_of, match
from tensorcast.cost.pricing import time_of
from tensorcast.cost.tables import Table, groups, ours
from tensorcast.errors import HardwareError, InputError
from tensorcast.hardware.load import hardware

COMPOSED = "composed"  # the time of several kernels, or of a collective: no coefficients of its own
Progress = Callable[[str, "float | None"], None]


@dataclass(frozen=True)
class Scored:
    """The rows of one table on one machine that are priced alike.

    op: what tells rows apart beside format and kernel ("" mostly). kind: that of the coefficients, or COMPOSED; exact:
    whether they are this format's and kernel's own; priced_as: theirs. ratios: predicted / measured of every row;
    roofline: the same of max(FLOP / peak, bytes / bandwidth), None for what is composed.
    """

    family: str
    device: str
    op: str
    format: str
    kernel: str
    kind: str
    exact: bool
    priced_as: str
    source: str
    ratios: np.ndarray = field(repr=False)
    roofline: np.ndarray | None = field(repr=False, default=None)

    @property
    def score(self) -> Score:
        return Score.of_ratios(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("family", "device", "op", "format", "kernel")}
        plain = Score.of_ratios(self.roofline).to_dict() if self.roofline is not None else None
        coefficients = {name: getattr(self, name) for name in ("kind", "exact", "priced_as", "source")}
        return {**told, **self.score.to_dict(), "roofline": plain, "coefficients": coefficients}


@dataclass(frozen=True)
class Served:
    """Served models on one machine: ratios predicted / measured of both times, rows answered and rows asked."""

    device: str
    mode: str
    asked: int
    tpot: np.ndarray = field(repr=False)
    ttft: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        both = {name: getattr(self, name) for name in ("tpot", "ttft")}
        errors = {f"{name}_s": Score.of_ratios(r).to_dict() if len(r) else None for name, r in both.items()}
        return {"device": self.device, "mode": self.mode, "rows": self.asked, "answered": len(self.tpot), **errors}


@dataclass(frozen=True)
class Accuracy:
    """Everything scored in one folder; `notes`: what could not be, and why."""

    folder: str
    unseen: bool
    groups: Sequence[Scored]
    served: Sequence[Served]
    notes: Sequence[str]

    def families(self) -> dict[str, tuple[Score, Score | None]]:
        """Family → the scores of all its rows together: ours, and the roofline's where every group has one."""
        found: dict[str, tuple[Score, Score | None]] = {}
        for name in dict.fromkeys(g.family for g in self.groups):
            mine = [g for g in self.groups if g.family == name]
            plain = [g.roofline for g in mine if g.roofline is not None]
            whole = Score.of_ratios(np.concatenate(plain)) if len(plain) == len(mine) else None
            found[name] = Score.of_ratios(np.concatenate([g.ratios for g in mine])), whole
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "data": self.folder,
            "held_out": self.unseen,
            "families": {
                name: {**ours_.to_dict(), "roofline": plain.to_dict() if plain else None}
                for name, (ours_, plain) in self.families().items()
            },
            "groups": [g.to_dict() for g in self.groups],
            "serving": [s.to_dict() for s in self.served],
            "notes": list(self.notes),
        }


def score_folder(
    folder: str | Path,
    *,
    hw: str | None = None,
    families: Collection[str] = (),
    unseen: bool = False,
    progress: Progress | None = None,
) -> Accuracy:
    """Price every table of `folder`, or those of `families` alone, and compare with what was measured.

    hw: the one machine to score, a name or file; without it each row's device. unseen: only the rows that no fit sees.
    InputError for a folder without tables and for tables that cannot be read as what they should be.
    """
    only = hardware(hw) if hw is not None else None
    served_too = (Path(folder) / f"{SERVING}.parquet").is_file() and (not families or SERVING in families)
    kernels = [name for name in families if name != SERVING]
    tables = tables_in(folder, kernels, or_none=served_too) if kernels or not families else []
    if SERVING in families and not served_too:
        raise InputError(f"{folder}: holds no table {SERVING}.parquet")
    scored, notes, absent = [], [], set()
    for at, (family, path) in enumerate(tables):
        if progress:
            progress(f"pricing {family}", at / len(tables))
        if unseen and family == COLLECTIVE:
            notes.append(f"{family}: its curves are fitted to all of their few rows; `calibrate` tells unseen errors")
        kind, frame = read_table(family, path)
        machines = list(by_device(frame, only))
        if not machines:
            absent.update(frame["device"].astype(str).unique())
        for machine, rows in machines:
            scored += score_table(kind, rows, machine, unseen=unseen, notes=notes)
    served = []
    if served_too:
        from tensorcast.calibration.served import score_serving

        served = score_serving(Path(folder) / f"{SERVING}.parquet", hw, only, notes, progress)
    if not scored and not served:
        if absent and only is not None:
            raise InputError(f"{folder}: has no rows of {only.name}; its devices are {', '.join(sorted(absent))}")
        raise InputError(f"{folder}: {notes[0] if notes else 'nothing in it could be scored'}")
    return Accuracy(str(folder), unseen, scored, served, list(dict.fromkeys(notes)))


def score_table(kind: Table, frame, hw, *, unseen: bool = False, notes: list[str] | None = None) -> list[Scored]:
    """The scores of rows measured on `hw`, rows of one kernel and format together."""
    found: dict[tuple, list] = {}
    for group, rows in groups(frame):
        part = frame.iloc[rows]
        if unseen:
            part = part[held_out(kind, part)]
        if not len(part):
            continue
        try:
            facts, ratios, plain = _priced(kind, group, part, hw)
        except HardwareError as cause:
            if notes is not None:
                notes.append(f"{kind.name}: {len(part)} rows of {_name(group)} not scored: {cause}")
            continue
        found.setdefault(facts, []).append((ratios, plain))
    return [
        Scored(
            kind.name,
            hw.name,
            *facts,
            np.concatenate([r for r, _ in parts]),
            None if kind.seconds is not None else np.concatenate([p for _, p in parts]),
        )
        for facts, parts in found.items()
    ]


def _priced(kind: Table, group: Mapping[str, str], rows, hw):
    """((op, format, kernel, kind, exact, priced as, source), predicted / measured, the roofline's)."""
    measured = rows["latency_s"].to_numpy(dtype=float)
    if kind.seconds is not None:
        facts = group.get("op", ""), ours(group.get("kv_dtype") or group.get("dtype", "")), group.get("kernel", "")
        return (*facts, COMPOSED, True, "", ""), np.asarray(kind.seconds(rows, hw), dtype=float) / measured, None
    call = call_of(kind, group, rows, hw)
    found = match(kind, group, hw)
    c, (fmt, kernel) = found.coefficient, found.wanted
    predicted = np.broadcast_to(time_of(call, c, hw).seconds, measured.shape)
    op = kind.family_of(group) if kind.families is not None else ""
    priced_as = " ".join(part for part in (c.format, c.kernel) if part)
    facts = op, fmt, kernel, c.kind, found.exact, priced_as, c.provenance
    plain = replace(call, loop_bytes=None).floor(hw)  # a data sheet knows of no cache
    return facts, predicted / measured, np.broadcast_to(plain, measured.shape) / measured


def _name(group: Mapping[str, str]) -> str:
    return " ".join(dict.fromkeys(v for v in group.values() if v)) or "the table"
