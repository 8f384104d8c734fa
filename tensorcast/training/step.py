"""The time of a training step and what it is made of. See `tensorcast.training` for what is assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, product
from typing import Any

from tensorcast.cost.composed import overlapped
from tensorcast.cost.passes import Pipeline, Steps, hand_over
from tensorcast.cost.phase import Phase, evaluate
from tensorcast.deployed import ModelFacts
from tensorcast.errors import InputError
from tensorcast.optable import OpTable
from tensorcast.plan import TRAIN, ParallelPlan, Workload
from tensorcast.steps import group_batch, micro_batches, steps_of
from tensorcast.training import update
from tensorcast.training.memory import Activations, TrainingMemory, training_memory
from tensorcast.training.passes import AGAIN, BACKWARD, train_table
from tensorcast.training.shares import GRADIENTS, STATES, WEIGHTS, Share, shares_of
from tensorcast.units import bytes_


@dataclass(frozen=True)
class TrainingStep:
    """A training step of one deployed model. `table` is that of the forward pass, `steps` one micro-batch."""

    facts: ModelFacts
    table: OpTable
    steps: Steps
    work: Workload
    plan: ParallelPlan
    pipeline: Pipeline
    hw: Any
    capacity: float
    eager: bool = False

    def __post_init__(self) -> None:
        if modules := self.facts.quantised["modules"]:
            raise InputError(f"--phase train computes unquantised; this model has {', '.join(modules)}: --quant none")

    # -- time ----------------------------------------------------------------------------------------------------------

    @cached_property
    def passes_table(self) -> OpTable:
        """Every pass of a micro-batch, and what stages hand back to each other."""
        table, pieces = train_table(self.table, self.work.grad_checkpoint), []
        for piece in table.pieces:
            back = hand_over(piece, self.facts.hidden, self.facts.dtype, self.pipeline.stride)
            pieces.append(replace(piece, rows=(*piece.rows, replace(back, place="back"))))
        return replace(table, pieces=tuple(pieces))

    @cached_property
    def shares(self) -> list[Share]:
        return shares_of(self.facts.weights, self.plan)

    @cached_property
    def phase(self) -> Phase:
        """The whole step."""
        passes = evaluate(
            [(self.passes_table, self.steps)],
            self.hw,
            pipeline=self.pipeline,
            eager=self.eager,
            hidden=self.facts.hidden,
            item=self.facts.dtype,
        )
        whole = Phase.sum([passes, *self._communication(passes), *self._update()])
        return replace(whole, ops=[op for op in whole.ops if op["count"]])

    def _communication(self, passes: Phase) -> list[Phase]:
        """Collectives over the copies, as far as the passes do not hide them."""
        zero, batches = self.work.zero, self.pipeline.micro_batches
        reduce = self._priced(update.reduce_rows(self.shares, zero, self.facts.dtype))
        if reduce is None:
            return []
        gather = self._priced(update.gather_rows(self.shares, self.facts.dtype))
        back = sum(op["time_s"] for op in passes.ops if op.get("part") in (AGAIN, BACKWARD)) / batches
        ahead = sum(op["time_s"] for op in passes.ops if op["op"] != "pipeline_bubble") / batches - back
        pieces = max(len(self.pipeline.layers_of(0)), 1)

        def beside(seconds: float, *phases: Phase) -> float:
            links = sum(phase.device_time_s for phase in phases)
            return float(overlapped(seconds, links, pieces)) - seconds

        waits = batches + self.pipeline.stages - 1  # a stage that waits for a pass waits for what it does not hide
        if zero < GRADIENTS:
            return [update.shown(reduce, 1, beside(back, reduce))]
        if zero < WEIGHTS:
            return [update.shown(reduce, batches, beside(back, reduce) * waits)]
        late, both = beside(ahead, gather), beside(back, reduce, gather)
        share = gather.device_time_s / (gather.device_time_s + reduce.device_time_s)
        return [
            update.shown(reduce, batches, both * (1 - share) * waits),
            update.shown(gather, 2 * batches, (late + both * share) * waits),
        ]

    @property
    def update_table(self) -> OpTable:
        """What follows the passes, or runs beside them: sums over the copies, gathering, the optimizer."""
        zero, fmt = self.work.zero, self.facts.dtype
        rows = update.reduce_rows(self.shares, zero, fmt)
        rows += update.gather_rows(self.shares, fmt) if zero >= STATES else []
        rows += update.optimizer_rows(self.shares, zero, self.work.optimizer, fmt)
        return update.table_of(row for _, row in rows)

    def _update(self) -> list[Phase]:
        """The optimizer, the gradients of tied weights before it, the gathering of updated weights behind it."""
        zero, fmt = self.work.zero, self.facts.dtype
        ends = self.plan.tp * self.plan.dp * (self.plan.pp - 1)
        tied = self._priced(update.tied_rows(self.shares, ends, fmt)) if self.plan.pp > 1 else None
        step = self._priced(update.optimizer_rows(self.shares, zero, self.work.optimizer, fmt))
        gather = self._priced(update.gather_rows(self.shares, fmt)) if STATES <= zero < WEIGHTS else None
        return [phase for phase in (tied, step, gather) if phase is not None]

    def _priced(self, rows) -> Phase | None:
        return update.priced(rows, self.pipeline, self.hw, self.eager)

    # -- figures -------------------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Seconds, tokens per second, and utilisation of the peak, seconds by part."""
        seconds, tokens = self.phase.step_time_s, self.work.batch * self.work.input_len
        rate, peak = tokens / seconds, self.hw.peak(self.facts.dtype)
        parts: dict[str, float] = {}
        for op in self.phase.ops:
            name = op.get("part", op["op"])
            parts[name] = parts.get(name, 0.0) + op["time_s"]
        return {
            "step_time_s": seconds,
            "tokens_per_s": rate,
            "tokens_per_s_per_device": rate / self.plan.devices,
            "model_flops_utilisation": 6 * self.facts.active_parameters * rate / self.plan.devices / peak,
            "hardware_flops_utilisation": self.phase.mfu,
            **{f"{_LABELS.get(name, name)}_time_s": value for name, value in parts.items()},
        }

    def memory(self) -> TrainingMemory | None:
        """Memory by kind; None where the table does not cover the micro-batch."""
        point = self.steps.batch, self.steps.tokens[0], self.steps.past[0]
        piece = self.table.piece_for(*point)
        if piece is None:
            return None
        activations = Activations.of(piece, *point[:2])
        return training_memory(self.shares, activations, self.pipeline, self.work, self.hw, self.capacity)

    def suggestions(self) -> list[str]:
        """Up to two settings that fit, on as few devices as can be: more copies, division, recomputation, cuts."""
        found = (f"{flags}: {bytes_(memory.total)} per device" for flags, memory in self._others() if memory.fits)
        return list(islice(found, 2))

    def _others(self) -> Iterator[tuple[str, TrainingMemory]]:
        asked, plan = self.work, self.plan
        most = min(asked.batch, self.hw.topology.devices // (plan.tp * plan.pp))
        checkpoints = dict.fromkeys((asked.grad_checkpoint, "full"))
        for dp in (plan.dp << k for k in range(most.bit_length()) if plan.dp << k <= most):
            here = replace(plan, dp=dp)
            usual, all_ = micro_batches(asked, here), group_batch(asked, here)
            zeros = range(asked.zero, 4) if dp > 1 else (asked.zero,)
            for many, checkpoint, zero in product(dict.fromkeys((min(usual, all_), all_)), checkpoints, zeros):
                work = replace(asked, micro_batches=many, grad_checkpoint=checkpoint, zero=zero)
                steps, pipeline = steps_of(work, here)[TRAIN][0][1], replace(self.pipeline, micro_batches=many)
                other = replace(self, work=work, plan=here, steps=steps, pipeline=pipeline)
                flags = [f"--dp {dp}"] * (dp != plan.dp) + [f"--zero {zero}"] * (zero != asked.zero)
                flags += [f"--grad-checkpoint {checkpoint}"] * (checkpoint != asked.grad_checkpoint)
                flags += [f"--micro-batches {many}"] * (many != usual)
                if (memory := other.memory()) is not None:
                    yield " ".join(flags), memory


_LABELS: Mapping[str, str] = {
    "gradients": "gradient_reduction",
    "weights": "weight_gathering",
    "send_recv": "hand_over",
}
