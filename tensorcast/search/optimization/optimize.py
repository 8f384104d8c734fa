"""`optimize`: of all plans that a number of devices allows, the best under limits.

Branch and bound over the discrete space plan x precision x kernels x batch: plans are priced in the order of what they
cannot exceed (bounds.py), each for every batch at once, until no plan is left that could be among the best. So the
answer is that of trying every configuration. Plans are priced in child processes, as many at a time as there are cores,
each cut from one model that the parent built.

Every instance of a plan serves its own requests; copies of it fill the devices.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tensorcast.answer import Answer
from tensorcast.errors import InputError
from tensorcast.plan import MOST_DEVICES, checked
from tensorcast.search.axes.space import Space
from tensorcast.search.evaluation.grid import Grid
from tensorcast.search.evaluation.group import Columns
from tensorcast.search.evaluation.halves import HalvesGrid
from tensorcast.search.evaluation.served import ServedGrid
from tensorcast.search.execution.forks import Forks
from tensorcast.search.execution.models import Models
from tensorcast.search.optimization.bounds import Bounds
from tensorcast.search.optimization.objective import Limits, Objective
from tensorcast.search.optimization.optimum import Optimum, Row, best_row
from tensorcast.search.optimization.plans import DEGREES, candidate_plans, devices_of
from tensorcast.search.optimization.variant import NOT_BOUNDED, Variant

DISAGGREGATED = "disaggregated"
GRIDS: Mapping[str, type[Grid]] = {"aggregated": ServedGrid, "static": Grid, DISAGGREGATED: HalvesGrid}
"""Mode → what prices it: continuous batching in a steady state; one batch, all of it at once, as `simulate` does; or
prompts and decode apart."""
BATCHES = (*range(1, 257), *(sixteenth << power for power in range(5, 11) for sixteenth in range(9, 17)))
"""Sequences of an instance that are tried unless told: each up to 256, then eight an octave, up to 16,384."""
RACK = 128
"""Devices that a server or a rack has at most: the largest network of so many is where tensor parallelism is tried."""
TRACED = ("tp", "dp", "ep")
"""Degrees that an operator's sizes depend on; a stage of a pipeline runs some of the same operators."""
SHORT = 4
"""Families of plans that one child prices where their tables are on disk."""
ONE_WORK = ("model", "input_len", "output_len", "prefix_len", "phase", "seq_lens", "image", "concurrency")


@dataclass(order=True)
class Candidate:
    """A plan of a variant, and the most that it can be worth; the smallest is looked at first."""

    order: tuple[float, float, int]
    variant: Variant = field(compare=False)
    plan: Mapping[str, int] = field(compare=False)
    weight: float = field(compare=False)
    extra: Mapping[str, float] = field(compare=False)

    @property
    def most(self) -> float:
        return -self.order[0]

    @property
    def traced(self) -> tuple:
        """Equal for plans with the same tables."""
        return id(self.variant), *(self.plan[name] for name in TRACED)


def optimize(
    model: Any = None,
    hw: Any = None,
    *,
    devices: int,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    memory_headroom: float = 0.0,
    objective: str = "throughput",
    price_per_hour: float | None = None,
    mode: str = "aggregated",
    top: int = 5,
    jobs: int | None = None,
    cache: bool = True,
    progress: Callable[[str, float | None], None] | None = None,
    **options: Any,
) -> Optimum:
    """The best plan for `devices` devices under limits on TTFT and TPOT (seconds) and on memory.

    Best: most output tokens a second and device, or the least `objective` "cost" (`price_per_hour` of a device, or the
    profile's) or "energy" (at the profile's power) a token. `mode`: "aggregated", continuous batching in a steady state
    with the batch as clients (evaluation/served.py has the formulas); "static", one batch as `tc.simulate` runs it;
    "disaggregated", prompts and decode on instances of their own (disaggregated.py).
    `options`: those of `tc.simulate`; machine, precision, kernels, degrees of parallelism and batch take lists, whose
    every combination counts. The precision is the checkpoint's own unless `quant` says otherwise. `top`: plans whose
    order is exact; `jobs`: processes.

    Returns an Optimum; where nothing meets the limits its `nearest` is the nearest miss. Raises a TensorcastError for
    a wrong argument, and where no plan can be simulated at all.
    """
    if mode not in GRIDS:
        raise InputError(f"--mode {mode!r}: one of {', '.join(GRIDS)}")
    devices, top = checked("--devices", devices, most=MOST_DEVICES), checked("--top", top)
    limits, goal = Limits(ttft_s, tpot_s, memory_headroom), Objective(objective, price_per_hour)
    search = _search(mode)(limits, goal, devices, top, jobs, progress)
    models, space = Models(), Space.of(model=model, hw=hw, **options)
    space.check()
    for axes in space.products:
        _one_work(axes)
        batch = tuple(axes.pop("batch", BATCHES))
        asked = {name: axes.pop(name) for name in DEGREES if name in axes}
        for values in itertools.product(*axes.values()):
            fixed = dict(zip(axes, values, strict=True))
            search.add(Variant(fixed, GRIDS[mode], cache, models), asked, batch)
    asked = {"model": search.name, "devices": devices, "mode": mode, "objective": objective}
    return search.run(asked)


def _search(mode: str) -> type[Search]:
    if mode != DISAGGREGATED:
        return Search
    from tensorcast.search.optimization.disaggregated import PairSearch

    return PairSearch


def _one_work(axes: Mapping[str, Sequence]) -> None:
    for name in ONE_WORK:
        if len(axes.get(name, ())) > 1:
            raise InputError(f"--{name.replace('_', '-')}: {len(axes[name])} values; optimize takes one at a time")
    if "phase" in axes:
        raise InputError("--phase: what is run follows from --mode; leave it out")
    if "concurrency" in axes:
        raise InputError("--concurrency is what optimize looks for; limit it with --batch")


