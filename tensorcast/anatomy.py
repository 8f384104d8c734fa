"""What a model is made of: embedding, head, decoder layers, towers; by structure, or where its profile says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from tensorcast.errors import TransformationError
from tensorcast.layers.named import module_at
from tensorcast.models.roles import FORWARD
from tensorcast.profiles import ModelProfile


@dataclass
class Stack:
    """A list of decoder (or vision) layers. `kinds`: signature of each layer, filled when first traced."""

    path: str
    layers: list[nn.Module]
    reuse: bool = True


class Anatomy:
    """The parts of the module that steps and traces ask a TransformerModel for."""

    module: nn.Module
    config: Any
    profile: ModelProfile
    stacks: list[Stack]

    @cached_property
    def token_embedding(self) -> nn.Embedding | None:
        found = _asked(self.module, "get_input_embeddings")
        return found if isinstance(found, nn.Embedding) else None

    @cached_property
    def output_head(self) -> nn.Linear | None:
        found = _asked(self.module, "get_output_embeddings")
        return found if isinstance(found, nn.Linear) else None

    @cached_property
    def decoder(self) -> nn.Module:
        """The module that holds the decoder layers."""
        path = self.profile.stack_path
        if path is not None:
            module_at(self, path, "layers_path")
            return self.module.get_submodule(path.rpartition(".")[0])
        visual = self.profile.visual
        if visual is not None and visual.language_path is not None:
            return module_at(self, visual.language_path, "language_path")
        find = getattr(self.module, "get_decoder", None)
        return find() if find is not None else self.module

    @property
    def layers(self) -> nn.ModuleList | None:
        """The list of decoder layers; None for a model without one."""
        path = self.profile.stack_path
        if path is None:
            return getattr(self.decoder, "layers", None)
        found = module_at(self, path, "layers_path")
        if not isinstance(found, nn.ModuleList):
            raise TransformationError(
                f"profile {self.profile.model_type!r}: {path} is a {type(found).__name__}, not a list of layers"
            )
        return found

    @property
    def tower_layers(self) -> str | None:
        """Path of the vision tower's layers, where the profile names it."""
        path = self.profile.visual.vision_layers if self.profile.visual is not None else None
        if path is not None:
            module_at(self, path, "vision_layers")
        return path

    @property
    def main_stack(self) -> Stack | None:
        """The stack of decoder layers. A vision tower may well have more layers; it is not the decoder's."""
        if self.profile.stack_path is not None:
            return next((s for s in self.stacks if s.path == self.profile.stack_path), None)
        inside = {id(m) for m in self.decoder.modules()}
        found = [s for s in self.stacks if id(s.layers[0]) in inside]
        return max(found, key=lambda s: len(s.layers), default=None)

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm behind the last decoder layer."""
        stack = self.main_stack
        beside = [self.module.get_submodule(stack.path.rpartition(".")[0])] if stack is not None else []
        norms = [m for holder in (*beside, self.decoder) for name, m in holder.named_children() if "norm" in name]
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
        """Module path pattern → style, as the profile says."""
        return {**self.profile.tp_plan, **self.visual_rules}

    @property
    def visual_rules(self) -> Mapping[str, str]:
        """The part of them that cuts a vision tower, which is kept whole otherwise."""
        return self.profile.visual.plan if self.profile.visual is not None else {}

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
        visual = self.profile.visual
        if visual is not None and visual.vision_path is not None:
            module_at(self, visual.vision_path, "vision_path")
            return (visual.vision_path,)
        if self.blueprint.source.phases == FORWARD:  # every tower runs
            return ("\0",)
        parts = ("model.visual", "visual", "model.vision_tower", "vision_tower", "model.vision_model", "vision_model")
        towers = [n for n in parts if _has(self.module, n)]
        return tuple(towers) or ("\0",)


def _asked(module: nn.Module, method: str) -> Any:
    """What a module's method gives; None where it has no such method, or its class has not written it."""
    find = getattr(module, method, None)
    try:
        return find() if find is not None else None
    except NotImplementedError:  # what transformers' base classes say of methods that a class does not write
        return None


def _has(module: nn.Module, path: str) -> bool:
    for part in path.split("."):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return False
    return True
