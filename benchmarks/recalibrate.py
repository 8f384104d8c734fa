"""Fit the shipped hardware profiles again: `python benchmarks/recalibrate.py DIR [--family F …] [--device D …]`.

DIR holds measured tables, <family>.parquet. Every machine that a table names has that family's coefficients replaced in
hardware_profiles/. Prints, for every kernel, its error on rows the fit never saw, before and after.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tensorcast.calibration import curves
from tensorcast.calibration.calibrate import calibrate_table, written
from tensorcast.calibration.data import by_device, read_table, tables_in
from tensorcast.calibration.write import save
from tensorcast.hardware.load import hardware, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--family", action="append")
    parser.add_argument("--device", action="append")
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="print the errors, write nothing")
    asked = parser.parse_args()
    for family, path in tables_in(asked.folder):
        if asked.family and family not in asked.family:
            continue
        kind, frame = read_table(family, path)
        if not kind.formula and family != "collective":
            continue
        for hw, rows in by_device(frame):
            if asked.device and hw.name not in {hardware(name).name for name in asked.device}:
                continue
            start = time.perf_counter()
            if family == "collective":
                done = curves.calibrate_collectives(rows, hw, told=lambda c, hw=hw: say_curve(hw, c))
                if done and not asked.dry_run:
                    store(lambda text, machine, done=done: curves.written(text, done, machine), hw.name)
                continue
            done = calibrate_table(kind, rows, hw, restarts=asked.restarts, told=lambda c, hw=hw: say(hw, c))
            if done and not asked.dry_run:
                store(lambda text, machine, kind=kind, done=done: written(text, kind, done, machine), hw.name)
            print(f"{family} {hw.name}: {time.perf_counter() - start:.0f} s", flush=True)


def say(hw, c) -> None:
    before = f"{c.before.median:5.1f} / {c.before.p90:5.1f}" if c.before else "    -"
    print(
        f"{c.row.family:18} {hw.name:16} {c.row.format:10} {c.row.kernel:24} {c.row.rows:6}"
        f"  {before} -> {c.after.median:5.1f} / {c.after.p90:5.1f} %, unseen rows; bias {c.after.bias:+.1f}",
        flush=True,
    )


def say_curve(hw, c) -> None:
    before = f"{c.before.median:5.1f} / {c.before.p90:5.1f}" if c.before else "    -"
    print(
        f"collective         {hw.name:16} {c.key:35} {c.rows:6}"
        f"  {before} -> {c.after.median:5.1f} / {c.after.p90:5.1f} % median / p90 of unseen rows",
        flush=True,
    )


def store(new, name: str) -> None:
    """Rewrite the profile with `new(text, machine)`; two of these may run at once."""
    path = Path(resolve(name))
    with open(path.parent / ".recalibrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        save(path, new(path.read_text(encoding="utf-8"), hardware(name)))


if __name__ == "__main__":
    main()
