"""Within one process: how long a deployed model takes to trace again, and a table to price many configurations.

    python benchmarks/retrace.py

Prints medians in milliseconds beside the budget: 10 ms for a trace, 500 ms for 10,000 configurations.
"""

from __future__ import annotations

import gc
from statistics import median
from time import perf_counter

import tensorcast as tc
from tensorcast.answer import Answer
from tensorcast.cost.passes import Pipeline, Steps
from tensorcast.cost.phase import evaluate
from tensorcast.request import Request
from tensorcast.trace.run import trace_step

POINTS = {"prefill": (2, 512, 0), "decode": (2, 1, 500)}
CONFIGURATIONS = 10_000


def timed(call) -> float:
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e3


def main() -> None:
    gc.disable()
    for name in ("deepseek-v3", "llama-3.1-405b"):
        model = tc.build_model(name, "h200-sxm", tp=8, quant="none")
        for phase, point in POINTS.items():
            first, *rest = [timed(lambda m=model, p=phase, at=point: trace_step(m, p, *at)) for _ in range(12)]
            print(f"trace {name:<16} {phase:<8} first {first:6.1f}  again {median(rest):6.1f}   budget 10")
    answer = Answer(Request.of(model="deepseek-v3", hw="h200-sxm", tp=8, ep=8))
    steps = Steps(8, (1,) * CONFIGURATIONS, tuple(range(1, CONFIGURATIONS + 1)), weight=1 / CONFIGURATIONS)
    pipeline = Pipeline(layers=answer.facts.layers)
    table = answer.deployed.tables["decode"]
    spent = median(
        timed(lambda: evaluate([(table, steps)], answer.hw, pipeline=pipeline, eager=False)) for _ in range(5)
    )
    print(f"price {CONFIGURATIONS:,} decode configurations of deepseek-v3   {spent:6.1f}   budget 500")


if __name__ == "__main__":
    main()
