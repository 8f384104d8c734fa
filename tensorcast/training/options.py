"""What `simulate --phase train` takes: language models, no options of inference; and what no other phase takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.errors import InputError
from tensorcast.models.reference import LANGUAGE, ModelSource
from tensorcast.plan import TRAIN, Workload

ONLY_TRAINING = ("optimizer", "grad_checkpoint", "zero")
ONLY_INFERENCE = (
    "output_len", "prefix_len", "seq_lens", "chunk", "mtp", "acceptance_rate", "concurrency", "max_model_len",
    "kv_cache_dtype", "attention_quant", "engine", "dcp",
)  # fmt: skip


def check_training(given: Mapping[str, Any], source: ModelSource) -> None:
    """InputError for an option or a model that does not go with the phase asked."""
    train = given.get("phase") == TRAIN
    unfit = next((name for name in (ONLY_INFERENCE if train else ONLY_TRAINING) if name in given), None)
    if unfit is not None:
        flag = f"--{unfit.replace('_', '-')}"
        what = "is about inference; --phase train takes --batch and --input-len" if train else "needs --phase train"
        raise InputError(f"{flag} {what}")
    if train and given.get("sequence_parallel"):
        raise InputError("--sequence-parallel is not modelled for --phase train; leave it out")
    if train and (source.phases != LANGUAGE or source.reading.encoder):
        raise InputError(f"--phase train is for language models without an encoder, which {source.name} is not")


def training_work(options: Mapping[str, Any], source: ModelSource, limit: int | None) -> tuple[dict[str, Any], tuple]:
    """The options of the `Workload`, and notes on what was assumed; `limit`: positions the model has."""
    out, notes = {"output_len": 1, **options}, ()
    if "input_len" not in out and limit is not None and limit < Workload.input_len:
        out["input_len"] = limit
        notes = (f"{source.name} takes {limit} tokens: sequences of {limit} assumed",)
    return out, notes
