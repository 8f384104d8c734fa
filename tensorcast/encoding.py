"""What `simulate` asks of encoders and encoder-decoders: lengths that they fix, options that say nothing of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.errors import InputError
from tensorcast.models.reference import ModelSource
from tensorcast.models.roles import FORWARD, FRAMES, IMAGES, SAMPLES, TOKENS
from tensorcast.plan import ParallelPlan, Workload

_SHARED = ("prefix_len", "chunk", "seq_lens", "mtp", "acceptance_rate", "concurrency", "max_model_len")
TEN_SECONDS = {SAMPLES: 160_000, FRAMES: 1_000}  # at 16 kHz, and 100 frames a second
ONLY_DECODERS = (*_SHARED, "output_len", "kv_cache_dtype")


def check_reading(given: Mapping[str, Any], source: ModelSource, plan: ParallelPlan) -> None:
    """InputError for an option that does not go with how the model reads its input."""
    reading, name = source.reading, source.name
    if source.custom is None and source.phases == FORWARD:
        what, unfit = "it makes no tokens and keeps no cache", ONLY_DECODERS
    elif reading.encoder:
        what, unfit = "its encoder reads the whole input at once, and its decoder has a cache of its own", _SHARED
    else:
        return
    if found := next((option for option in unfit if option in given), None):
        raise InputError(f"--{found.replace('_', '-')} does not go with {name}: {what}")
    if reading.encoder and plan.pp > 1:
        raise InputError(f"--pp {plan.pp} does not go with {name}: every decoder layer needs what the encoder read")
    asked = given.get("input_len")
    if reading.fixed and asked not in (None, reading.fixed):
        what = (
            "reads pictures of one size" if reading.unit == IMAGES else f"always reads {reading.fixed} {reading.unit}"
        )
        raise InputError(f"--input-len {asked}: {name} {what}; leave it out (--batch counts requests)")


def reading_options(options: Mapping[str, Any], source: ModelSource) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options of the `Workload` with what the way of reading decides, and notes on what was not given."""
    out, reading, notes = dict(options), source.reading, ()
    if reading.fixed:
        out["input_len"] = reading.fixed
    elif reading.unit in TEN_SECONDS and "input_len" not in out:
        out["input_len"] = TEN_SECONDS[reading.unit]
        notes = (f"ten seconds of sound assumed: an input of {out['input_len']} {reading.unit}",)
    if reading.encoder:
        out["encoder"] = True
    return out, notes


def apart(source: ModelSource) -> bool:
    """Whether prompt and output share no sequence: there is no output, or the decoder has a cache of its own."""
    return source.phases == FORWARD or source.reading.encoder


def cut_to(options: dict[str, Any], source: ModelSource, limit: int) -> tuple[str, ...]:
    """Cut the usual input, and output of a decoder, to `limit` positions each; a note when one was."""
    usual = {"input_len": Workload.input_len} if source.reading.unit == TOKENS else {}
    if source.reading.encoder:
        usual["output_len"] = Workload.output_len
    cut = {name: limit for name, length in usual.items() if name not in options and length > limit}
    options |= cut
    told = " and ".join(f"an {name.removesuffix('_len')} of {limit}" for name in cut)
    return (f"{source.name} takes {limit} tokens: {told} assumed",) if cut else ()


def longest(work: Workload, source: ModelSource) -> tuple[str, int]:
    """(what it is, positions) of the longest sequence that a model's position limit is about."""
    if not apart(source):
        return "--input-len + --output-len =", work.input_len + work.output_len
    lengths = {"--input-len": work.input_len} if source.reading.unit == TOKENS else {}
    if source.reading.encoder:
        lengths["--output-len"] = work.output_len
    name = max(lengths, key=lambda name: lengths[name], default="--input-len")
    return name, lengths.get(name, 0)
