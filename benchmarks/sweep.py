"""Sweeps beside their budgets: count, seconds and their share of the budget, each in a process of its own.

    python benchmarks/sweep.py [decode plans million equal dask optimize …] [--rounds 1]

decode    10,000 configurations of a DeepSeek-V3 decode, batch × context, at one plan whose table is on disk
plans     10 plans × 1,000 configurations, the whole process: with their tables on disk, and from nothing
million   1,000,000 configurations to a Parquet dataset, the whole command, and its peak memory
equal     300 random points over 6 models: the largest relative difference to `tc.simulate` of the same point
dask      12 groups by one Dask worker and by two, tables on disk: how many times faster
optimize  the best plan for 64 devices, the whole process: from nothing, and with tables on disk

Of several rounds the fastest counts: other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGSHIP = {"model": "deepseek-v3", "hw": "h200-sxm"}
DECODE = {**FLAGSHIP, "tp": 8, "ep": 8, "phase": "decode", "batch": "1:100", "input_len": "512:51200:512"}
PLANS = {
    **FLAGSHIP, "batch": "1:50", "input_len": "1024:20480:1024",
    "space": [{"tp": [1, 2, 4, 8, 16], "ep": 1}, *({"tp": n, "ep": n} for n in (2, 4, 8, 16, 32))],
}  # fmt: skip
MILLION = {**FLAGSHIP, "tp": [4, 8], "ep": 8, "quant": ["none", "auto"], "batch": "1:500", "input_len": "128:64000:128"}
GROUPS = {
    **FLAGSHIP, "tp": 8, "ep": [1, 8], "pp": [1, 2, 4], "quant": ["none", "auto"],
    "batch": "1:200", "input_len": "128:25600:128",
}  # fmt: skip
OPTIMIZE = {**FLAGSHIP, "devices": 64, "ttft_s": 2.0, "tpot_s": 0.05}
SIX = {  # model -> the sizes around which something changes: its window, an attention chunk
    "deepseek-v3": (4096,), "llama-3.1-8b": (4096,), "qwen3-30b-a3b": (4096,), "gpt-oss-20b": (128,),
    "gemma-3-12b": (1024,), "mixtral-8x7b": (4096,),
}  # fmt: skip
POINTS = 300


def child(code: str, cache: str) -> tuple[float, float, str]:
    """(wall seconds, peak bytes, stdout) of a Python process with this code and cache; its CPU seconds to stderr."""
    environment = {**os.environ, "TENSORCAST_CACHE": cache, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{code}\nended with {process.returncode}: {errors.strip()}")
    print(f"  process: {wall:.2f} s, of these {usage.ru_utime + usage.ru_stime:.2f} s CPU", file=sys.stderr)
    return wall, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), out


def sweep_code(options: dict, before: str = "", after: str = "") -> str:
    """A program that sweeps and ends as the command does, without tearing the interpreter down."""
    return f"import os, time, tensorcast as tc\n{before}\ndf = tc.sweep(**{options!r})\n{after}\nos._exit(0)"


def line(name: str, count: str, seconds: float, budget: float, more: str = "") -> None:
    verdict = "kept" if seconds <= budget else "MISSED"
    print(f"{name:<34}{count:>24}{seconds:>9.3f} s{seconds / budget:>7.2f} x {budget} s  {verdict}{more}", flush=True)


def fastest(rounds: int, code: str, cache: Callable[[], str]) -> tuple[float, float, str]:
    return min(child(code, cache()) for _ in range(rounds))


def decode(rounds: int, cache: str) -> None:
    before = f"tc.sweep(**{ {**DECODE, 'batch': 1, 'input_len': 512}!r})\nstart = time.perf_counter()"
    code = sweep_code(DECODE, before, "print(len(df), time.perf_counter() - start, flush=True)")
    child(code, cache)
    count, seconds = min((child(code, cache)[2].split() for _ in range(rounds)), key=lambda found: float(found[1]))
    line("decode, one plan, table on disk", f"{int(count):,} configurations", float(seconds), 0.5)


def plans(rounds: int, cache: str) -> None:
    code = sweep_code(PLANS, after="print(len(df), (df.reason == '').sum(), flush=True)")
    with tempfile.TemporaryDirectory() as empty:
        folders = iter(range(rounds))
        wall, _, out = fastest(rounds, code, lambda: f"{empty}/{next(folders)}")
    count = "{} ({} priced)".format(*(f"{int(n):,}" for n in out.split()))
    line("10 plans, from nothing", count, wall, 6.0)
    child(code, cache)
    line("10 plans, tables on disk", count, fastest(rounds, code, lambda: cache)[0], 1.5)


def million(rounds: int, cache: str) -> None:
    flags = [
        f"--{n.replace('_', '-')}={','.join(map(str, v)) if isinstance(v, list) else v}" for n, v in MILLION.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(rounds))

        def once() -> tuple[float, float, int]:
            out = f"{folder}/{next(numbers)}"
            arguments = ["tensorcast", "sweep", *flags, "--quiet", "--out", out]
            wall, peak, _ = child(
                f"import sys; sys.argv = {arguments!r}\nfrom tensorcast.cli.main import main; main()", cache
            )
            import pyarrow.dataset

            return wall, peak, pyarrow.dataset.dataset(out).count_rows()

        wall, peak, rows = min(once() for _ in range(rounds))
    kept = "kept" if peak <= 1.5e9 else "MISSED"
    line("a million, to Parquet", f"{rows:,} configurations", wall, 60.0, f"; peak {peak / 1e9:.2f} of 1.5 GB  {kept}")


def equal(rounds: int, cache: str) -> None:
    os.environ.update(TENSORCAST_CACHE=cache, HF_HUB_OFFLINE="1")
    start, worst, where, figures = time.perf_counter(), 0.0, "", 0
    for number, (model, edges) in enumerate(SIX.items()):
        for point, row, answer in points(model, edges, number, POINTS // len(SIX)):
            for name, value in {**answer["metrics"], **answer["memory"]}.items():
                if name == "suggestions" or value is None or isinstance(value, bool):
                    continue
                figures += 1
                found = float(row[name])
                off = abs(found - value) / max(abs(value), 1e-300) if found != value else 0.0
                if not off <= worst:  # NaN is the worst of all
                    worst, where = off, f" {name} of {model} at {point}"
    kept = "kept" if worst <= 1e-9 else "MISSED"
    print(
        f"{'equal to simulate':<34}{POINTS:>17,} points{time.perf_counter() - start:>9.1f} s  "
        f"largest difference of {figures:,} figures {worst:.1e} of 1e-9  {kept}{where}"
    )


def points(model: str, edges: tuple[int, ...], seed: int, count: int) -> Iterator[tuple[dict, dict, dict]]:
    """(a random configuration, the row of it in one sweep of all, what simulate says)."""
    import numpy as np

    import tensorcast as tc
    from tensorcast.search.evaluation.group import Group

    draw = np.random.default_rng(seed)
    lengths = [n for edge in edges for n in (edge // 2, edge - 1, edge, edge + 1, 2 * edge)]
    columns = {
        "batch": np.where(draw.random(count) < 0.3, 1, draw.integers(1, 257, count)),
        "input_len": np.where(draw.random(count) < 0.4, draw.choice(lengths, count), draw.integers(2, 30000, count)),
        "output_len": np.where(draw.random(count) < 0.3, draw.integers(1, 4, count), draw.integers(1, 1500, count)),
    }
    fixed = {"model": model, "hw": "h200-sxm", "tp": int(draw.choice([1, 2, 4]))}
    rows = Group(fixed).columns(columns)
    for at in range(count):
        point = {name: int(values[at]) for name, values in columns.items()}
        if rows["reason"][at]:
            raise SystemExit(f"{model} at {point}: {rows['reason'][at]}")
        yield point, {n: values[at] for n, values in rows.items()}, tc.simulate(**fixed, **point).to_dict()


def dask(rounds: int, cache: str) -> None:
    code = f"""
