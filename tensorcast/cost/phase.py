"""Price one phase: a table, evaluated at the steps that the phase takes, on one machine, for one rank.

Decode is the mean of its steps over all output positions, prefill the sum of its steps (one, or one a chunk). With
pipeline stages the figures are those of the slowest stage; micro-batches pass through the stages one behind the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tensorcast.cost.described import described
from tensorcast.cost.overlap import Task, hidden_seconds
from tensorcast.cost.passes import Passes, Pipeline, Priced, Steps, by_piece, count_of, rows_of
from tensorcast.cost.pricing import price
from tensorcast.cost.time import BOUNDS, Time
from tensorcast.ops.base import Work
from tensorcast.optable import OpTable, Piece, Row

WORK = ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes")
_LINEAR = {(0, 0, 0), (1, 0, 0), (1, 1, 0)}  # monomials that a ragged batch knows: 1, sequences, tokens


@dataclass
class Phase:
    """What one phase costs, per device. Times in seconds; FLOP and bytes of the rank.

    `overlapped_s`: by how much the device is done sooner than its operators one after another; None: not asked.
    `parts`: the phases that it is the sum of; `passes`: what it was priced from, where it is no sum. `component`: the
    model of a pipeline that it belongs to.
    """

    step_time_s: float
    host_time_s: float
    device_time_s: float
    launches: float
    totals: Mapping[str, float]
    mfu: float
    mbu: float
    time_by_bound_s: Mapping[str, float]
    ops: list[dict[str, Any]] = field(repr=False)
    overlapped_s: float | None = None
    parts: tuple[Phase, ...] = field(default=(), repr=False, compare=False)
    passes: Passes | None = field(default=None, repr=False, compare=False)
    component: str = ""

    @classmethod
    def sum(cls, parts: list[Phase]) -> Phase:
        """Parts of one phase that run one after another; an operator's n-th call of each part is one row."""
        step = sum(p.step_time_s for p in parts)

        def weighted(name: str) -> float:
            return sum(getattr(p, name) * p.step_time_s for p in parts) / step

        hidden = [p.overlapped_s for p in parts if p.overlapped_s is not None]
        return cls(
            step_time_s=step,
            host_time_s=sum(p.host_time_s for p in parts),
            device_time_s=sum(p.device_time_s for p in parts),
            launches=sum(p.launches for p in parts),
            totals={k: sum(p.totals[k] for p in parts) for k in WORK},
            mfu=weighted("mfu"),
            mbu=weighted("mbu"),
            time_by_bound_s={k: sum(p.time_by_bound_s[k] for p in parts) for k in BOUNDS},
            ops=_joined([p.ops for p in parts]),
            overlapped_s=sum(hidden) if hidden else None,
            parts=tuple(parts),
        )

    def to_dict(self) -> dict:
        return {
            "step_time_s": self.step_time_s,
            "host_time_s": self.host_time_s,
            **self.totals,
            "mfu": self.mfu,
            "mbu": self.mbu,
            "time_by_bound_s": dict(self.time_by_bound_s),
            **({} if self.overlapped_s is None else {"overlapped_s": self.overlapped_s}),
            "ops": [{**op, "count": round(op["count"])} for op in self.ops],
        }


