"""Calibrate one machine from a folder of measured tables, and keep the result as a hardware file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from tensorcast.calibration.calibrate import Calibrated, TooFew, calibrate_table, written
from tensorcast.calibration.data import COLLECTIVE, by_device, read_table, tables_in
from tensorcast.calibration.score import Score
from tensorcast.errors import HardwareError, InputError
from tensorcast.hardware.load import load_file, resolve
from tensorcast.hardware.profile import HardwareProfile


@dataclass(frozen=True)
class Line:
    """What calibration did to one kernel or collective: rows, and errors on held-out rows."""

    family: str
    format: str
    kernel: str
    rows: int
    before: Score | None
    after: Score
    fewer: tuple[int, Score] | None = None

    def advice(self) -> str:
        """What more rows would buy, from the error of a fit to fewer; "" for curves, which were not fitted twice."""
        if self.family == COLLECTIVE:
            return ""
        if self.fewer is None:
            return f"{self.rows} rows are too few to tell what more would bring" if self.rows < 100 else ""
        rows, score = self.fewer
        told = f"a fit to {rows:,} of them errs by {score.median:.1f}"
        gain = score.median - self.after.median
        helps = gain > max(0.5, 0.1 * self.after.median)
        return f"{told}: more rows would help" if helps else f"{told}: more would change little"


@dataclass
class Result:
    """The new hardware file, and how it came about. `left`: what could not be calibrated, and why."""

    hw: HardwareProfile
    text: str
    lines: list[Line] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def calibrate_folder(
    hw: str,
    folder: str | Path,
    *,
    families: Collection[str] = (),
    restarts: int = 2,
    told: Callable[[Line], None] | None = None,
    started: Callable[[str, float], None] | None = None,
) -> Result:
    """The file of the machine `hw` with coefficients fitted to its rows in the tables of `folder`.

    `told` hears of every kernel as it is done, `started` of every table with the share done before it. InputError where
    no kernel of the machine has enough rows.
    """
    path = resolve(hw)
    result = Result(load_file(path), in_blocks(path.read_text(encoding="utf-8")))
    tables, elsewhere = tables_in(folder, families), set()
    for at, (family, file) in enumerate(tables):
        if started:
            started(family, at / len(tables))
        kind, frame = read_table(family, file)
        parts = [rows for _, rows in by_device(frame, result.hw)]
        if not parts:
            elsewhere.update(frame["device"].astype(str).unique())
        elif family == COLLECTIVE:
            _collectives(result, _joined(parts), path, told)
        elif not kind.formula:
            result.left.append(f"{family}: times of several kernels; calibrate those")
        else:
            _kernels(result, kind, _joined(parts), path, restarts, told)
    if not result.lines:
        raise InputError(f"{folder}: {_why_nothing(result, elsewhere)}")
    return result


def _why_nothing(result: Result, elsewhere: set[str]) -> str:
    if result.left:
        more = len(result.left) - 1
        return result.left[0] + (f" (and {more} more)" if more else "")
    return f"no rows of {result.hw.name}; its devices are {', '.join(sorted(elsewhere))}"


def _joined(parts):
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def _kernels(result: Result, kind, frame, path: Path, restarts: int, told) -> None:
    def done(c: Calibrated) -> None:
        result.lines.append(Line(c.row.family, c.row.format, c.row.kernel, c.row.rows, c.before, c.after, c.fewer))
        if told:
            told(result.lines[-1])

    def left(few: TooFew) -> None:
        result.left.append(str(few))

    found = calibrate_table(kind, frame, result.hw, restarts=restarts, told=done, left=left, learn=True)
    if found:
        result.text = written(result.text, kind, found, result.hw, newest_first=True)
        result.hw = loaded(result.text, path)


def _collectives(result: Result, frame, path: Path, told) -> None:
    from tensorcast.calibration import curves

    found = curves.calibrate_collectives(frame, result.hw)
    for key, _, before, after, rows in found:
        op, _, library = key.partition("/")
        result.lines.append(Line(COLLECTIVE, op, library, rows, before, after))
        if told:
            told(result.lines[-1])
    if found:
        result.text = curves.written(result.text, found, result.hw)
        result.hw = loaded(result.text, path)
    else:
        result.left.append(f"{COLLECTIVE}: too few rows; at least {curves.FEWEST} of one operation are needed")


def in_blocks(text: str) -> str:
    """The hardware file with the sections that calibration adds to as indented blocks, where they were one line."""
    import yaml

    lines = []
    for line in text.split("\n"):
        name, colon, rest = line.partition(":")
        if not colon or name not in ("coefficients", "sources", COLLECTIVE) or not rest.strip().startswith("{"):
            lines.append(line)
            continue
        try:
            content = yaml.safe_load(rest)
        except yaml.YAMLError:  # it goes on in the next lines; the loaded result tells
            lines.append(line)
            continue
        block = yaml.safe_dump(content, sort_keys=False, width=10**6) if content else ""
        lines += [f"{name}:", *(f"  {one}" for one in block.splitlines())] if content else []
    return "\n".join(lines)


def loaded(text: str, near: Path) -> HardwareProfile:
    """The machine a hardware file of that text would be, beside the file `near`; HardwareError if it is none."""
    handle, name = tempfile.mkstemp(prefix=f".{near.stem}.", suffix=".new", dir=_folder_for(near))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        return load_file(name)
    except HardwareError as error:
        told = str(error).replace(Path(name).name, near.name)
        raise HardwareError(f"the calibrated file would not load: {told}") from None
    finally:
        Path(name).unlink(missing_ok=True)


def _folder_for(near: Path) -> Path | None:
    """Beside the machine's file, where the machines it inherits from are; anywhere if that cannot be written."""
    return near.parent if os.access(near.parent, os.W_OK) else None
