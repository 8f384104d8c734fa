"""What `simulate` answers, for many configurations of one deployed model at once: a column for each figure.

Configurations differ in `cases.VARIABLES` only, so one set of tables prices them all. The mean decode step over all
output positions is exact: steps of one batch are priced once for every length of the cache that any configuration
meets, and the running sum of their seconds gives each configuration its own stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.answer import Answer
from tensorcast.cost.passes import count_of, rows_of
from tensorcast.request import Request
from tensorcast.search.evaluation.capacity import Capacity
from tensorcast.search.evaluation.cases import PROMPT, Cases, Passes, Shape, distinct
from tensorcast.search.evaluation.pricing import Machine, Missing, Prices, Seconds
from tensorcast.search.evaluation.spans import blocks, joined_spans

if TYPE_CHECKING:
    from tensorcast.serving.steady import Served

POINTS = 1 << 18
"""Forward passes at a time."""


class Grid:
    """The configurations of one request: everything but `cases.VARIABLES` is as it says."""

    def __init__(
        self, request: Request, *, cache: bool = True, progress: Callable | None = None, ready: Any = None
    ) -> None:
        """`request`: that of one configuration, whose tables are loaded or traced first. `ready`: as `Answer`'s."""
        self.request = request
        self.shape = self._shape()
        self.answer = Answer(request, cache=cache, progress=progress, ready=ready)
        self._prices: dict[str, Prices] = {}

    def columns(self, cases: Cases) -> dict[str, np.ndarray]:
        """Metrics and memory of every configuration, under the names of the JSON of `simulate`; NaN: no such figure.

        Where no table reaches a configuration, the model is traced there.
        """
        while True:
            try:
                return self._metrics(cases) | self._memory(cases)
            except Missing as missing:
                self.answer.cover(missing.points)
                self._prices.clear()
                self.__dict__.pop("_machine", None)

    def _memory(self, cases: Cases) -> dict[str, np.ndarray]:
        capacity = Capacity(self.answer, self.shape)
        return capacity.columns(cases) | capacity.most(cases)

    def _shape(self) -> Shape:
        return Shape(self.request.plan, self.request.work)

    def _metrics(self, cases: Cases) -> dict[str, np.ndarray]:
        work, engine, plan = self.request.work, self.request.engine, self.request.plan
        seconds = {name: self._seconds(name, cases) for name in work.phases}
        nothing = np.full(len(cases), np.nan)
        ttft = tpot = latency = rate = nothing
        for name in PROMPT:
            if name in seconds:
                ttft = seconds[name] + engine.prompt_overhead(self.shape.cuts(name, cases))
        if "decode" in seconds:
            step = seconds["decode"] + engine.step_overhead(self.shape.group_batch(cases))
            tpot = step / cases.tokens_per_step
            rate = cases.batch / tpot
        if ttft is not nothing:
            latency = ttft + tpot * (cases.output_len - 1)
            rate = cases.batch * cases.output_len / latency
        found = {
            "ttft_s": ttft,
            "tpot_s": tpot,
            "request_latency_s": latency,
            "tokens_per_s": rate,
            "tokens_per_s_per_device": rate / plan.devices,
            "tokens_per_s_per_user": 1 / tpot,
        }
        if "forward" in seconds:
            found["request_latency_s"] = seconds["forward"] * work.steps
            found["requests_per_s"] = cases.batch / found["request_latency_s"]
        return found | self._loaded(cases)

    def _loaded(self, cases: Cases) -> dict[str, np.ndarray]:
        """Figures with a number of clients at all times, where that was asked."""
        if not cases.concurrency.any():
            return {}
        found = self._under_load(cases, cases.concurrency)
        return {"ttft_loaded_s": found.ttft_s, "tpot_loaded_s": found.tpot_s}

    def _under_load(self, cases: Cases, clients: np.ndarray) -> Served:
        from tensorcast.serving.steady import Load

        group = -(-clients // self.request.plan.dp)
        return self.answer.under_load(
            Load(group, cases.input_len, cases.output_len, cases.tokens_per_step), cases.chunk
        )

    # -- seconds of the phases -----------------------------------------------------------------------------------------

    def _seconds(self, phase: str, cases: Cases) -> np.ndarray:
        """Seconds of the phase: of all of a prompt, of the mean decode step."""
        return self._decode(cases) if phase == "decode" else self._passes(phase, cases)

    def _passes(self, phase: str, cases: Cases) -> np.ndarray:
        """The sum over the passes of each configuration; with pipeline stages also the time that these take to fill."""
        out = np.empty(len(cases))
        for rows in blocks(self.shape.cuts(phase, cases), POINTS):
            part = cases.at(rows)
            passes = self.shape.passes(phase, part)
            seconds = self._at(passes)
            starts = np.searchsorted(passes.case, np.arange(len(part)))
            device, slot = (np.add.reduceat(v, starts, axis=1) for v in (seconds.device, seconds.slot))
            slowest = np.argmax(device, axis=0), np.arange(len(part))
            fill = np.maximum.reduceat(seconds.slot, starts, axis=1)[slowest] * (self.shape.plan.pp - 1)
            out[rows] = slot[slowest] * self.shape.micro_batches(part) + fill
        return out

    def _at(self, passes: Passes) -> Seconds:
        """Seconds of passes; equal ones are priced once."""
        first, which = distinct(passes.batch, passes.tokens, passes.past)
        names = passes.table[first]
        found = [np.empty((len(self._machine.stages), len(first))) for _ in range(2)]
        for name in np.unique(names):
            here = first[names == name]
            points = passes.batch[here], passes.tokens[here], passes.past[here]
            priced = self._table(str(name), points).at(*points)
            for whole, part in zip(found, (priced.device, priced.slot), strict=True):
                whole[:, names == name] = part
        return Seconds(*(values[:, which] for values in found))

    def _decode(self, cases: Cases) -> np.ndarray:
        """The mean step over all output positions."""
        batch = self.shape.pass_batch(cases)
        tokens, start, steps = self.shape.decode_span(cases)
        first, head = distinct(batch, tokens)
        micro_batches = self.shape.micro_batches(cases)
        out = np.empty(len(cases))
        for spans in joined_spans(head, start, start + steps, POINTS):
            at = first[spans.head][spans.where]
            heads, which = np.unique(spans.head, return_inverse=True)
            which = which.reshape(-1)[spans.where]
            one = np.searchsorted(which, np.arange(len(heads)))
            points = batch[at], tokens[at], spans.numbers
            found = self._table("decode", points).at(*points, (one, which))
            rows = spans.cases
            begin = start[rows] + (spans.offset - spans.start)[spans.span]
            slot = _stretches(found.slot, begin, steps[rows])
            if len(slot) > 1:
                device = _stretches(found.device, begin, steps[rows])
                slot = slot[np.argmax(device, axis=0), np.arange(len(rows))]
            micro = micro_batches[rows]
            # In a steady state a stage waits for the others where there are fewer micro-batches than stages.
            out[rows] = slot.reshape(-1) / steps[rows] * np.maximum(micro, self.shape.plan.pp)
        return out

    def _table(self, name: str, points) -> Prices:
        if name not in self.answer.deployed.tables:
            raise Missing([(name, tuple(int(column[0]) for column in points))])
        if name not in self._prices:
            self._prices[name] = Prices(name, self.answer.deployed.tables[name], self._machine)
        return self._prices[name]

    @cached_property
    def _machine(self) -> Machine:
        facts, request = self.answer.facts, self.request
        pipeline = self.answer.pipeline()
        tables = self.answer.deployed.tables.values()
        pieces = [piece for table in tables for piece in table.pieces]
        rows = [row for piece in pieces for row in rows_of(piece, pipeline, facts.hidden, facts.dtype)]
        counts = [tuple(count_of(row, pipeline, stage) for row in rows) for stage in range(pipeline.stages)]
        different = tuple(counts.index(count) for count in dict.fromkeys(counts))
        return Machine(self.answer.hw, pipeline, different, request.eager, facts.hidden, facts.dtype)


def _stretches(values: np.ndarray, begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Sums of `count` values from `begin` on, along the last axis."""
    total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    return total[:, begin + count] - total[:, begin]
