"""Fit the universal set, and score machines left out of it: `python benchmarks/universal.py DIR [--family F …]`.

For every kernel that two machines or more measured: one joint fit, its error on each machine when that machine was
left out of the fit (unseen shapes), and with --write the joint row into hardware_profiles/universal.yaml. With
--usual NAME the rows of every machine's usual kernel are joined, whatever it is called there, and kept under NAME.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tensorcast.calibration.data import read_table, tables_in
from tensorcast.calibration.joint import kernel_parts, left_out, universal_row, usual_parts
from tensorcast.calibration.write import save, with_universal
from tensorcast.content import shipped_root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--family", action="append")
    parser.add_argument("--format", action="append")
    parser.add_argument("--kernel", action="append")
    parser.add_argument("--usual", metavar="NAME")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    for family, path in tables_in(asked.folder):
        if asked.family and family not in asked.family:
            continue
        kind, frame = read_table(family, path)
        if not kind.formula:
            continue
        rows = []
        for (fmt, kernel), parts in _joined(kind, frame, asked.usual).items():
            if (asked.format and fmt not in asked.format) or (asked.kernel and kernel not in asked.kernel):
                continue
            if len({p.device for p in parts}) < 2:
                continue
            scores = left_out(kind, parts)
            told = "  ".join(f"{device} {s.median:.1f}/{s.p90:.1f}" for device, s in scores.items())
            print(f"{family:18} {fmt:10} {kernel:20} left out: {told}", flush=True)
            if asked.write:
                rows.append(universal_row(kind, fmt, kernel, parts))
        if rows:
            target = Path(shipped_root()) / "hardware_profiles" / "universal.yaml"
            save(target, with_universal(target.read_text(encoding="utf-8"), kind.family, rows))


def _joined(kind, frame, usual: str | None):
    if usual is None:
        return kernel_parts(kind, frame)
    return {(fmt, usual): parts for fmt, parts in usual_parts(kind, frame).items()}


if __name__ == "__main__":
    main()