class Search:
    """Branch and bound over candidates."""

    def __init__(self, limits: Limits, goal: Objective, devices: int, top: int, jobs: int | None, progress) -> None:
        self.limits, self.goal, self.devices, self.top = limits, goal, devices, top
        self.jobs, self.progress = jobs, progress or (lambda text, share: None)
        self.candidates: list[Candidate] = []
        self.rows: list[Row] = []
        self.refused: Counter[str] = Counter()
        self.ruled_out = 0
        self.notes: dict[str, None] = {}
        self.batch: Sequence[int] = ()
        self.name = ""

    def add(self, variant: Variant, asked: Mapping[str, Sequence[int]], batch: Sequence[int]) -> None:
        """All plans of the variant, with bounds from the model on one device."""
        answer = variant.answer(self.progress)
        self.name, self.batch = answer.facts.name, np.array(batch)
        self.notes |= dict.fromkeys(answer.remarks())
        weight, extra = self.goal.weight(answer.hw), self.goal.figures(answer.hw)
        bounds = self._bounds(answer, variant)
        near = max((tier.devices for tier in answer.hw.topology.tiers if tier.devices <= RACK), default=RACK)
        for plan in candidate_plans(answer.facts, self.devices, near, asked):
            most, hint = bounds(plan)
            order = (-most * weight, -hint, len(self.candidates))
            self.candidates.append(Candidate(order, variant, plan, weight, extra))

    def _bounds(self, answer: Answer, variant: Variant) -> Callable[[Mapping[str, int]], tuple[float, float]]:
        """As `Bounds.throughput`."""
        return Bounds(answer, self.batch, self.limits, **variant.within).throughput

    def run(self, asked: Mapping[str, Any]) -> Optimum:
        if not self.candidates:
            raise InputError(f"--devices {self.devices}: no plan of the degrees asked fills them exactly")
        families: dict[tuple, list[Candidate]] = {}
        for candidate in sorted(self.candidates):  # the most promising first, and so the family it belongs to
            families.setdefault(candidate.traced, []).append(candidate)
        left, forks = list(families.values()), Forks(self.jobs)
        try:
            while left or len(forks):
                while left and not forks.full:
                    self.progress(f"pricing {_said(left[0][0].plan)}", 1 - len(left) / len(families))
                    self._start(forks, left)
                if len(forks):
                    for family, found in zip(*forks.next(), strict=True):
                        for candidate, columns in zip(family, found, strict=True):
                            self._take(candidate, columns)
        finally:
            forks.stop()
        self._finish()
        if not self.rows:
            reason = self.refused.most_common(1)[0][0]
            if len(self.candidates) == 1:
                raise InputError(f"the only plan cannot be simulated: {reason}")
            raise InputError(f"none of {len(self.candidates)} plans can be simulated; the commonest reason: {reason}")
        rows = tuple(sorted(self.rows, key=lambda row: row.order))
        notes = tuple(self.notes)
        return Optimum(asked, self.limits, rows, len(self.candidates), self.ruled_out, self.refused, notes, self.top)

    def _start(self, forks: Forks, left: list[list[Candidate]]) -> None:
        """Price the next family in a child; or several, where each takes no longer than to make the child."""
        families, calls = [], []
        while left and len(calls) < SHORT:
            family = sorted(left.pop(0), key=lambda candidate: candidate.plan["pp"])
            worth = [candidate for candidate in family if candidate.most > self._beat]
            self.ruled_out += len(family) - len(worth)
            if not worth:
                continue
            variant, plans = worth[0].variant, [candidate.plan for candidate in worth]
            ready = variant.whole(plans[0])
            families.append(tuple(worth))
            calls.append(partial(variant.price, plans, self.batch, ready, self.limits, self._reach(worth[0])))
            if ready is not None:
                break
        if calls:
            forks.start(tuple(families), _all, calls)

    def _reach(self, candidate: Candidate) -> float:
        """Tokens a second and device that a pipeline must reach to be priced."""
        return self._beat / candidate.weight

    @property
    def _beat(self) -> float:
        """What a plan must be worth to be among the best `top` yet."""
        met = sorted((row.worth for row in self.rows if row.miss == 0), reverse=True)
        return met[self.top - 1] if len(met) >= self.top else NOT_BOUNDED

    def _finish(self) -> None:
        """All plans are priced or ruled out: make the rows that are not there yet."""

    def _take(self, candidate: Candidate, columns: Columns | None) -> None:
        if columns is None:
            self.ruled_out += 1
            return
        plan = candidate.plan
        machine, options = shown(candidate.variant)
        options = {**machine, **plan, **options}
        row = best_row(options, columns, self.limits, candidate.weight, candidate.extra, devices_of(plan))
        if row is None:
            self.refused[str(columns["reason"][0])] += 1
        else:
            asked = {**candidate.variant.asked, **plan, "batch": row.figures["batch"]}
            self.rows.append(replace(row, asked=(asked,)))


def _all(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]


def shown(variant: Variant) -> tuple[dict[str, str], dict[str, Any]]:
    """The machine's name, and the options that tell variants apart beside the plan."""
    hw, left_out = variant.fixed["hw"], ("hw", *ONE_WORK)
    options = {name: value for name, value in variant.fixed.items() if name not in left_out}
    return {"hw": str(getattr(hw, "name", hw))}, {"quant": "auto"} | options


def _said(plan: Mapping[str, int]) -> str:
    return " ".join(f"--{name} {size}" for name, size in plan.items() if size > 1) or "one device"
