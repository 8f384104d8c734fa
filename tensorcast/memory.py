"""Does it fit: memory of one device by kind, the largest batch and context that fit, and plans that would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil

from tensorcast.cost.phase import Pipeline
from tensorcast.deployed import ModelFacts, WeightGroup
from tensorcast.plan import ParallelPlan

_LIMIT = 1 << 40  # searches stop here: more tokens or sequences than anybody asks for


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device."""

    weights: int
    kv_cache: float
    activation_peak: float
    workspace: float
    reserved: int
    capacity: float

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + self.activation_peak + self.workspace + self.reserved

    @property
    def fits(self) -> bool:
        return self.total <= self.capacity

    def to_dict(self) -> dict:
        return {
            "weights_bytes": int(self.weights),
            "kv_cache_bytes": int(self.kv_cache),
            "activation_peak_bytes": int(self.activation_peak),
            "workspace_bytes": int(self.workspace),
            "reserved_bytes": int(self.reserved),
            "total_bytes": int(self.total),
            "capacity_bytes": int(self.capacity),
            "fits": self.fits,
        }


def weight_bytes(facts: ModelFacts, pipeline: Pipeline) -> int:
    """Weights of the stage that holds most."""
    return max(_stage_weights(facts.weights, pipeline, stage) for stage in range(pipeline.stages))


def _stage_weights(groups: Iterable[WeightGroup], pipeline: Pipeline, stage: int) -> int:
    total, inside = 0, pipeline.layers_of(stage)
    for group in groups:
        if group.layers:
            count = len(group.layers) if pipeline.stages == 1 else sum(layer in inside for layer in group.layers)
            total += group.nbytes * count
        elif stage == (0 if group.place == "pre" else pipeline.stages - 1):
            total += group.nbytes
    return total


def cache_bytes(facts: ModelFacts, pipeline: Pipeline, lengths: Iterable[tuple[int, int]]) -> float:
    """KV cache and states of the stage that holds most; `lengths` are (sequences, tokens of each)."""
    lengths = list(lengths)

    def of(stage: int) -> float:
        layers = None if pipeline.stages == 1 else pipeline.layers_of(stage)
        last = stage == pipeline.stages - 1
        groups = [g for g in facts.caches if g.layers or last]
        return sum(n * float(g.nbytes(t, layers if g.layers else None)) for g in groups for n, t in lengths)

    return max(of(stage) for stage in range(pipeline.stages))


def largest(fits: Callable[[int], bool], start: int = 1) -> int:
    """The largest n for which `fits(n)`, 0 when not even `start` does; `fits` must be monotone."""
    if not fits(start):
        return 0
    low, high = start, start
    while high < _LIMIT and fits(high * 2):
        high *= 2
        low = high
    high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def suggestions(facts: ModelFacts, plan: ParallelPlan, memory: Memory, hw, quantised: bool) -> list[str]:
    """Up to three plans that fit, smallest first: more ranks, and a narrower format the machine computes.

    Weights are rescaled from the deployed plan: parts cut by tensor parallelism and experts shrink, the rest stays. KV
    cache, activations and workspace are taken as they are, which more ranks never exceed.
    """
    rest = memory.total - memory.weights
    schemes: list[tuple[str, float | None]] = [("", None)]
    if not quantised:
        schemes += [(name, 1.0) for name, math in (("fp8", "fp8"), ("w8a8", "int8")) if hw.has(math)][:1]
    out: list[str] = []
    for scheme, width in schemes:
        for tp in (n for n in facts.tp_values if n >= plan.tp and n & (n - 1) == 0):
            ep = tp * plan.dp if facts.experts and facts.experts % (tp * plan.dp) == 0 else plan.ep
            if (scheme == "" and tp == plan.tp) or tp * plan.dp * plan.pp > hw.topology.devices:
                continue
            need = _rescaled(facts, plan, tp, width) + rest
            if need <= memory.capacity:
                flags = [f"--tp {tp}"] + ([f"--ep {ep}"] if ep > 1 else []) + ([f"--quant {scheme}"] if scheme else [])
                flags += [f"--dp {plan.dp}"] * (plan.dp > 1) + [f"--pp {plan.pp}"] * (plan.pp > 1)
                out.append(f"{' '.join(flags)}: about {need / 2**30:.1f} GiB per device")
                break
    return out


def _rescaled(facts: ModelFacts, plan: ParallelPlan, tp: int, width: float | None) -> int:
    total = 0
    for group in facts.weights:
        nbytes = group.nbytes * (len(group.layers) or 1)
        if width is not None and group.quantisable:
            nbytes = min(nbytes, group.parameters * (len(group.layers) or 1) * width * 1.01)  # 1 % for scales
        if group.split in ("tp", "experts"):
            nbytes = nbytes * plan.tp / tp
        total += ceil(nbytes / plan.pp)
    return total
