"""What `simulate` asks of a denoiser: sizes not given come from its pipelines, what cannot apply is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.diffusion.canvas import pipeline_facts
from tensorcast.diffusion.families import denoiser
from tensorcast.errors import DeploymentError, InputError
from tensorcast.models.reference import DENOISE, ModelSource
from tensorcast.plan import ParallelPlan

ONLY_DENOISE = ("image", "frames", "steps", "guidance", "dit_cache")
ONLY_LANGUAGE = (
    "output_len", "prefix_len", "seq_lens", "chunk", "mtp", "acceptance_rate", "concurrency", "max_model_len",
    "kv_cache_dtype", "micro_batches", "dcp", "sequence_parallel",
)  # fmt: skip
IMAGE = "1024x1024"


def check_options(given: Mapping[str, Any], source: ModelSource, plan: ParallelPlan) -> None:
    """InputError or DeploymentError for an option that says nothing of this kind of model."""
    denoises = source.phases == DENOISE
    unfit = next((name for name in (ONLY_LANGUAGE if denoises else ONLY_DENOISE) if name in given), None)
    if unfit is not None:
        what = "a denoiser makes no tokens and keeps no cache" if denoises else "it is for denoisers of diffusers"
        raise InputError(f"--{unfit.replace('_', '-')} does not go with {source.name}: {what}")
    if not denoises and plan.sp > 1:
        raise DeploymentError("--sp (Ulysses) applies to diffusion transformers; use --tp for a language model")
    if not denoises and plan.cfg > 1:
        raise DeploymentError(f"--cfg-parallel {plan.cfg} does not go with {source.name}: it is for guided denoisers")
    if denoises and plan.pp > 1:
        raise DeploymentError(f"--pp {plan.pp}: a denoiser runs as one stage; use --sp, --tp or --dp")
    if plan.sp > 1 and plan.ep > 1:
        raise DeploymentError(f"--sp {plan.sp} does not go with --ep {plan.ep}: tokens of experts would be cut twice")


def denoise_work(options: dict[str, Any], source: ModelSource) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options of the `Workload` of one denoising step, and notes on what was not given."""
    facts, notes = pipeline_facts(source.config, source.beside), []
    family = denoiser(str(source.config["_class_name"]))
    options = {"phase": DENOISE[0], "output_len": 1, "image": IMAGE, **options}
    if "input_len" not in options:
        options["input_len"] = facts.text_tokens or 1
        if facts.text_tokens:
            notes.append(f"prompts of {facts.text_tokens} tokens, as in {facts.name}; --input-len changes it")
    if "frames" not in options:
        stated = 1 if facts.frames is None else facts.frames or source.config.get("sample_frames") or 0
        options["frames"] = family.frames or stated
        if not options["frames"]:
            raise InputError(f"--frames is missing: {source.name} makes videos, and nothing says how long they are")
    elif facts.frames is None and family.frames is None and facts.names and options["frames"] != 1:
        raise InputError(f"--frames {options['frames']}: {source.name} makes single images; leave --frames out")
    if "steps" not in options:
        usual = f" ({facts.steps} in {facts.name})" if facts.steps else ""
        notes.append(f"latency of one denoising step; --steps N{usual} multiplies it")
    if family.fixed:
        notes.append(family.fixed)
    if not source.parts:
        notes.append("the denoiser alone: text encoder and VAE are not in these figures; --batch counts its sequences")
    return options, tuple(notes)
