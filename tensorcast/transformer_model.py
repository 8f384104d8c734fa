"""A model while it is deployed: the blueprint, what was asked, and what every step did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from tensorcast.errors import DeploymentError, TransformationError
from tensorcast.kernels import load_kernels
from tensorcast.kernels.registry import KernelChoice, KernelRequest
from tensorcast.layers.experts import experts_weights
from tensorcast.layers.moe import is_router
from tensorcast.layers.patching import GlobalPatch
from tensorcast.models.blueprint import Blueprint
from tensorcast.pipelines import PIPELINES, ModelProfile, profile_for
from tensorcast.plan import ParallelPlan


@dataclass(frozen=True)
class Deployment:
    """Everything that decides the deployed module: plan, quantisation, kernels, drafts, reuse."""

    plan: ParallelPlan = field(default_factory=ParallelPlan)
    quant: Any = None  # quantization.QuantPlan
    kernels: tuple[KernelRequest, ...] = ()
    mtp: int = 0
    reuse: bool = True
    hw: Any = None  # HardwareProfile, for what its kernels and formats allow; None = any machine


@dataclass
class StepReport:
    """What one transformation step did."""

    name: str
    status: str  # applied | skipped
    reason: str
    matched: int = 0

    def to_dict(self) -> dict:
        return {"name": self.name, "status": self.status, "reason": self.reason, "matched": self.matched}


@dataclass
class Stack:
    """A list of decoder (or vision) layers. `kinds`: signature of each layer, filled when first traced."""

    path: str
    layers: list[nn.Module]
    reuse: bool = True


class TransformerModel:
    """A transformers model taken through the transformation steps.

    `module`, `config`, `profile`, `plan`, `quant`, `steps`, `kernels` (slots), `stacks`. Make one with
    `TransformerModel(blueprint, deployment)`: that runs the pipeline registered for the model type, or the nine steps.
    """

    def __init__(self, blueprint: Blueprint, deployment: Deployment = Deployment()) -> None:
        load_kernels()
        self.blueprint, self.deployment = blueprint, deployment
        self.module: nn.Module = blueprint.module
        self.config = blueprint.config
        self.profile: ModelProfile = profile_for(blueprint.model_type)
        self.steps: list[StepReport] = []
        self.stacks: list[Stack] = []
        self.patches: list[GlobalPatch] = []
        self.notes: list[str] = []
        self.waived: dict[str, str] = {}
        self.drafts: nn.Module | None = None
        self.quantised: dict[str, Any] = {}
        self.tp_values: tuple[int, ...] = (1,)  # degrees shard_model can cut the whole model into
        self.parameters = sum(p.numel() for p in self.module.parameters())
        self.active_parameters = self.parameters - idle_parameters(self.module)
        self.kernels = KernelChoice(list(deployment.kernels), deployment.hw, self.profile.kernels)
        default_dtype = torch.get_default_dtype()
        try:
            torch.set_default_dtype(blueprint.dtype)
            with torch.device("meta"), torch.no_grad():
                self._run_pipeline()
        finally:
            torch.set_default_dtype(default_dtype)
        self._check_demands()

    # -- what was asked ------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> ParallelPlan:
        return self.deployment.plan

    @property
    def quant(self):
        return self.deployment.quant

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

    # -- what the model is made of -------------------------------------------------------------------------------------

    @cached_property
    def token_embedding(self) -> nn.Embedding | None:
        find = getattr(self.module, "get_input_embeddings", None)
        found = find() if find is not None else None
        return found if isinstance(found, nn.Embedding) else None

    @cached_property
    def output_head(self) -> nn.Linear | None:
        find = getattr(self.module, "get_output_embeddings", None)
        found = find() if find is not None else None
        return found if isinstance(found, nn.Linear) else None

    @cached_property
    def decoder(self) -> nn.Module:
        """The module that holds the decoder layers."""
        find = getattr(self.module, "get_decoder", None)
        return find() if find is not None else self.module

    @property
    def main_stack(self) -> Stack | None:
        """The stack of decoder layers. A vision tower may well have more layers; it is not the decoder's."""
        inside = {id(m) for m in self.decoder.modules()}
        found = [s for s in self.stacks if id(s.layers[0]) in inside]
        return max(found, key=lambda s: len(s.layers), default=None)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm behind the last decoder layer."""
        norms = [m for name, m in self.decoder.named_children() if "norm" in name]
        if not norms:
            raise TransformationError(f"{self.architecture}: no norm behind the decoder layers")
        return norms[-1]

    @cached_property
    def tied(self) -> bool:
        """Whether head and token embedding are one parameter in the checkpoint. Asked before anything is cut."""
        head, token = self.output_head, self.token_embedding
        return head is not None and token is not None and head.weight is token.weight

    @property
    def rotary_kernel(self):
        slot = next((s for s in self.kernels.slots if s.op == "rotary"), None)
        return slot.kernel if slot is not None else None

    @property
    def tp_rules(self) -> Mapping[str, str]:
        return self.profile.tp_plan

    @property
    def config_tp_plan(self) -> Mapping[str, str]:
        plan = getattr(self.module, "_tp_plan", None) or getattr(self.text_config, "base_model_tp_plan", None)
        return plan or {}

    @property
    def text_config(self):
        find = getattr(self.config, "get_text_config", None)
        return find(decoder=True) if find is not None else self.config

    @property
    def unsharded(self) -> tuple[str, ...]:
        """Path prefixes that every rank keeps whole: a vision tower, when only text is run."""
        parts = ("model.visual", "visual", "model.vision_tower", "vision_tower", "model.vision_model", "vision_model")
        towers = [n for n in parts if _has(self.module, n)]
        return tuple(towers) or ("\0",)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def report(self, name: str, matched: int, reason: str) -> TransformerModel:
        """Record a step: applied when it matched something, else skipped with `reason`."""
        self.steps.append(StepReport(name, "applied" if matched else "skipped", reason, matched))
        return self

    def waive(self, step: str, reason: str) -> None:
        """Declare that a demanded step is not needed here; printed in the report."""
        self.waived[step] = reason

    def replace_module(self, path: str, new: nn.Module) -> None:
        """Put `new` where the module at `path` is."""
        parent, _, leaf = path.rpartition(".")
        setattr(self.module.get_submodule(parent), leaf, new)

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

    def _run_pipeline(self) -> None:
        from tensorcast.transformations import run_standard

        self.tied  # noqa: B018  (asked before sharding can untie)
        key = PIPELINES.match(self.blueprint.model_type)
        if key is None:
            result = run_standard(self)
        else:
            entry = next(e for e in PIPELINES.entries() if e.key == key)
            self.notes.append(f"pipeline {key!r} from {entry.origin} ran in place of the nine steps")
            result = entry.value(self)
        if result is not None and result is not self:
            raise TransformationError(
                f"the pipeline for {self.blueprint.model_type!r} returned {type(result).__name__}"
            )
        self.kernels.check(self.blueprint.source.name)

    def _check_demands(self) -> None:
        """What was asked must have been done by some step, whatever pipeline ran."""
        plan, applied = self.plan, {s.name for s in self.steps if s.status == "applied"}
        demands = {
            "shard_model": (plan.tp > 1 or plan.ep > 1) and f"--tp {plan.tp} --ep {plan.ep}",
            "quantize_model": self.quant is not None and self.quant.quantises and f"--quant ({self.quant.source})",
            "maybe_enable_mtp": self.deployment.mtp > 0 and f"--mtp {self.deployment.mtp}",
        }
        for step, asked in demands.items():
            if not asked or step in applied:
                continue
            if step in self.waived:
                self.notes.append(f"{step} waived: {self.waived[step]}")
                continue
            raise DeploymentError(
                f"the pipeline for {self.blueprint.model_type!r} did not run {step} but {asked} was asked"
            )


def idle_parameters(module: nn.Module) -> int:
    """Expert parameters that one token does not use: those of all but its top_k experts."""
    idle = 0
    for block in module.modules():
        routers = [m for m in block.children() if is_router(m)]
        for child in block.children():
            weights = experts_weights(child)
            if weights is not None and routers:
                total, experts = sum(p.numel() for p in child.parameters(recurse=False)), weights[0].shape[0]
                idle += total - total * routers[0].top_k // experts
    return idle


def _has(module: nn.Module, path: str) -> bool:
    for part in path.split("."):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return False
    return True
