"""When each operator of a phase runs on one device, and what it does meanwhile.

A phase whose passes follow each other (a prefill, its chunks, a denoising step) is drawn whole. One that is the mean of
passes (decode) is drawn as one in their middle: a step that really happens, close to the mean. Within a pass the layers
follow each other, in them the operators, in the order of the model's code; with `--overlap` as the rules of
`tensorcast.cost.overlap` place them. Times are those of the phase: the same calls, priced once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, count
from itertools import chain as chain_of
from typing import Any, NamedTuple

import numpy as np

from tensorcast.cost.overlap import LINK, Placed, Task, beside, in_order, in_turns, lanes, plan_of, runs_of
from tensorcast.cost.passes import Passes, Priced
from tensorcast.cost.phase import WORK, Phase
from tensorcast.cost.time import BOUNDS

COMPUTE_STREAM, LINK_STREAM, BOTH = "compute", "communication", "compute, communication"
BEFORE, AFTER, HALVES = "before the layers", "after the layers", "both halves of the batch"
BACKWARD, HOST = ", backward", "waiting for the host"
SUMMED = -1
_HAND_OVER = {"stage": "to the next stage", "back": "to the stage before"}
_PLACES = {"pre": BEFORE, "post": AFTER, "": "the model"} | _HAND_OVER


class Call(NamedTuple):
    """One call of an operator. Seconds, FLOP and bytes of one device.

    `memory_bytes`: activations in use when it has run, None where the model was not traced through it.
    """

    op: str
    module: str
    stream: str
    seconds: float
    bound: str
    matrix_flops: float = 0.0
    vector_flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0
    comm_bytes: float = 0.0
    memory_bytes: float | None = None

    @property
    def streams(self) -> list[str]:
        return self.stream.split(", ")


class Slice(NamedTuple):
    """A call and when it starts, in seconds from the start of the timeline.

    `layer`: that it runs in, None outside of layers; `half`: of the batch, None where the batch is whole.
    """

    call: Call
    start_s: float
    layer: int | None = None
    half: int | None = None

    @property
    def end_s(self) -> float:
        return self.start_s + self.call.seconds


@dataclass(frozen=True)
class Run:
    """What runs between two barriers: a layer, or what lies before or after the layers.

    `name`: the layer's own, such as model.layers.3, followed by BACKWARD where a training step is on its way back;
    `kind`: runs with the same number have the same calls.
    """

    name: str
    kind: int
    layer: int | None
    slices: tuple[Slice, ...]

    @property
    def summed(self) -> bool:
        """Only sums are known; of communication the work in full, but no more time than computation does not hide."""
        return self.kind == SUMMED

    @property
    def start_s(self) -> float:
        return min(each.start_s for each in self.slices)

    @property
    def end_s(self) -> float:
        return max(each.end_s for each in self.slices)

    def calls(self) -> list[dict[str, Any]]:
        """Each call in seconds from the run's start."""
        start = self.start_s
        return [
            {name: getattr(piece.call, name) for name in ("op", "module", "stream", "bound")}
            | {"start_s": piece.start_s - start, "time_s": piece.call.seconds}
            | ({} if piece.half is None else {"layer": piece.layer, "half": piece.half + 1})
            for piece in self.slices
        ]


@dataclass(frozen=True)
class Pass:
    """One forward pass: new tokens a sequence, tokens in its cache, sequences. `host_s`: when the host is ready."""

    start_s: float
    end_s: float
    runs: tuple[Run, ...] = field(repr=False)
    batch: int = 0
    tokens: int = 0
    past: int = 0
    component: str = ""

    @property
    def through_model(self) -> bool:
        """Whether sequences go through the model; the others wait, talk or update weights."""
        return self.batch > 0

    @property
    def does(self) -> str:
        """The operators that it runs."""
        return ", ".join(dict.fromkeys(piece.call.op for run in self.runs for piece in run.slices))


