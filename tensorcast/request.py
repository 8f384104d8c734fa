"""A request, resolved and validated once: model, machine, plan, precision, work. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

from tensorcast.config_file import kernels_of
from tensorcast.custom.loading import Custom, defined_at
from tensorcast.custom.sources import NONE as NO_SOURCES
from tensorcast.custom.sources import Sources
from tensorcast.diffusion.canvas import Canvas
from tensorcast.diffusion.dit_cache import Schedule
from tensorcast.diffusion.pipeline import Stage, check_guidance, experts_of, pictures_given, stages_of, usual_work
from tensorcast.diffusion.work import check_options, denoise_work
from tensorcast.encoding import apart, check_reading, cut_to, longest, reading_options
from tensorcast.errors import DeploymentError, InputError, near_names
from tensorcast.formats import format_named, machine_computes
from tensorcast.hardware.load import hardware
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.kernels.choice import KernelRequest
from tensorcast.models.check import text_part
from tensorcast.models.reference import (
    DENOISE,
    LANGUAGE,
    VAE,
    VAE_ENCODER,
    ModelSource,
    as_role,
    resolve_model,
    with_role,
)
from tensorcast.plan import MOST_SEQUENCES, PHASES, TRAIN, ParallelPlan, Workload, checked
from tensorcast.quantization.plan import QuantPlan, plan_from_request
from tensorcast.serving.engines import BARE, Engine, engine_named
from tensorcast.training.options import check_training, training_work
from tensorcast.training.shares import copy_plan
from tensorcast.vision.processor import folder_settings
from tensorcast.vision.work import image_options

PLAN = ("tp", "ep", "dp", "pp", "sp", "cfg")
WORK = (
    "phase", "batch", "input_len", "output_len", "prefix_len", "seq_lens", "chunk", "mtp", "acceptance_rate",
    "micro_batches", "moe_imbalance", "image", "images", "frames", "steps", "guidance", "dit_cache", "optimizer",
    "grad_checkpoint", "zero",
)  # fmt: skip
PRECISION = ("quant", "kv_cache_dtype", "attention_quant", "exclude", "quant_lm_head")
OTHER = (
    "overrides", "layers", "dtype", "runtime", "kernel", "reuse", "max_model_len", "gpu_memory_utilization", "engine",
    "concurrency", "config",
)  # fmt: skip
KNOWN = (*PLAN, *WORK, *PRECISION, *OTHER)
SPELLINGS = {
    "tensor_parallel_size": "tp", "expert_parallel_size": "ep", "data_parallel_size": "dp",
    "pipeline_parallel_size": "pp", "ulysses_size": "sp", "cfg_parallel": "cfg", "batch_size": "batch",
    "isl": "input_len", "osl": "output_len", "set": "overrides", "images": "image", "no_reuse": "reuse",
    "kernels": "kernel",
}  # fmt: skip
"""The other spellings of the flags, with `_` for `-`."""


@dataclass(frozen=True)
class Request:
    """What was asked, with every name resolved."""

    source: ModelSource
    hw: HardwareProfile
    asked_hw: str
    plan: ParallelPlan
    work: Workload
    quant: QuantPlan
    dtype: str
    kernels: tuple[KernelRequest, ...] = ()
    reuse: bool = True
    eager: bool = False
    max_model_len: int | None = None
    utilization: float = 1.0
    trust_remote_code: bool = False
    engine: Engine = field(default_factory=lambda: engine_named(BARE))
    concurrency: int | None = None  # clients under load, None = not asked
    sources: Sources = NO_SOURCES  # user code that counts
    notes: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()  # of a diffusion pipeline, besides its denoiser
    experts: tuple[str, ...] = ()  # other denoisers in memory, each of which takes some of the steps

    @classmethod
    def of(
        cls,
        *,
        model: Any = None,
        hw: Any,
        custom: Any = None,
        trust_remote_code: bool = False,
        custom_dir: bool = True,
        no_plugin: Any = (),
        idle: bool = False,
        **options: Any,
    ) -> Request:
        """Resolve and validate; raises a TensorcastError that names the option and what would work.

        `model` is a reference or a Python object. `custom`: files or packages of the user, one of which may define the
        model. `custom_dir`: what ./custom_model registers counts. Both are loaded when something has to be built; a
        file that is named is loaded at once, because it may say what the model is. `idle`: no pass will be run, so that
        a language model gets the shortest work, which it takes however few positions it has.
        """
        sources = Sources.of(custom, folder=custom_dir, no_plugin=_texts("no-plugin", no_plugin))
        if hw is None:
            raise InputError("no machine; give hw (--hw), a known name or a YAML file")
        given = _given(options)
        reference, own = _model(model, sources)
        plan = ParallelPlan(**{k: given[k] for k in PLAN if k in given})
        machine = hardware(hw)
        machine.topology.validate(plan.devices)
        source = resolve_model(
            reference, overrides=_overrides(given.get("overrides")), layers=given.get("layers"), custom=own
        )
        known = with_role(source)
        if known is None:
            from tensorcast.models.recipes import role_of_class

            sources.load()
            known = as_role(source, role_of_class(source, trust_remote_code))
        source = known
        if idle or given.get("phase") == DENOISE[0]:
            source = replace(source, parts=())
        given = image_options(given, source)
        check_options(given, source, plan)
        check_reading(given, source, plan)
        check_training(given, source)
        if idle and source.phases == LANGUAGE and not source.reading.fixed and "seq_lens" not in given:
            given = {"input_len": 1, "output_len": 1, **given}
        work, said = _workload(given, source)
        dtype, notes = _dtype(source, given.get("dtype"), machine)
        quant = plan_from_request(
            given.get("quant", "auto"),
            source.config,
            source.quant_side,
            machine.has,
            given.get("kv_cache_dtype"),
            given.get("attention_quant"),
            _texts("exclude", given.get("exclude")),
            bool(given.get("quant_lm_head", False)),
            dtype,
            source.folder,
        )
        check_work(work, plan, source, given.get("max_model_len"))
        check_guidance(work, plan, source)
        if work.dit_cache:
            Schedule.parse(work.dit_cache)
        runtime = given.get("runtime", "graph")
        if runtime not in ("graph", "eager"):
            raise InputError(f"--runtime {runtime!r}: graph or eager")
        engine = engine_named(str(given.get("engine", BARE)))
        if engine.mx_activations and machine_computes("mxfp8", machine.has):
            quant = quant.with_mx_activations()
        share = given.get("gpu_memory_utilization", 1.0)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise InputError(f"--gpu-memory-utilization {share!r}: a share above 0, at most 1")
        asked = cls(
            source=source,
            hw=machine.preferring(engine.kernels) if engine.kernels else machine,
            asked_hw=str(hw) if isinstance(hw, str) else machine.name,
            plan=plan,
            work=work,
            quant=quant,
            dtype=dtype,
            kernels=(*_kernels(given.get("kernel")), *kernels_of(given.get("config"))),
            reuse=bool(given.get("reuse", True)),
            eager=runtime == "eager",
            max_model_len=int(given["max_model_len"]) if "max_model_len" in given else None,
            utilization=float(share),
            engine=engine,
            concurrency=_concurrency(given.get("concurrency"), work, plan),
            trust_remote_code=trust_remote_code,
            sources=sources,
            notes=(*source.notes, *notes, *said, *quant.notes, *_stored_only(quant, machine), *engine.notes),
        )
        return replace(asked, stages=stages_of(asked), experts=experts_of(source)) if source.parts else asked

    def deployment(self) -> dict[str, Any]:
        """The fields of the `Deployment` that this request asks for."""
        return {
            "plan": self.traced_plan,
            "quant": self.quant,
            "kernels": self.kernels,
            "mtp": self.work.mtp,
            "reuse": self.reuse,
            "hw": self.hw,
            "canvas": self.canvas,
            "images": self.work.image_sizes,
        }

    @property
    def traced_plan(self) -> ParallelPlan:
        """The plan of the ranks whose tokens meet: in training, `dp` counts copies of the whole model."""
        return copy_plan(self.plan) if self.work.phase == TRAIN else self.plan

    @property
    def canvas(self) -> Canvas | None:
        """What one denoising step works on; None for any other model."""
        if self.source.phases not in (DENOISE, VAE, VAE_ENCODER):
            return None
        given = pictures_given(self.source, self.work) if self.source.phases == DENOISE else ()
        return Canvas(*self.work.image_size, self.work.frames, self.work.input_len, given)

    def cache_key(self) -> Mapping[str, Any]:
        """Everything the deployed model and its tables depend on."""
        return {
            "model": self.source.digest,
            "phases": self.source.phases,
            "name": self.source.name,
            "origin": self.source.origin,
            "remote": self._remote_files(),
            "custom": self.sources.stamps(),
            "plan": [self.traced_plan.tp, self.traced_plan.ep, self.traced_plan.dp],
            "quant": repr(self.quant),
            "dtype": self.dtype,
            "kernels": repr(self.kernels),
            "machine": [self.hw.kind, self.hw.compute_capability, sorted(self.hw.features), dict(self.hw.kernels)],
            "reuse": self.reuse,
            "mtp": self.work.mtp,
            "images": [self.work.images, folder_settings(self.source.folder)] if self.work.images else [],
            "canvas": self.canvas and [self.work.image, self.work.frames, self.plan.sp, self.plan.cfg],
        }

    def _remote_files(self) -> list[tuple[str, float, int]]:
        """The model's own code files, where they may run: name, time, size."""
        if not self.trust_remote_code or self.source.folder is None:
            return []
        return [(p.name, p.stat().st_mtime, p.stat().st_size) for p in sorted(self.source.folder.glob("*.py"))]


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that have a value, under their short names; an unknown one is an error."""
    given: dict[str, Any] = {}
    for asked, value in options.items():
        name = SPELLINGS.get(asked, asked)
        if asked == "no_reuse":
            name, value = "reuse", not value
        if name not in KNOWN:
            near = near_names(name, (*KNOWN, *SPELLINGS))
            raise InputError(f"unknown option {name!r}" + (f"; nearest: {', '.join(near)}" if near else ""))
        if value is None:
            continue
        if name in given and given[name] != value:
            raise InputError(f"{asked} {value!r}: given twice, as {name} {given[name]!r} too; give it once")
        given[name] = value
    return given


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """A repeatable option: one text or several."""
    texts = (value,) if isinstance(value, str) else value
    if texts is None:
        return ()
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"--{name} {value!r}: a text or a list of texts")
    return tuple(texts)


def _kernels(value: Any) -> tuple[KernelRequest, ...]:
    """`--kernel` texts, or a mapping of the same: {"attention": "flash"}."""
    if isinstance(value, Mapping):
        return tuple(KernelRequest.of(key, name, "asked", f"kernels {key}={name}") for key, name in value.items())
    return tuple(KernelRequest.parse(text) for text in _texts("kernel", value))


def _overrides(value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InputError(f'overrides {value!r}: a mapping such as {{"num_hidden_layers": 4}}')
    return value


def _model(model: Any, sources: Sources) -> tuple[str | Mapping | None, Custom | None]:
    """(reference or configuration, model given as Python), one of the two at least."""
    custom = sources.load() if sources.paths else None
    if isinstance(model, Mapping):
        return model, custom
    if model is not None and not isinstance(model, (str, os.PathLike)):
        from tensorcast.models.objects import check_model

        check_model(model)
        if custom is not None:
            raise InputError(f"the model is given twice: {custom.origin}, and as an object; give one")
        return None, Custom(model, defined_at(model))
    if model is None and custom is None:
        how = "give a name, a folder or a config.json, or --custom with a file that defines __model__"
        raise InputError(f"--model is missing; {how}")
    return None if model is None else str(model), custom


def _workload(given: Mapping[str, Any], source: ModelSource) -> tuple[Workload, tuple[str, ...]]:
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


def _dtype(source: ModelSource, asked: str | None, machine: HardwareProfile) -> tuple[str, tuple[str, ...]]:
    """The model's floating-point format: asked, else the configuration's; the other 16-bit one where that is absent."""
    if asked is not None:
        fmt = format_named(asked)
        if fmt.name not in ("fp32", "bf16", "fp16"):
            raise InputError(f"--dtype {asked}: one of bf16, fp16, fp32 (quantise with --quant)")
        if not machine.has(fmt.name):
            has = ", ".join(machine.peaks)
            raise DeploymentError(f"--dtype {asked}: {machine.name} does not compute {fmt.name}; it has {has}")
        return fmt.name, ()
    text = source.config.get("text_config") or {}
    said = next((v for c in (source.config, text) for k in ("dtype", "torch_dtype") if (v := c.get(k))), None)
    notes: tuple[str, ...] = ()
    if said is None or said == "auto":
        fmt, notes = format_named("bf16"), ("the configuration names no dtype: bf16 assumed",)
    else:
        fmt = format_named(said)
    if not machine.has(fmt.name):
        other = "fp16" if machine.has("fp16") else "bf16"
        return other, (*notes, f"{machine.name} does not compute {fmt.name}: simulated in {other}")
    return fmt.name, notes


def _stored_only(quant: QuantPlan, machine: HardwareProfile) -> tuple[str, ...]:
    """A note when the machine holds the KV cache in a format it cannot compute in."""
    if machine_computes(quant.kv_cache, machine.has):
        return ()
    return (f"{machine.name} does not compute {quant.kv_cache}: the KV cache is stored in it and widened when read",)


def _concurrency(asked: Any, work: Workload, plan: ParallelPlan) -> int | None:
    """Clients of a steady load; it takes prompts and outputs of one length, and no pipeline."""
    if asked is None:
        return None
    clients = checked("--concurrency", asked, most=MOST_SEQUENCES)
    unfit = {"--mtp": work.mtp, "--prefix-len": work.prefix_len, "--seq-lens": work.seq_lens, "--pp": plan.pp > 1}
    if found := [name for name, value in unfit.items() if value]:
        raise InputError(f"--concurrency does not go with {found[0]}")
    if work.phase != "auto":
        raise InputError(f"--concurrency is about prompts and outputs; leave --phase {work.phase} out")
    return clients


def check_work(work: Workload, plan: ParallelPlan, source: ModelSource, max_model_len: Any) -> None:
    if plan.dp > work.batch:
        raise InputError(f"--dp {plan.dp} needs at least as many sequences: --batch {work.batch}")
    if work.seq_lens and (plan.dp > 1 or plan.pp > 1):
        raise InputError("--seq-lens goes with --tp and --ep only")
    group = ceil(work.batch / plan.dp)
    if work.micro_batches > group:
        raise InputError(f"--micro-batches {work.micro_batches}: a group has {group} sequences; give at most {group}")
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
