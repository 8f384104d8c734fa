"""Does it fit: memory of one device by kind, the largest batch and context that fit, and plans that would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import ceil

from tensorcast.cost.passes import Pipeline
from tensorcast.deployed import CacheGroup, ModelFacts, WeightGroup
from tensorcast.plan import ParallelPlan


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
        return bool(self.total <= self.capacity)  # of NumPy's numbers too

    def to_dict(self) -> dict:
        """Whole bytes: sums over fractions of a byte are off by less than one."""
        return {
            "weights_bytes": round(self.weights),
            "kv_cache_bytes": round(self.kv_cache),
            "activation_peak_bytes": round(self.activation_peak),
            "workspace_bytes": round(self.workspace),
            "reserved_bytes": round(self.reserved),
            "total_bytes": round(self.total),
            "capacity_bytes": round(self.capacity),
            "fits": self.fits,
        }


def fullest_stage(
    weights: Iterable[WeightGroup], caches: Iterable[CacheGroup], pipeline: Pipeline, lengths: Iterable[tuple[int, int]]
) -> tuple[int, float]:
    """(weights, KV cache and states) of the stage that holds most, bytes; `lengths`: (sequences, tokens of each)."""
    weights, caches, lengths = list(weights), list(caches), list(lengths)
    held = [
        (stage_weights(weights, pipeline, stage), stage_cache(caches, pipeline, stage, lengths))
        for stage in range(pipeline.stages)
    ]
    return max(held, key=sum)


def stage_weights(groups: Iterable[WeightGroup], pipeline: Pipeline, stage: int) -> int:
    """Bytes of the weights of a stage."""
    total, inside, last = 0, pipeline.layers_of(stage), pipeline.stages - 1
    ends = {"pre": (0,), "post": (last,), "ends": (0, last)}
    for group in groups:
        if group.layers:
            count = len(group.layers) if pipeline.stages == 1 else sum(layer in inside for layer in group.layers)
            total += group.nbytes * count
        elif stage in ends[group.place]:
            total += group.nbytes
    return total


def stage_cache(groups: Iterable[CacheGroup], pipeline: Pipeline, stage: int, lengths):
    """Bytes of the caches and states of a stage; the numbers in `lengths` may be arrays."""
    layers = None if pipeline.stages == 1 else pipeline.layers_of(stage)
    last = stage == pipeline.stages - 1
    held = [g for g in groups if g.layers or last]
    return sum(n * g.nbytes(t, layers if g.layers else None) for g in held for n, t in lengths)


def largest(memory: Callable[[int], Memory | None], most: int) -> int | None:
    """The largest n up to `most` for which `memory(n)` fits, 0 when not even 1 does; None where it is not known."""

    def fits(n: int) -> bool:
        found = memory(n)
        if found is None:
            raise LookupError
        return found.fits

    try:
        low, high = 0, 1
        while high <= most and fits(high):
            low, high = high, high * 2
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    except LookupError:
        return None
    return low


def suggestions(
    facts: ModelFacts, plan: ParallelPlan, pipeline: Pipeline, memory: Memory, hw, quantised: bool
) -> list[str]:
    """Up to two plans that fit, as flags: more ranks, and a narrower format the machine computes.

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
            weights = [_rescaled(group, plan, tp, width) for group in facts.weights]
            need = fullest_stage(weights, (), pipeline, ())[0] + rest
            if need <= memory.capacity:
                flags = [f"--tp {tp}"] + ([f"--ep {ep}"] if ep > 1 else []) + ([f"--quant {scheme}"] if scheme else [])
                flags += [f"--dp {plan.dp}"] * (plan.dp > 1) + [f"--pp {plan.pp}"] * (plan.pp > 1)
                out.append(f"{' '.join(flags)}: about {need / 2**30:.1f} GiB per device")
                break
    return out


def _rescaled(group: WeightGroup, plan: ParallelPlan, tp: int, width: float | None) -> WeightGroup:
    """The group under another tensor parallelism, and with `width` bytes a weight where it can be quantised."""
    nbytes = float(group.nbytes)
    if width is not None and group.quantisable:
        nbytes = min(nbytes, group.parameters * width * 1.01)  # 1 % for scales
    if group.split in ("tp", "experts"):
        nbytes = nbytes * plan.tp / tp
    return replace(group, nbytes=ceil(nbytes))
