"""How long pricing takes: `python benchmarks/cost.py`. Every figure is the time of a million calls over that of one
np.multiply of a million floats, the best of three."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.collective import collective_time
from tensorcast.cost.gemm import CANDIDATES
from tensorcast.cost.memory import stream_time
from tensorcast.cost.pricing import time_of
from tensorcast.hardware.load import hardware
from tensorcast.ops.base import Work

CALLS = 1_000_000
GEMMS = 100_000  # priced in a tenth of a million: every call is tried in all tiles
BUDGET = 40


def best_of(run: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    generator = np.random.default_rng(0)
    nbytes, other = 2.0 ** generator.uniform(8, 30, CALLS), generator.random(CALLS)
    one = best_of(lambda: np.multiply(nbytes, other), 10)
    print(f"np.multiply of {CALLS} floats: {1e3 * one:.2f} ms")
    sizes = generator.choice([2, 4, 8], CALLS)
    for hw in (hardware("h100-sxm"), hardware("ascend-910c-die")):
        for name, ranks, library in (("8 ranks", 8, ""), ("mixed ranks", sizes, ""), ("mixed, best", sizes, "best")):
            run = best_of(
                lambda r=ranks, lib=library, m=hw: collective_time("all_reduce", nbytes, r, 1, m, library=lib)
            )
            say(f"all_reduce, {name}, {hw.name}", run / one)
    hw = hardware("h100-sxm")
    coefficient = hw.coefficient("quantize", "fp8")
    for name, looped in (("cold", None), ("in a loop", 2 * nbytes)):
        call = Call(Work(read_bytes=nbytes, write_bytes=nbytes), loop_bytes=looped)
        say(f"stream_time, {name}", best_of(lambda call=call: stream_time(call, coefficient, hw).seconds) / one)
        say("  with its physical bound", best_of(lambda call=call: time_of(call, coefficient, hw).seconds) / one)
    m, n, k = (2.0 ** generator.uniform(4, 13, GEMMS) for _ in range(3))
    work = Work(matrix_flops=2 * m * n * k, read_bytes=2 * (m * k + k * n), write_bytes=2 * m * n)
    product = Call(work, {"b": 1.0, "m": m, "n": n, "k": k, "ba": 2, "bb": 2, "bc": 2}, math="bf16")
    seconds = best_of(lambda: time_of(product, hw.coefficient("gemm", "bf16"), hw).seconds)
    say(f"gemm, one of its {CANDIDATES} tiles", seconds * CALLS / GEMMS / CANDIDATES / one)


def say(name: str, ratio: float) -> None:
    print(f"{name:42} {ratio:6.1f} times one multiply{'' if ratio <= BUDGET else f', more than {BUDGET}'}")


if __name__ == "__main__":
    main()
