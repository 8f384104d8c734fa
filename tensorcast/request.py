"""A request, resolved and validated once: model, machine, plan, precision, work. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensorcast.config_file import kernels_of
from tensorcast.custom.loading import Custom, defined_at
from tensorcast.custom.sources import NONE as NO_SOURCES
from tensorcast.custom.sources import Sources
from tensorcast.diffusion.canvas import Canvas
from tensorcast.diffusion.dit_cache import Schedule
from tensorcast.diffusion.pipeline import Stage, check_guidance, experts_of, pictures_given, stages_of
from tensorcast.diffusion.work import check_options
from tensorcast.encoding import check_reading
from tensorcast.errors import DeploymentError, InputError
from tensorcast.formats import format_named, machine_computes
from tensorcast.hardware.load import hardware
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.kernels.choice import KernelRequest
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
from tensorcast.options import PLAN, given_options, kernels, overrides, texts
from tensorcast.plan import TRAIN, ParallelPlan, Workload
from tensorcast.quantization.plan import QuantPlan, plan_from_request
from tensorcast.serving.engines import BARE, Engine, engine_named
from tensorcast.training.options import check_training
from tensorcast.training.shares import copy_plan
from tensorcast.vision.processor import folder_settings
from tensorcast.vision.work import image_options
from tensorcast.work import check_work, clients_of, work_of


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
    standing: tuple[str, ...] = ()  # notes that do not depend on the work
    given: Mapping[str, Any] = field(default_factory=dict)  # the options, under their short names
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
        sources = Sources.of(custom, folder=custom_dir, no_plugin=texts("no-plugin", no_plugin))
        if hw is None:
            raise InputError("no machine; give hw (--hw), a known name or a YAML file")
        given = given_options(options)
        reference, own = _model(model, sources)
        plan = ParallelPlan(**{k: given[k] for k in PLAN if k in given})
        machine = hardware(hw)
        machine.topology.validate(plan.devices)
        source = resolve_model(
            reference, overrides=overrides(given.get("overrides")), layers=given.get("layers"), custom=own
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
        dtype, notes = _dtype(source, given.get("dtype"), machine)
        quant = plan_from_request(
            given.get("quant", "auto"),
            source.config,
            source.quant_side,
            machine.has,
            given.get("kv_cache_dtype"),
            given.get("attention_quant"),
            texts("exclude", given.get("exclude")),
            bool(given.get("quant_lm_head", False)),
            dtype,
            source.folder,
        )
        runtime = given.get("runtime", "graph")
        if runtime not in ("graph", "eager"):
            raise InputError(f"--runtime {runtime!r}: graph or eager")
        engine = engine_named(str(given.get("engine", BARE)))
        if engine.mx_activations and machine_computes("mxfp8", machine.has):
            quant = quant.with_mx_activations()
        asked = cls(
            source=source,
            hw=machine.preferring(engine.kernels) if engine.kernels else machine,
            asked_hw=str(hw) if isinstance(hw, str) else machine.name,
            plan=plan,
            work=Workload(),
            quant=quant,
            dtype=dtype,
            kernels=(*kernels(given.get("kernel")), *kernels_of(given.get("config"))),
            reuse=bool(given.get("reuse", True)),
            eager=runtime == "eager",
            engine=engine,
            trust_remote_code=trust_remote_code,
            sources=sources,
            standing=(*source.notes, *notes, *quant.notes, *_stored_only(quant, machine), *engine.notes),
            given=given,
        ).doing()
        return replace(asked, stages=stages_of(asked), experts=experts_of(source)) if source.parts else asked

    def doing(self, **options: Any) -> Request:
        """The same deployment with other work: what is asked here takes the place of what was."""
        given, source, plan = {**self.given, **options}, self.source, self.plan
        check_reading(given, source, plan)
        work, said = work_of(given, source)
        check_work(work, plan, source, given.get("max_model_len"))
        check_guidance(work, plan, source)
        if work.dit_cache:
            Schedule.parse(work.dit_cache)
        return replace(
            self,
            work=work,
            max_model_len=int(given["max_model_len"]) if "max_model_len" in given else None,
            utilization=_share(given.get("gpu_memory_utilization", 1.0)),
            concurrency=clients_of(given.get("concurrency"), work, plan),
            notes=(*said, *self.standing),
        )

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
            "plan": [getattr(self.traced_plan, name) for name in ("tp", "ep", "dp", "dcp", "sequence_parallel")],
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


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise InputError(f"--gpu-memory-utilization {value!r}: a share above 0, at most 1")
    return float(value)


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
