"""A model while it is deployed: the blueprint, what was asked, and what every step did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from tensorcast.anatomy import Anatomy, Stack
from tensorcast.errors import DeploymentError, TransformationError, near_names
from tensorcast.kernels import KERNELS, load_kernels
from tensorcast.kernels.choice import KernelChoice, KernelRequest, OpSlot
from tensorcast.layers.moe import idle_parameters
from tensorcast.layers.patching import GlobalPatch
from tensorcast.models.blueprint import Blueprint
from tensorcast.models.build import count_parameters
from tensorcast.models.roles import FORWARD, SAMPLES, TOKENS
from tensorcast.pipelines import call_own, get_model_profile, pipeline_of, profile_origin
from tensorcast.plan import MOST_TOKENS, ParallelPlan
from tensorcast.profiles import ModelProfile
from tensorcast.recording import Recorder, StepReport, require_model
from tensorcast.trace.library import define_operators

PROBE = {SAMPLES: 16_000}
"""Length of the input that facts are read from, where 192 are too few for the first convolutions."""


@dataclass(frozen=True)
class Deployment:
    """Everything that decides the deployed module: plan, quantisation, kernels, drafts, reuse."""

    plan: ParallelPlan = field(default_factory=ParallelPlan)
    quant: Any = None  # quantization.QuantPlan
    kernels: tuple[KernelRequest, ...] = ()
    mtp: int = 0
    reuse: bool = True
    hw: Any = None  # HardwareProfile, for what its kernels and formats allow; None = any machine
    canvas: Any = None  # diffusion.canvas.Canvas, what a denoiser works on
    images: tuple[tuple[int, int], ...] = ()  # (height, width) in pixels of every image of a request


class TransformerModel(Anatomy):
    """A transformers model taken through the transformation steps.

    `module`, `config`, `profile`, `plan`, `quant`, `steps`, `kernels` (slots), `stacks`. Make one with
    `TransformerModel(blueprint, deployment)`: that runs the pipeline registered for the model type, or the nine steps.
    """

    def __init__(self, blueprint: Blueprint, deployment: Deployment = Deployment(), *, whole: bool = False) -> None:
        """`whole`: stop before shard_model, which `cut_for` runs; the nine steps only."""
        load_kernels()
        define_operators()  # those registered since the last model
        self.blueprint, self.deployment = blueprint, deployment
        self.module: nn.Module = blueprint.module
        self.config = blueprint.config
        self.profile: ModelProfile = get_model_profile(blueprint.model_type)
        self.profile_origin = profile_origin(blueprint.model_type)
        self.steps: list[StepReport] = []
        self.stacks: list[Stack] = []
        self.patches: list[GlobalPatch] = []
        self.notes: list[str] = []
        self.states: dict[tuple, tuple] = {}  # (layer, kind, number) → shape without batch and dtype, as last kept
        self.waived: dict[str, str] = {}
        self.drafts: nn.Module | None = None
        self.quantised: dict[str, Any] = {}
        self.unmatched: tuple[str, ...] = ()  # rules of the configuration's tensor-parallel plan that name nothing
        self.image_tokens = 0  # that the images of a request become
        self.image_counts: tuple[int, ...] = ()  # of each image, where their tokens see each other
        self.shown = deployment.images  # the images of the next pass over them
        self.polynomial = False  # whether another plan's tables have shown that all sizes are polynomials
        self.tp_values: tuple[int, ...] = (1,)  # degrees shard_model can cut the whole model into
        self.parameters = count_parameters(self.module)
        self.count_active()
        self.kernels = KernelChoice(
            deployment.kernels,
            deployment.hw,
            KernelRequest.table(self.profile.kernels, "profile", f"profile {self.profile.model_type!r}, kernels:"),
            self.profile.variants,
        )
        self.recorder = Recorder(self)
        self.tied  # noqa: B018  (asked before sharding can untie)
        if self.profile_origin not in ("", "builtin"):
            self.notes.append(f"profile {self.profile.model_type!r} from {self.profile_origin}")
        self.pipeline = pipeline_of(blueprint.model_type)
        with self._on_meta():
            self._run_pipeline(skip=("shard_model",) if whole else ())
            if not whole:
                self._finish()

    def cut_for(self, plan: ParallelPlan) -> TransformerModel:
        """Run shard_model for `plan` on a model that was left whole; works once."""
        from tensorcast.transformations import shard_model

        self.deployment = replace(self.deployment, plan=plan)
        with self._on_meta():
            shard_model(self)
            self._finish()
        return self

    @contextmanager
    def _on_meta(self) -> Iterator[None]:
        default_dtype = torch.get_default_dtype()
        try:
            torch.set_default_dtype(self.blueprint.dtype)
            with torch.device("meta"), torch.no_grad():
                yield
        finally:
            torch.set_default_dtype(default_dtype)

    # -- what was asked ------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> ParallelPlan:
        return self.deployment.plan

    @property
    def quant(self):
        return self.deployment.quant

    @property
    def hw(self):
        return self.deployment.hw

    @property
    def slots(self) -> Mapping[str, OpSlot]:
        """The kernel slots by "op@path", read-only."""
        return MappingProxyType({f"{slot.op}@{slot.path}": slot for slot in self.kernels.slots})

    @cached_property
    def facts(self):
        """What one rank stores, layer by layer (deployed.ModelFacts); a small prefill is traced for the caches."""
        from tensorcast.trace.facts import facts_of
        from tensorcast.trace.run import trace_step

        phases = self.blueprint.source.phases
        return facts_of(self, trace_step(self, "prefill" if "prefill" in phases else phases[0], *self.probe))

    @property
    def probe(self) -> tuple[int, int, int]:
        """(batch, tokens, tokens in cache) of the small forward that facts are read from."""
        reading = self.blueprint.source.reading
        return 2, reading.fixed or min(PROBE.get(reading.unit, 192), self.most_positions or MOST_TOKENS), 0

    @property
    def most_positions(self) -> int | None:
        """Tokens that an encoder may read at most; None where nothing limits them, and for a decoder alone."""
        source = self.blueprint.source
        found = getattr(self.text_config, "max_position_embeddings", None)
        read = source.phases == FORWARD or source.reading.encoder
        return found if read and source.reading.unit == TOKENS and isinstance(found, int) and found > 1 else None

    @property
    def weight_bytes(self) -> int:
        """Bytes of one rank's weights."""
        return sum(group.nbytes * (len(group.layers) or 1) for group in self.facts.weights)

    @property
    def weight_params(self) -> int:
        """Parameters of one rank, tied ones once."""
        return sum(group.parameters * (len(group.layers) or 1) for group in self.facts.weights)

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that one token adds to one rank's caches, all layers together."""
        return sum(group.token_bytes / group.shards * (len(group.layers) or 1) for group in self.facts.caches)

    @property
    def architecture(self) -> str:
        return self.blueprint.architecture

    @property
    def dtype_name(self) -> str:
        from tensorcast.formats import format_named

        return format_named(str(self.blueprint.dtype)).name

    @property
    def kv_format(self) -> str:
        fmt = self.quant.kv_cache if self.quant is not None else None
        return fmt or self.dtype_name

    @property
    def index_format(self) -> str:
        """Format of a sparse-attention indexer's key cache: as the KV cache."""
        return self.kv_format

    @property
    def attention_format(self) -> str | None:
        """Format the attention products run in when it is not the model's own."""
        return self.quant.attention if self.quant is not None else None

    # -- steps ---------------------------------------------------------------------------------------------------------

    def report(self, name: str, matched: int, reason: str) -> TransformerModel:
        """Record a step: applied when it matched something, else skipped with `reason`."""
        self.steps.append(StepReport(name, "applied" if matched else "skipped", reason, matched))
        return self

    def waive(self, what: str, reason: str) -> None:
        """Declare that a demanded step (or the op of a demanded kernel) is not needed here; printed in the report."""
        from tensorcast.transformations import STANDARD

        known = {*(step.__name__ for step in STANDARD), *KERNELS.ops()}
        if what not in known:
            near = near_names(what, known) or sorted(known)
            raise TransformationError(f"waive {what!r}: no step and no op; nearest: {', '.join(near)}")
        self.waived[what] = reason

    def replace_module(self, path: str, new: nn.Module) -> None:
        """Put `new` where the module at `path` is. What was installed on the old one is gone with it."""
        if not isinstance(new, nn.Module):
            raise TransformationError(f"replace_module {path!r}: {type(new).__name__} is no nn.Module")
        try:
            old = self.module.get_submodule(path)
        except AttributeError:
            near = near_names(path, [name for name, _ in self.module.named_modules()])
            raise TransformationError(f"no module {path!r}; nearest: {', '.join(near) or 'none'}") from None
        if not path or any(old is layer for stack in self.stacks for layer in stack.layers):
            what = "the model itself" if not path else "a layer that maybe_reuse_layers has grouped"
            raise TransformationError(f"replace_module {path!r}: {what}; replace layers before that step")
        parent, _, leaf = path.rpartition(".")
        before = count_parameters(self.module)
        setattr(self.module.get_submodule(parent), leaf, new)
        self.parameters += count_parameters(self.module) - before
        self.kernels.drop(path)

    def count_active(self) -> None:
        """Set `active_parameters`: those that one token uses. Drafts do not count."""
        self.active_parameters = self.parameters - idle_parameters(self.module, self.drafts)

    def modules(self, within: str = "") -> list[tuple[str, nn.Module]]:
        """(path, module) of every module, or of those below the path `within`."""
        root = self.module.get_submodule(within) if within else self.module
        return [(f"{within}.{path}" if within and path else path or within, m) for path, m in root.named_modules()]

    def modules_of(self, class_name: str) -> list[tuple[str, nn.Module]]:
        """(path, module) of every module whose class is `class_name`, bare or dotted."""
        return [
            (path, m)
            for path, m in self.module.named_modules()
            if f".{type(m).__module__}.{type(m).__qualname__}".endswith(f".{class_name}")
        ]

    def _run_pipeline(self, skip: tuple[str, ...]) -> None:
        from tensorcast.transformations import run_standard

        if self.pipeline is None:
            run_standard(self, skip=skip)
            return
        key, origin = self.pipeline.key, self.pipeline.origin
        self.notes.append(f"pipeline {key!r} from {origin} ran in place of the nine steps")
        what = f"the pipeline for {key!r} ({origin})"
        require_model(self, call_own(what, self.pipeline.value, self), what)

    def _finish(self) -> None:
        """What is checked when all steps have run."""
        self.recorder.unnamed()
        self.kernels.check(self)
        self._check_demands()

    def _check_demands(self) -> None:
        """What was asked must have been done by some step, whatever pipeline ran."""
        plan, applied = self.plan, {s.name for s in self.steps if s.status == "applied"}
        degrees = " ".join(
            f"--{n} {getattr(plan, n)}" for n in ("tp", "ep", "sp", "cfg", "dcp") if getattr(plan, n) > 1
        )
        demands = {
            "shard_model": degrees,
            "quantize_model": self.quant is not None and self.quant.quantises and f"--quant ({self.quant.source})",
            "maybe_enable_mtp": self.deployment.mtp > 0 and f"--mtp {self.deployment.mtp}",
        }
        for step, asked in demands.items():
            if not asked or step in applied:
                continue
            if step in self.waived:
                self.notes.append(f"{step} waived: {self.waived[step]}")
                continue
            who = repr(self.blueprint.model_type)
            if self.pipeline is not None:
                who = f"{self.pipeline.key!r} ({self.pipeline.origin})"
            raise DeploymentError(f"the pipeline for {who} did not run {step} but {asked} was asked")


def deployed_model(blueprint: Blueprint, deployment: Deployment) -> TransformerModel:
    """The blueprint taken through the steps, as the object for its kind."""
    if blueprint.kind == "diffusers":
        from tensorcast.diffusion.model import DiffusersTransformerModel

        return DiffusersTransformerModel(blueprint, deployment)
    return TransformerModel(blueprint, deployment)