def _joined(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The operators of several parts: the n-th call of each is one row."""
    calls: dict[tuple, list[dict]] = {}
    for ops in parts:
        seen: Counter = Counter()
        for op in ops:
            seen[op["op"], op["module"]] += 1
            calls.setdefault((op["op"], op["module"], seen[op["op"], op["module"]]), []).append(op)
    return [
        max(same, key=lambda op: op["time_s"]) | {k: sum(op[k] for op in same) for k in ("count", "time_s", *WORK)}
        for same in calls.values()
    ]


def evaluate(
    parts: Sequence[tuple[OpTable, Steps]],
    hw,
    *,
    pipeline: Pipeline,
    eager: bool,
    hidden: int = 0,
    item: str = "bf16",
    overlap: bool = False,
) -> Phase:
    """The phase that the tables describe, run as their steps on `hw`, one after another.

    Pipeline stages hand [batch, tokens, `hidden`] of `item` on. `overlap`: communication runs beside computation.
    """
    found_in = [(part, found) for part, (table, steps) in enumerate(parts) for found in by_piece(table, steps)]
    sides = [found for _, found in found_in]
    stages: list[list[list[list]]] = [[[[] for _ in beside] for beside in sides] for _ in range(pipeline.stages)]
    for index, beside in enumerate(sides):
        for half, (piece, steps) in enumerate(beside):
            basis = piece.basis(steps.batch, np.array(steps.tokens), np.array(steps.past))
            known: dict[tuple, tuple[Work, Time]] = {}  # blocks of a network are alike in most of their calls
            for row in rows_of(piece, pipeline, hidden, item):
                call = (row.op, *row.dims.items(), repr(row.attrs))
                if call not in known:
                    known[call] = _priced(row, piece, basis, steps, hw)
                work, time = known[call]
                for stage, buckets in enumerate(stages):
                    if count := count_of(row, pipeline, stage):
                        buckets[index][half].append(Priced(row, count, work, time))
    passes = [beside[0][1] for beside in sides]
    saved = [[_saved(chains, pipeline, n) if overlap else None for chains in at] for n, at in enumerate(stages)]
    slowest = max(range(pipeline.stages), key=lambda n: sum(map(_device_s, stages[n], passes, saved[n])))
    found, phases = [], []
    for (part, beside), chains, less in zip(found_in, stages[slowest], saved[slowest], strict=True):
        steps = beside[0][1]
        found.append(_summary(chains, steps, hw, pipeline, eager, less))
        inside = None if pipeline.stages == 1 else pipeline.layers_of(slowest)
        host = found[-1][0].host_time_s / (len(steps.tokens) * steps.weight * pipeline.micro_batches)
        drawn = Passes.kept(part, beside, chains, inside, pipeline.micro_batches, host, overlap)
        phases.append(replace(found[-1][0], passes=drawn))
    slots, busy = (np.concatenate([f[i] for f in found]) for i in (1, 2))
    if idle := pipeline.bubble(busy, passes[0].weight):
        phases.append(_bubble(pipeline.bubble(slots, passes[0].weight), idle))
    return phases[0] if len(phases) == 1 else Phase.sum(phases)


def _saved(chains, pipeline: Pipeline, stage: int) -> np.ndarray:
    """Seconds that a stage hides in each pass: of its rows, or of those of both halves."""
    inside = None if pipeline.stages == 1 else pipeline.layers_of(stage)
    return hidden_seconds([[Task(row, time.seconds) for row, _, _, time in rows] for rows in chains], inside)


def _device_s(chains, steps: Steps, saved) -> float:
    """Seconds of the device over all passes; a time that no pass changes stands for each of them."""
    n = len(steps.tokens)
    every = [np.broadcast_to(time.seconds, (n,)) * count for rows in chains for _, count, _, time in rows]
    less = 0.0 if saved is None else float(np.sum(np.broadcast_to(saved, (n,))))
    return sum(float(np.sum(seconds)) for seconds in every) - less


def _priced(row: Row, piece: Piece, basis, steps: Steps, hw) -> tuple[Work, Time]:
    coefficients = {name: np.asarray(c) for name, c in row.dims.items()}
    if steps.lengths and not _is_linear(piece, coefficients):
        new, more = np.array(steps.lengths)[:, :, None].transpose(1, 0, 2)
        past = np.array(steps.past) + more  # [sequences, passes]
        alike = piece.basis(len(steps.lengths), np.broadcast_to(new, past.shape), past)
        work, time = price(row, {n: c @ alike for n, c in coefficients.items()}, hw)
        return _one_launch(work, time, past.shape)
    if steps.lengths:
        known = {(0, 0, 0): 1, (1, 0, 0): len(steps.lengths), (1, 1, 0): sum(q for q, _ in steps.lengths)}
        basis = np.array([[known.get(m, 0)] for m in piece.monomials])
    elif not any(c[_varying(basis)].any() for c in coefficients.values()):
        basis = basis[:, :1]  # nothing in this row changes from step to step
    return price(row, {n: c @ basis for n, c in coefficients.items()}, hw)


def _is_linear(piece: Piece, coefficients) -> bool:
    keep = np.array([m in _LINEAR for m in piece.monomials])
    return not any(c[~keep].any() for c in coefficients.values())


def _one_launch(work: Work, time, shape: tuple[int, int]):
    """A ragged batch is one kernel a pass: the mean over its sequences, each priced as if all were like it.

    The overhead is that of one launch. `shape`: (sequences, passes).
    """

    def mean(value) -> np.ndarray:
        return np.broadcast_to(value, (shape[0] * shape[1],)).reshape(shape).mean(axis=0)

    total = Work(*(mean(v) for v in vars(work).values()))
    parts = {name: mean(value) for name, value in vars(time).items() if value is not None}
    return total, replace(time, **{**parts, "overhead": np.max(time.overhead)})


def _varying(basis) -> np.ndarray:
    return np.any(basis != basis[:, :1], axis=1)


def _of_each(value, n: int) -> np.ndarray:
    """One value a pass; NumPy takes its time to spread what is spread already."""
    value = np.asarray(value)
    return value if value.shape == (n,) else np.broadcast_to(value, (n,))


def _summary(chains, steps: Steps, hw, pipeline: Pipeline, eager: bool, saved):
    """(figures of the passes of one piece; seconds of each pass; of the device alone)

    `chains`: the rows of the batch, or of each of its halves; `saved`: seconds that they hide, None: not asked.
    """
    n = len(steps.tokens)
    share = steps.weight * pipeline.micro_batches

    def total(value, count) -> float:
        of_pass = np.asarray(value, dtype=float)
        return float(of_pass.item() if n == 1 else np.sum(_of_each(of_pass, n))) * count * share

    totals = dict.fromkeys(WORK, 0.0)
    by_bound = dict.fromkeys(BOUNDS, 0.0)
    halves, busy, launches, per_step = [[] for _ in chains], 0.0, 0, np.zeros(n)
    for ops, (row, count, work, time) in ((ops, row) for ops, rows in zip(halves, chains, strict=True) for row in rows):
        seconds, bounds = _of_each(time.seconds, n), _of_each(time.bound, n)
        per_step = per_step + seconds * count
        launches += count * float(np.mean(time.launches))
        op = {"op": row.op, "module": row.module, "count": count * n * share}
        if "part" in row.attrs:
            op["part"] = row.attrs["part"]
        op |= described(row, work, hw)
        op["time_s"] = total(seconds, count)
        op["bound"] = BOUNDS[int(np.bincount(bounds.reshape(-1), weights=seconds.reshape(-1) + 1e-30).argmax())]
        for name in WORK:
            op[name] = total(getattr(work, name), count)
            totals[name] += op[name]
        for index in set(bounds.tolist()):
            by_bound[BOUNDS[index]] += total(np.where(bounds == index, seconds, 0.0), count)
        if op["matrix_flops"]:
            busy += op["matrix_flops"] / hw.peak(row.attrs["math"])
        ops.append(op)
    if saved is not None:
        per_step = per_step - saved
    host = host_s(launches, hw, eager)
    slot = np.maximum(per_step, host)
    step = float(np.sum(slot)) * share
    phase = Phase(
        step_time_s=step,
        host_time_s=host * n * share,
        device_time_s=float(np.sum(per_step)) * share,
        launches=launches * n * share,
        totals=totals,
        mfu=busy / step,
        mbu=(totals["read_bytes"] + totals["write_bytes"]) / hw.memory_bw / step,
        time_by_bound_s=by_bound,
        ops=halves[0] if len(halves) == 1 else _joined(halves),
        overlapped_s=None if saved is None else total(saved, 1),
    )
    return phase, slot, per_step


def host_s(launches, hw, eager: bool):
    """The least seconds of a pass: what the host needs to start its kernels, or a captured graph."""
    return launches * hw.host_op_time_s if eager else hw.graph_launch_s


def _bubble(step: float, idle: float) -> Phase:
    """Seconds that a stage waits for the others: of the step, and of the device."""
    row = {"op": "pipeline_bubble", "module": "", "count": 1, "time_s": idle, "bound": "overhead"}
    nothing = dict.fromkeys(WORK, 0.0)
    by_bound = {**dict.fromkeys(BOUNDS, 0.0), "overhead": idle}
    return Phase(step, 0.0, idle, 0.0, nothing, 0.0, 0.0, by_bound, [{**row, **nothing}])
