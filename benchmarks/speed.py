"""Whole-process speed of the command beside its budget: wall and CPU seconds and peak memory, medians of N rounds.

Every round runs each case once, one after the other, so that a busy machine slows them all alike and the ratios hold.

    python benchmarks/speed.py [--rounds 5] [--json FILE] [-- simulate flags …]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGSHIP = ["--model", "deepseek-v3", "--hw", "ascend-910b", "--tp", "8"]
# case -> (wall seconds, peak bytes); the ratio to `import torch` is what moves least between machines.
BUDGET = {"cold simulate": (3.5, 900e6), "cached simulate": (0.35, 200e6)}
RATIO_BUDGET = {"cached simulate": 0.35}
BASE = "import torch"


def cases(flags: list[str], warm: str, empty: str) -> dict[str, tuple[list[str], dict[str, str]]]:
    """name -> (command, environment)."""
    command = [sys.executable, str(ROOT / "cli.py"), "simulate", *flags]
    return {
        "cold simulate": (command, {"TENSORCAST_CACHE": empty}),
        "cached simulate": (command, {"TENSORCAST_CACHE": warm}),
        BASE: ([sys.executable, "-c", "import torch"], {}),
        "import transformers llama": (
            [sys.executable, "-c", "import transformers.models.llama.modeling_llama"],
            {},
        ),
    }


def measure(command: list[str], extra: dict[str, str]) -> tuple[float, float, float]:
    """(wall seconds, CPU seconds, peak bytes) of one process; exits when it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env={**os.environ, **extra}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
    )
    errors = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {errors.strip()}")
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def run(flags: list[str], rounds: int) -> dict[str, dict[str, float]]:
    """Medians by case over `rounds` interleaved rounds."""
    samples: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as warm:
        measure(*cases(flags, warm, warm)["cached simulate"])
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as empty:
                for name, (command, extra) in cases(flags, warm, empty).items():
                    samples.setdefault(name, []).append(measure(command, extra))
    result = {}
    for name, found in samples.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*found, strict=True))
        result[name] = {"wall_s": wall, "cpu_s": cpu, "peak_bytes": peak}
    return result


def table(result: dict[str, dict[str, float]]) -> str:
    """The result as text, the budgets beside it."""
    lines = [f"{'case':<27}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'x torch':>9}   budget"]
    for name, row in result.items():
        ratio = row["wall_s"] / result[BASE]["wall_s"]
        budget = ""
        if name in BUDGET:
            wall, peak = BUDGET[name]
            budget = f"{wall} s, {peak / 1e6:.0f} MB"
            kept = row["wall_s"] <= wall and row["peak_bytes"] <= peak
            if name in RATIO_BUDGET:
                budget += f", x{RATIO_BUDGET[name]}"
                kept = kept and ratio <= RATIO_BUDGET[name]
            budget += "  kept" if kept else "  MISSED"
        figures = f"{row['wall_s']:>8.3f}{row['cpu_s']:>8.3f}{row['peak_bytes'] / 1e6:>9.0f}{ratio:>9.2f}"
        lines.append(f"{name:<27}{figures}   {budget}".rstrip())
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds, the median counts (default 5)")
    parser.add_argument("--json", help="write the medians to this file too")
    parser.add_argument("flags", nargs="*", help="flags of simulate after --; default: " + " ".join(FLAGSHIP))
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    flags = arguments.flags or FLAGSHIP
    result = run(flags, arguments.rounds)
    print(f"simulate {' '.join(flags)}")
    print(f"{arguments.rounds} rounds, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(table(result))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