@dataclass(frozen=True)
class Timeline:
    """The passes of a phase, one behind the other. `whole`: it is all of the phase, not one pass of many."""

    passes: tuple[Pass, ...]
    whole: bool

    @property
    def end_s(self) -> float:
        return self.passes[-1].end_s if self.passes else 0.0

    @property
    def slices(self) -> Iterator[tuple[Pass, Run, Slice]]:
        return ((each, run, piece) for each in self.passes for run in each.runs for piece in run.slices)

    @property
    def names(self) -> list[str]:
        """Of each pass: those through the model are numbered, the others named by what they do."""
        total, number = sum(each.through_model for each in self.passes), count(1)
        return [f"pass {next(number)} of {total}" if each.through_model else each.does for each in self.passes]

    def to_dict(self) -> dict[str, Any]:
        """Every pass, of the longest every run, and the calls of one run of each kind, in seconds from the run's start.

        A pass through the model where there is one: waiting for other stages, or an optimizer, may take longer. Of
        those that are as long as each other but for rounding it is the first.
        """
        longest = max(self.passes, key=lambda each: (each.through_model, float(f"{each.end_s - each.start_s:.6g}")))
        firsts: dict[int, Run] = {}
        for run in longest.runs:
            firsts.setdefault(run.kind, run)
        return {
            "seconds": self.end_s,
            "whole": self.whole,
            "passes": len(self.passes),
            "parts": [
                {"name": name, "start_s": each.start_s, "end_s": each.end_s, "batch": each.batch}
                for name, each in zip(self.names, self.passes, strict=True)
            ],
            "shown": {name: value for name, value in vars(longest).items() if name != "runs"},
            "runs": [
                {"name": run.name, "kind": run.kind, "start_s": run.start_s, "end_s": run.end_s} for run in longest.runs
            ],
            "kinds": [
                {
                    "kind": kind,
                    "name": run.name,
                    "count": sum(other.kind == kind for other in longest.runs),
                    "ops": run.calls(),
                }
                for kind, run in firsts.items()
            ],
        }


def timeline(phase: Phase) -> Timeline:
    """The timeline of a phase."""
    clock, passes = 0.0, []
    leaves = list(_leaves(phase))
    whole = all(leaf.passes is None or leaf.passes.steps.weight == 1 for _, leaf in leaves)
    for component, leaf, index in _drawn(leaves, whole):
        drawn = _summed(leaf, clock) if leaf.passes is None else _pass(leaf.passes, index, clock)
        passes.append(_named(drawn, component))
        clock = drawn.end_s
    return Timeline(tuple(passes), whole)


def _leaves(phase: Phase, component: str = "") -> Iterator[tuple[str, Phase]]:
    """The phases that are no sums, with the component of a pipeline of models that they belong to."""
    component = phase.component or component
    for part in phase.parts:
        yield from _leaves(part, component)
    if not phase.parts:
        yield component, phase


def _drawn(leaves: Sequence[tuple[str, Phase]], whole: bool) -> Iterator[tuple[str, Phase, int]]:
    """(component, phase, pass) in order of time: every pass, or of a mean that of most passes of each table."""
    if whole:
        for component, leaf in leaves:
            n, repeat = (len(leaf.passes.steps.tokens), leaf.passes.repeat) if leaf.passes else (1, 1)
            yield from ((component, leaf, index) for index in range(n) for _ in range(repeat))
        return
    tables: dict[int, tuple[str, Phase]] = {}
    for component, leaf in leaves:
        if leaf.passes is not None:
            most = tables.setdefault(leaf.passes.part, (component, leaf))
            if leaf.passes.count > most[1].passes.count:
                tables[leaf.passes.part] = component, leaf
    yield from ((component, leaf, 0) for component, leaf in tables.values() for _ in range(leaf.passes.repeat))
    yield from ((component, leaf, 0) for component, leaf in leaves if leaf.passes is None)


def _named(drawn: Pass, component: str) -> Pass:
    return replace(drawn, component=component)


def _summed(phase: Phase, clock: float) -> Pass:
    """A phase of which only sums are known (waiting for other stages, what is not hidden of collectives)."""
    slices, start = [], clock
    for op in phase.ops:
        if op["time_s"]:
            stream = LINK_STREAM if op["bound"] == "communication" else COMPUTE_STREAM
            work = (op[name] for name in WORK)
            slices.append(Slice(Call(op["op"], op["module"], stream, op["time_s"], op["bound"], *work), clock))
            clock += op["time_s"]
    return Pass(start, clock, (Run("", SUMMED, None, tuple(slices)),) if slices else ())


