"""The work of a request: what was asked, what is usual where nothing was, and the limits of the model. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from tensorcast.diffusion.pipeline import usual_work
from tensorcast.diffusion.work import denoise_work
from tensorcast.encoding import apart, cut_to, longest, reading_options
from tensorcast.errors import InputError
from tensorcast.models.check import text_part
from tensorcast.models.reference import DENOISE, LANGUAGE, STAGES, ModelSource
from tensorcast.options import WORK
from tensorcast.plan import (
    DUAL_BATCH,
    MOST_SEQUENCES,
    NO_OVERLAP,
    PHASES,
    TRAIN,
    ParallelPlan,
    Workload,
    checked,
)
from tensorcast.steps import micro_batches
from tensorcast.training.options import training_work


def work_of(given: Mapping[str, Any], source: ModelSource) -> tuple[Workload, tuple[str, ...]]:
    """The work, and notes on what of it was not given."""
    options, phases = {k: given[k] for k in WORK if k in given}, source.phases
    allowed = ("auto", *phases) + (("chunked", TRAIN) if phases == LANGUAGE else ())
    if options.get("phase", "auto") in PHASES and options.get("phase", "auto") not in allowed:
        raise InputError(f"--phase {options['phase']}: this model has {', '.join(allowed)}")
    options, notes = reading_options(options, source)
    if phases == DENOISE:
        options, said = usual_work(options, source)
        options, notes = denoise_work(options, source)
        notes = (*said, *notes)
    elif phases != LANGUAGE:
        options["phase"] = phases[0]
        options.setdefault("output_len", 1)
    if options.get("phase") == TRAIN:
        options, notes = training_work(options, source, min((limit for _, limit in _limits(source)), default=None))
    elif phases != DENOISE and not {"input_len", "seq_lens", "prefix_len", "max_model_len"} & given.keys():
        notes += _shorter(options, source)
    lengths = options.get("seq_lens", ())
    if isinstance(lengths, (str, bytes, Mapping)) or not isinstance(lengths, Iterable):
        raise InputError(f"--seq-lens {lengths!r}: prompt tokens of each sequence, such as 128,4096,77")
    lengths = tuple(checked("--seq-lens", length) for length in lengths)
    if "seq_lens" in options and not lengths:
        raise InputError("--seq-lens names no sequence; give the prompt tokens of each, such as 128,4096,77")
    if lengths:
        if "input_len" in options:
            raise InputError("--seq-lens gives every prompt its own length; leave --input-len out")
        batch = options.setdefault("batch", len(lengths))
        if batch != len(lengths):
            raise InputError(f"--seq-lens names {len(lengths)} sequences, --batch {batch}; leave --batch out")
        options["seq_lens"] = lengths
        options["input_len"] = max(lengths)
        if len(lengths) == 1:
            options["seq_lens"] = ()
    return Workload(**options), notes


def _shorter(options: dict[str, Any], source: ModelSource) -> tuple[str, ...]:
    """Cut the usual prompt and output, where nobody asked for others, to what the model takes; a note when it was."""
    limit = min((limit for _, limit in _limits(source)), default=None)
    usual = Workload(output_len=options.get("output_len", Workload.output_len))
    if limit is not None and apart(source):
        return cut_to(options, source, limit)
    if limit is None or limit < 8 or usual.input_len + usual.output_len <= limit:
        return ()
    output = options.setdefault("output_len", limit // 5)
    if output > limit - 2:
        return ()
    options["input_len"] = limit - output
    return (f"{source.name} takes {limit} tokens: a prompt of {limit - output} and an output of {output} assumed",)


def _limits(source: ModelSource) -> list[tuple[str, int]]:
    """The keys of the configuration that limit prompt and output together, or each alone, with what they say."""
    prefix, text = text_part(source.config)
    found = [(f"{prefix}max_position_embeddings", text), ("max_position_embeddings", source.config)]
    if source.reading.encoder:
        found.append(("max_target_positions", source.config))
    if "max_positions" in source.config:  # a graph's own word, which counts before any other
        found = [("max_positions", source.config)]
    stated = [(key, part.get(key.rpartition(".")[2])) for key, part in found]
    return [(key, limit) for key, limit in stated if isinstance(limit, int)]


def clients_of(asked: Any, work: Workload, plan: ParallelPlan) -> int | None:
    """Clients of a steady load; it takes prompts and outputs of one length."""
    if asked is None:
        return None
    clients = checked("--concurrency", asked, most=MOST_SEQUENCES)
    unfit = {
        "--overlap": work.overlap != NO_OVERLAP, "--prefix-len": work.prefix_len, "--seq-lens": work.seq_lens,
    }  # fmt: skip
    if found := [name for name, value in unfit.items() if value]:
        raise InputError(f"--concurrency does not go with {found[0]}")
    if work.phase != "auto":
        raise InputError(f"--concurrency is about prompts and outputs; leave --phase {work.phase} out")
    return clients


def check_work(work: Workload, plan: ParallelPlan, source: ModelSource, max_model_len: Any) -> None:
    """InputError when the plan cannot share the work out, or the model does not take it."""
    if plan.dp > work.batch:
        raise InputError(f"--dp {plan.dp} needs at least as many sequences: --batch {work.batch}")
    if work.seq_lens and (plan.dp > 1 or plan.pp > 1):
        raise InputError("--seq-lens goes with --tp and --ep only")
    for flag, asked in ((f"--dcp {plan.dcp}", plan.dcp > 1), ("--sequence-parallel", plan.sequence_parallel)):
        if asked and (source.phases != LANGUAGE or source.reading.encoder):
            raise InputError(f"{flag} is for language models without an encoder, which {source.name} is not")
    group = ceil(work.batch / plan.dp)
    if work.micro_batches > group:
        raise InputError(f"--micro-batches {work.micro_batches}: a group has {group} sequences; give at most {group}")
    _check_overlap(work, plan, source, group)
    (said, need), reserve = longest(work, source), 0
    if work.phase == TRAIN:
        said, need = "--input-len", work.input_len
    if max_model_len is not None:
        reserve = checked("--max-model-len", max_model_len)
        if reserve < need:
            raise InputError(f"--max-model-len {reserve}: input + output are {need} tokens; give at least {need}")
    for key, limit in _limits(source):
        if max(need, reserve) > limit:
            what = f"--max-model-len {reserve} is" if reserve else f"{said} {need} tokens are"
            how = "what its graph says" if key == "max_positions" else f"--set {key}=N changes it"
            raise InputError(f"{what} more than {source.name} takes ({key} {limit}; {how})")


def _check_overlap(work: Workload, plan: ParallelPlan, source: ModelSource, group: int) -> None:
    """InputError when the work does not run as asked: of a training step, or of halves where there are none."""
    if work.overlap == NO_OVERLAP:
        return
    if work.phase == TRAIN:
        raise InputError(f"--overlap {work.overlap} is for inference; a training step hides its collectives as it is")
    if work.overlap != DUAL_BATCH:
        return
    if source.phases in STAGES:
        raise InputError(f"--overlap {DUAL_BATCH} is for language models and encoders; give streams")
    pieces = micro_batches(work, plan)
    if group <= pieces:
        what = "a group has 1 sequence" if pieces == 1 else f"a micro-batch of {pieces} has 1 sequence"
        need = 2 * pieces * plan.dp
        raise InputError(f"--overlap {DUAL_BATCH} cuts a batch in two: {what}; give --batch {need} or more")