import time
from distributed import Client, LocalCluster
from tensorcast.search.execution.executors import executor_named
from tensorcast.search.frame import evaluate
from tensorcast.search.axes.space import Space

def seconds(workers, space):
    with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=50,
                      memory_limit=None) as cluster, Client(cluster) as client:
        small = Space.of(**{ {**GROUPS, "batch": 1, "input_len": 512}!r})
        list(executor_named(client).run(small.shards(), evaluate))
        start = time.perf_counter()
        rows = sum(len(table) for _, table in executor_named(client).run(space.shards(), evaluate))
        return time.perf_counter() - start, rows

if __name__ == "__main__":
    space = Space.of(**{GROUPS!r})
    (one, rows), (two, _) = seconds(1, space), seconds(2, space)
    print(space.groups, rows, one, two)
"""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(code)
        file.flush()
        run = f"import runpy; runpy.run_path({file.name!r}, run_name='__main__')"
        best = max((child(run, cache)[2].split() for _ in range(rounds)), key=lambda f: float(f[2]) / float(f[3]))
    groups, rows, one, two = (float(number) for number in best)
    kept = "kept" if one / two >= 1.7 else "MISSED"
    print(
        f"{'two Dask workers against one':<34}{f'{rows:,.0f} in {groups:.0f} groups':>24}{one:>9.3f} s "
        f"against {two:.3f} s: {one / two:.2f} x of 1.7 x  {kept}"
    )


def optimize(rounds: int, cache: str) -> None:
    code = (
        f"import os, tensorcast as tc\nfound = tc.optimize(**{OPTIMIZE!r})\nprint(repr(found), flush=True)\nos._exit(0)"
    )
    with tempfile.TemporaryDirectory() as empty:
        folders = iter(range(rounds))
        line("optimize, from nothing", "64 devices", fastest(rounds, code, lambda: f"{empty}/{next(folders)}")[0], 10.0)
    child(code, cache)
    line("optimize, tables on disk", "64 devices", fastest(rounds, code, lambda: cache)[0], 2.0)


CASES = {case.__name__: case for case in (decode, plans, million, equal, dask, optimize)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=1, help="the fastest counts (default 1)")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]!r}; one of {', '.join(CASES)}")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    print(json.dumps({"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "rounds": arguments.rounds}))
    with tempfile.TemporaryDirectory() as cache:
        for name in arguments.cases or CASES:
            CASES[name](arguments.rounds, cache)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