def _pass(passes: Passes, index: int, start: float) -> Pass:
    """One pass, its first operator at second `start`."""
    steps, calls = passes.steps, {}
    chains = []
    for chain, (piece, side) in zip(passes.chains, passes.sides, strict=True):
        basis = piece.basis(side.batch, steps.tokens[index], steps.past[index])[:, 0]
        priced = [_call(each, basis, index) for each in chain]
        chains.append([Task(each.row, np.array([call.seconds])) for each, call in zip(chain, priced, strict=True)])
        calls |= {id(task): call for task, call in zip(chains[-1], priced, strict=True)}
    kinds: dict[tuple[int, ...], int] = {}
    runs, clock = [], start
    for name, layer, placed in _groups(chains, passes):
        slices = tuple(
            Slice(calls[id(each.task)], clock + float(each.start[0]), inside, half) for each, inside, half in placed
        )
        kind = kinds.setdefault(tuple(id(each.task) for each, *_ in placed), len(kinds))
        runs.append(Run(name, kind, layer, slices))
        clock = max([clock, *(each.end_s for each in slices)])
    end = max(clock, start + passes.host_s)
    return Pass(
        start, end, tuple(runs), sum(side.batch for _, side in passes.sides), steps.tokens[index], steps.past[index]
    )


def _call(priced: Priced, basis: np.ndarray, index: int) -> Call:
    """One call of a row in the pass; `basis`: the monomials of its table there."""
    row, _, work, time = priced.of_pass(index)
    held, after = lanes(row), row.memory[0]
    return Call(
        row.op,
        row.module,
        COMPUTE_STREAM if LINK not in held else LINK_STREAM if len(held) == 1 else BOTH,
        float(time.seconds),
        BOUNDS[int(time.bound)],
        *(float(getattr(work, name)) for name in WORK),
        float(np.dot(after, basis)) if len(after) == len(basis) else None,
    )


Where = tuple[Placed, int | None, int | None]
"""A call from second 0 of its run on, its layer, and its half of the batch."""


def _groups(chains: Sequence[list[Task]], passes: Passes) -> Iterator[tuple[str, int | None, list[Where]]]:
    """(name, layer, calls) of what lies between barriers; two halves of a batch have none."""
    if len(chains) > 1:
        yield HALVES, None, list(_halves(chains, passes.layers))
        return
    for backwards, part in _directions(chains[0]):
        for stack, layer, tasks in runs_of(part, passes.layers, backwards):
            place = tasks[0].row.place
            name = _PLACES.get(place, stack) if layer is None else f"{stack}.{layer}"
            name += BACKWARD if backwards and place not in _HAND_OVER else ""
            if passes.overlap:
                placed = beside(plan_of(in_order(tasks)))
            else:
                starts = accumulate((task.seconds for task in tasks[:-1]), initial=np.zeros(1))
                placed = map(Placed, tasks, starts)
            yield name, layer, [(each, layer, None) for each in placed]


def _halves(chains: Sequence[list[Task]], layers: range | None) -> Iterator[Where]:
    """The calls of the halves in turns. Each half's own keep their order, which tells the layer of each."""
    runs = [[(run.layer, in_order(run.tasks)) for run in runs_of(chain, layers)] for chain in chains]
    inside = [iter([layer for layer, tasks in half for _ in tasks]) for half in runs]
    half_of = {id(task): half for half, chain in enumerate(chains) for task in chain}
    for each in in_turns([plan_of(chain_of.from_iterable(tasks for _, tasks in half)) for half in runs]):
        half = half_of[id(each.task)]
        yield each, next(inside[half]), half


def _directions(chain: Sequence[Task]) -> list[tuple[bool, list[Task]]]:
    """(backwards, rows): a training step's parts behind the first run from the last layer to the first."""
    first = next((task.row.attrs["part"] for task in chain if "part" in task.row.attrs), None)
    ahead = [task for task in chain if task.row.attrs.get("part", first) == first]
    back = [task for task in chain if task.row.attrs.get("part", first) != first]
    return [(False, ahead), *([(True, back)] if back else [])]
