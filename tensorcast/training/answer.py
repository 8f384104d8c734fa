"""The answer of a training request: the JSON of `simulate` with the phase `train`."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from tensorcast.answer import Answer
from tensorcast.cost.phase import Phase
from tensorcast.errors import InputError
from tensorcast.optable import OpTable
from tensorcast.plan import TRAIN, Workload
from tensorcast.steps import steps_of
from tensorcast.training.memory import TrainingMemory
from tensorcast.training.step import TrainingStep

ASSUMED = "backward kernels, priced with the coefficients of the forward kernels"
NEITHER = ("ttft_s", "tpot_s", "request_latency_s", "tokens_per_s_per_user")  # figures of inference


class TrainingAnswer(Answer):
    """Figures of one training step."""

    def to_dict(self, *, strict: bool = False) -> dict[str, Any]:
        if strict:
            raise InputError(f"--strict: assumed figures: {ASSUMED}")
        self.notes = [*self.notes, f"assumed: {ASSUMED}"]
        return super().to_dict()

    @cached_property
    def step(self) -> TrainingStep:
        return self._step(self.work)

    def _step(self, work: Workload) -> TrainingStep:
        (table, steps), pipeline = steps_of(work, self.plan)[TRAIN][0], self.pipeline()
        return TrainingStep(
            facts=self.facts,
            table=self.deployed.tables[table],
            steps=steps,
            work=work,
            plan=self.plan,
            pipeline=pipeline,
            hw=self.hw,
            capacity=self.hw.memory_bytes * self.request.utilization,
            eager=self.request.eager,
        )

    @property
    def tables(self) -> list[OpTable]:
        return [self.step.passes_table, self.step.update_table]

    @cached_property
    def phases(self) -> dict[str, Phase]:
        return {TRAIN: self.step.phase}

    def metrics(self) -> dict[str, float | None]:
        """Step time, throughput over all devices, utilisation, seconds by part; figures of inference are None."""
        return {**dict.fromkeys(NEITHER), **self.step.metrics()}

    def memory(self, work: Workload | None = None, reserve: int = 0) -> TrainingMemory | None:
        return (self.step if work is None else self._step(work)).memory()

    def _with_context(self, tokens: int) -> TrainingMemory | None:
        """Memory with sequences of `tokens`, two at least."""
        return self.memory(replace(self.work, input_len=max(tokens, 2)))

    def _other_plans(self, memory: TrainingMemory) -> list[str]:
        return self.step.suggestions()
