"""The forward passes that a workload takes under a plan, for the fullest attention group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from tensorcast.cost.passes import Steps
from tensorcast.plan import DUAL_BATCH, TRAIN, ParallelPlan, Workload

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
    if plan.cfg > 1:  # the two predictions of a guided step are computed side by side
        work = replace(work, guidance="none")
    out: dict[str, Parts] = {}
    if work.images and work.phase != "decode":  # before the first token; no stage behind the first has a part in it
        out["vision"] = [("vision", Steps(group_batch(work, plan), (1,), (0,)))]
    for phase in work.phases:
        name = "chunked" if work.chunk and phase == "prefill" else phase
        passes = _PASSES.get(phase, _prefill)(work, batch)
        out[name] = [(table, replace(steps, cut=work.overlap == DUAL_BATCH)) for table, steps in passes]
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
    if work.encoder:  # `tokens` is what the encoder has read, `past` what the decoder has made
        return [("decode", Steps(batch, (work.input_len,) * steps, range(1, steps + 1), 1 / steps))]
    first = ceil(sum(work.seq_lens) / len(work.seq_lens)) if work.seq_lens else work.input_len
    lengths = tuple((tokens, n - first) for n in work.seq_lens)
    return [("decode", Steps(batch, (tokens,) * steps, range(first, first + steps), 1 / steps, lengths))]


def _forward(work: Workload, batch: int) -> Parts:
    """One pass over the whole input."""
    return [("forward", Steps(batch, (work.input_len,), (0,)))]


def _denoise(work: Workload, batch: int) -> Parts:
    """One denoising step, both predictions of a guided one; the prompt it reads has `input_len` tokens."""
    passes = 2 if work.guidance == "passes" else 1
    size = batch * 2 if work.guidance == "batch" else batch
    return [("denoise", Steps(size, (work.input_len,) * passes, (0,) * passes))]


def _text_encoder(work: Workload, batch: int) -> Parts:
    """One pass over prompts of `input_len` tokens, and one over those a guided step is led away from."""
    passes = 1 if work.guidance == "none" else 2
    return [("text_encoder", Steps(batch, (work.input_len,) * passes, (0,) * passes))]


def _vae(work: Workload, batch: int) -> Parts:
    """Latents become pictures or, for its encoder, pictures latents; all of the batch at once."""
    return [(work.phase, Steps(batch, (work.input_len,), (0,)))]


def _train(work: Workload, batch: int) -> Parts:
    """One micro-batch of a training step."""
    return [(TRAIN, Steps(batch, (work.input_len,), (0,)))]


_PASSES = {
    "decode": _decode, "forward": _forward, "denoise": _denoise, "text_encoder": _text_encoder,
    "vae_encoder": _vae, "vae": _vae,
    "train": _train,
}  # fmt: skip
