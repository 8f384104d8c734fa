"""The forward passes that a workload takes under a plan, for the fullest attention group."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from tensorcast.cost.phase import Steps
from tensorcast.plan import ParallelPlan, Workload

Parts = list[tuple[str, Steps]]  # (table, passes priced with it)


def group_batch(work: Workload, plan: ParallelPlan) -> int:
    """Sequences of the fullest attention group."""
    return ceil(work.batch / plan.dp)


def micro_batches(work: Workload, plan: ParallelPlan) -> int:
    """Micro-batches a group's sequences are cut into: as asked, else one for each pipeline stage."""
    return work.micro_batches or min(plan.pp, group_batch(work, plan))


def steps_of(work: Workload, plan: ParallelPlan) -> Mapping[str, Parts]:
    """Phase → the tables and passes that make it up."""
    batch = ceil(group_batch(work, plan) / micro_batches(work, plan))
    out: dict[str, Parts] = {}
    for phase in work.phases:
        name = "chunked" if work.chunk and phase == "prefill" else phase
        out[name] = _PASSES.get(phase, _prefill)(work, batch)
    return out


def _prefill(work: Workload, batch: int) -> Parts:
    if work.seq_lens:
        mean = ceil(sum(work.seq_lens) / len(work.seq_lens))
        return [("prefill", Steps(batch, (mean,), (0,), lengths=tuple((n, 0) for n in work.seq_lens)))]
    end, size = work.input_len, work.chunk or work.input_len - work.prefix_len
    cuts = [(min(size, end - start), start) for start in range(work.prefix_len, end, size)]
    out: Parts = []
    for table, chosen in (
        ("prefill", [c for c in cuts if c[1] == 0]),
        ("chunked", [c for c in cuts if c[1] > 0 and c[0] > 1]),
        ("decode", [c for c in cuts if c[1] > 0 and c[0] == 1]),
    ):
        if chosen:
            tokens, past = zip(*chosen, strict=True)
            out.append((table, Steps(batch, tokens, past)))
    return out


def _decode(work: Workload, batch: int) -> Parts:
    """One pass for each output position after the first, which the prefill yields."""
    tokens, steps = work.mtp + 1, max(work.output_len - 1, 1)
    first = ceil(sum(work.seq_lens) / len(work.seq_lens)) if work.seq_lens else work.input_len
    lengths = tuple((tokens, n - first) for n in work.seq_lens)
    return [("decode", Steps(batch, (tokens,) * steps, range(first, first + steps), 1 / steps, lengths))]


def _forward(work: Workload, batch: int) -> Parts:
    """One pass over the whole input."""
    return [("forward", Steps(batch, (work.input_len,), (0,)))]


def _denoise(work: Workload, batch: int) -> Parts:
    """One denoising step; the prompt it reads has `input_len` tokens."""
    return [("denoise", Steps(batch, (work.input_len,), (0,)))]


_PASSES = {"decode": _decode, "forward": _forward, "denoise": _denoise}
