"""Who shares what: parameters of a rank by layer, the ranks that hold the same ones, and what ZeRO leaves of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import gcd

from tensorcast.cost.passes import Pipeline
from tensorcast.deployed import WeightGroup
from tensorcast.ops.training import state_bytes
from tensorcast.plan import ParallelPlan

WEIGHTS, GRADIENTS, STATES = 3, 2, 1  # from which ZeRO stage on they are divided


def copy_plan(plan: ParallelPlan) -> ParallelPlan:
    """The plan of the ranks whose tokens meet: one copy of the model, or as many as the experts are spread over."""
    return replace(plan, dp=plan.ep // gcd(plan.tp, plan.ep))


@dataclass(frozen=True)
class Share:
    """Parameters of one rank in one place: `layers` of the main stack alike (figures are of one), or `place` outside.

    ranks: how many hold the same ones, `stride` apart in the rank grid.
    """

    parameters: int
    nbytes: int
    ranks: int
    stride: int
    layers: tuple[int, ...] = ()
    place: str = ""

    def count(self, pipeline: Pipeline, stage: int) -> int:
        """How many of these layers (or 1 of the place) a stage has."""
        if self.layers:
            inside = pipeline.layers_of(stage)
            return len(self.layers) if pipeline.stages == 1 else sum(layer in inside for layer in self.layers)
        last = pipeline.stages - 1
        return int(stage in {"pre": (0,), "post": (last,), "ends": (0, last)}[self.place])

    def state_bytes(self, optimizer: str) -> float:
        return self.parameters * state_bytes(optimizer, self.nbytes / self.parameters)

    def left(self, zero: int, since: int) -> float:
        """The part that this rank keeps of what ZeRO divides from stage `since` on."""
        return 1 / self.ranks if zero >= since else 1.0


def shares_of(groups: Iterable[WeightGroup], plan: ParallelPlan) -> list[Share]:
    """The rank's parameters, those of a layer together; experts have fewer copies where they lie across copies."""
    within = copy_plan(plan).dp
    at: dict[tuple[bool, object], list[int]] = defaultdict(lambda: [0, 0])
    for group in groups:
        for where in group.layers or (group.place,):
            held = at[group.split == "experts", where]
            held[0] += group.parameters
            held[1] += group.nbytes
    alike: dict[tuple, list[int]] = defaultdict(list)
    for (experts, where), (parameters, nbytes) in at.items():
        inside = isinstance(where, int)
        alike[experts, parameters, nbytes, "" if inside else where] += [where] if inside else []
    return [
        Share(
            parameters,
            nbytes,
            plan.dp // within if experts else plan.dp,
            plan.tp * within if experts else plan.tp,
            tuple(layers),
            str(place),
        )
        for (experts, parameters, nbytes, place), layers in alike.items()
    ]
