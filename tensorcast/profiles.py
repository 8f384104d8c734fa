"""ModelProfile: what the structure of a model type does not show, checked field by field when it is registered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from tensorcast.errors import InputError, near_names

STYLES = ("column", "row", "column_gather", "row_split", "vocab", "replicated")
"""How a module may be split over ranks (layers.state.Shard): by outputs, by inputs, by outputs and then gathered, by
inputs that every rank has whole, by rows of a table, not at all."""

_N = TypeVar("_N", "MoEFieldNames", "MlaFieldNames")


@dataclass(frozen=True, kw_only=True)
class MoEFieldNames:
    """Attributes of an MoE block. None = the block has no such part; an absent optional part needs no None."""

    gate: str = "gate"
    experts: str = "experts"
    shared_experts: str | None = "shared_experts"
    shared_experts_gate: str | None = "shared_experts_gate"
    top_k: str | None = "top_k"
    norm_topk_prob: str | None = "norm_topk_prob"

    REQUIRED = ("gate", "experts")

    def __post_init__(self) -> None:
        _check_names(self)


@dataclass(frozen=True, kw_only=True)
class MlaFieldNames:
    """Attributes of a latent attention module. The query comes from q_proj, or from all of q_a, its norm and q_b."""

    config: str | None = "config"
    layer_idx: str = "layer_idx"
    num_heads: str = "num_heads"
    q_lora_rank: str | None = "q_lora_rank"
    qk_nope_head_dim: str = "qk_nope_head_dim"
    qk_rope_head_dim: str = "qk_rope_head_dim"
    qk_head_dim: str | None = "qk_head_dim"
    kv_lora_rank: str = "kv_lora_rank"
    v_head_dim: str = "v_head_dim"
    q_proj: str | None = "q_proj"
    q_a_proj: str | None = "q_a_proj"
    q_b_proj: str | None = "q_b_proj"
    kv_a_proj_with_mqa: str = "kv_a_proj_with_mqa"
    kv_b_proj: str = "kv_b_proj"
    o_proj: str = "o_proj"
    q_a_layernorm: str | None = "q_a_layernorm"
    kv_a_layernorm: str = "kv_a_layernorm"

    REQUIRED = (
        "layer_idx", "num_heads", "qk_nope_head_dim", "qk_rope_head_dim", "kv_lora_rank", "v_head_dim",
        "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "kv_a_layernorm",
    )  # fmt: skip
    LATENT_QUERY = ("q_a_proj", "q_a_layernorm", "q_b_proj")

    def __post_init__(self) -> None:
        _check_names(self)
        if self.q_proj is None and None in [getattr(self, name) for name in self.LATENT_QUERY]:
            raise InputError(f"MlaFieldNames: give q_proj, or all of {', '.join(self.LATENT_QUERY)}")


@dataclass(frozen=True, kw_only=True)
class VisualConfig:
    """Where a vision-language model keeps its parts, as module paths; None = found by structure.

    `vision_layers` and `language_layers` are lists of layers. The plans (module path pattern → style) split linears of
    the tower's merger and feed-forwards over the ranks, which otherwise keep the tower whole.
    """

    vision_path: str | None = None
    vision_layers: str | None = None
    language_path: str | None = None
    language_layers: str | None = None
    merger_plan: Mapping[str, str] = field(default_factory=dict)
    mlp_plan: Mapping[str, str] = field(default_factory=dict)

    PATHS = ("vision_path", "vision_layers", "language_path", "language_layers")

    def __post_init__(self) -> None:
        for name in self.PATHS:
            _check_text("VisualConfig", name, getattr(self, name), optional=True)
        for name in ("merger_plan", "mlp_plan"):
            _check_plan("VisualConfig", name, getattr(self, name))

    @property
    def plan(self) -> Mapping[str, str]:
        return {**self.merger_plan, **self.mlp_plan}


@dataclass(frozen=True, kw_only=True)
class ModelProfile:
    """What the structure of a model type does not show. Every field but the key is optional.

    model_type: a name, or a pattern with `*`, `?`, `[…]`. model_family: groups related types in listings.

    Mixture of experts. moe_module_name: class of the block around the experts, bare or dotted; needed where the experts
    are a list of modules. moe_gate_returns_raw_logits: the tool adds softmax and top-k to the gate.
    moe_num_experts_key: path of the expert count in the configuration, "text_config.num_experts" or its segments; it
    must agree with the modules (None: `num_experts`, where the configuration has it). moe_field_names_override: what
    the block calls its parts. custom_expert_module_type: `T(experts, index)` makes expert `index` of an experts module
    whose own layout is unknown. moe_block_forward: `forward(block, hidden_states)` in place of the block's own.

    Drafts. mtp_block_module_name: class of a draft layer's decoder block (None: that of the last layer).
    mtp_layers_key: configuration key with the number of draft layers.

    Latent attention. mla_module_name: class of the attention module; mla_field_names_override: what it calls its parts.

    Vision-language. visual: where the parts are. vl_patch_method: called with the model inside wrap_model.

    config_patch: called with the configuration before the module is built. layers_path: the list of decoder layers.
    tp_plan: module path pattern → one of `STYLES`. kernels: "op[/variant][@glob]" → kernel
    name. variants: op → variant. packed: False where tokens of different sequences must not share one row, so that
    sequences of different lengths cannot run together. defaults: fields (dotted where nested) that the configuration
    class leaves at None or contradictory, with the published model's values: what `default_config` makes.

    Code. forwards: "Class.method" → function(module, …) in place of that method, or the name of a function of the
    model's file → what replaces it; for code that needs values a traced model has not got. inputs: `inputs(model,
    step)` gives arguments of one forward in place of the usual ones. caches: kind of layer → `cache(options, past)`,
    what a layer of that kind remembers of `past` tokens; for kinds that keep more than keys, values and states.
    """

    model_type: str
    model_family: str | None = None
    moe_module_name: str | None = None
    moe_gate_returns_raw_logits: bool = False
    moe_num_experts_key: str | Sequence[str] | None = None
    moe_field_names_override: MoEFieldNames | Mapping[str, str | None] | None = None
    custom_expert_module_type: type | None = None
    moe_block_forward: Callable | None = None
    mtp_block_module_name: str | None = None
    mtp_layers_key: str | None = None
    mla_module_name: str | None = None
    mla_field_names_override: MlaFieldNames | Mapping[str, str | None] | None = None
    visual: VisualConfig | None = None
    vl_patch_method: Callable[[Any], Any] | None = None
    config_patch: Callable[[Any], Any] | None = None
    layers_path: str | None = None
    tp_plan: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    packed: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    forwards: Mapping[str, Callable] = field(default_factory=dict)
    inputs: Callable[[Any, Any], Mapping[str, Any]] | None = None
    caches: Mapping[str, Callable[[Mapping, int], Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        who = f"model profile {self.model_type!r}"
        _check_text("model profile", "model_type", self.model_type)
        for name in _TEXTS:
            _check_text(who, name, getattr(self, name), optional=True)
        for name in ("moe_block_forward", "vl_patch_method", "config_patch", "inputs"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InputError(f"{who}: {name} must be callable, not {value!r}")
        for name in ("moe_gate_returns_raw_logits", "packed"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{who}: {name} must be True or False, not {getattr(self, name)!r}")
        if self.custom_expert_module_type is not None and not isinstance(self.custom_expert_module_type, type):
            raise InputError(
                f"{who}: custom_expert_module_type must be a class, not {self.custom_expert_module_type!r}"
            )
        if self.visual is not None and not isinstance(self.visual, VisualConfig):
            raise InputError(f"{who}: visual must be a VisualConfig, not {self.visual!r}")
        _check_plan(who, "tp_plan", self.tp_plan)
        for name in ("kernels", "variants"):
            _check_texts(who, name, getattr(self, name))
        _check_forwards(who, self.forwards)
        if not isinstance(self.defaults, Mapping) or not all(isinstance(key, str) for key in self.defaults):
            raise InputError(f"{who}: defaults must map field names to values, not {self.defaults!r:.80}")
        object.__setattr__(self, "moe_num_experts_key", _segments(who, self.moe_num_experts_key))
        _ = self.moe_fields, self.mla_fields  # unknown keys are refused here, not when a model is built
        for name, needs in _NEEDS.items():
            if getattr(self, name) and getattr(self, needs) is None:
                raise InputError(f"{who}: {name} without {needs}; name the class it is about")

    @property
    def moe_fields(self) -> MoEFieldNames:
        return _names(self.model_type, "moe_field_names_override", MoEFieldNames, self.moe_field_names_override)

    @property
    def mla_fields(self) -> MlaFieldNames:
        return _names(self.model_type, "mla_field_names_override", MlaFieldNames, self.mla_field_names_override)

    @property
    def stack_path(self) -> str | None:
        """The list of decoder layers, where the profile names it."""
        return self.layers_path or (self.visual.language_layers if self.visual is not None else None)


_TEXTS = (
    "model_family", "moe_module_name", "mtp_block_module_name", "mtp_layers_key", "mla_module_name", "layers_path",
)  # fmt: skip
# Fields that say more about the class which another field names.
_NEEDS = {
    "moe_gate_returns_raw_logits": "moe_module_name",
    "moe_field_names_override": "moe_module_name",
    "custom_expert_module_type": "moe_module_name",
    "mla_field_names_override": "mla_module_name",
}


def _names(model_type: str, name: str, kind: type[_N], override: Any) -> _N:
    """The field names with `override` applied; InputError for a key that is none."""
    if isinstance(override, kind):
        return override
    who = f"model profile {model_type!r}: {name}"
    if override is not None and not isinstance(override, Mapping):
        raise InputError(f"{who} must be {kind.__name__} or a mapping, not {override!r}")
    known = [f.name for f in fields(kind)]
    for key in override or {}:
        if key not in known:
            near = near_names(key, known) or known
            raise InputError(f"{who}: unknown field {key!r}; nearest: {', '.join(near)}")
    return kind(**(override or {}))


def _check_names(names: MoEFieldNames | MlaFieldNames) -> None:
    for f in fields(names):
        _check_text(type(names).__name__, f.name, getattr(names, f.name), optional=f.name not in names.REQUIRED)


def _check_text(who: str, name: str, value: Any, optional: bool = False) -> None:
    if value is None and optional:
        return
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{who}: {name} must be a non-empty string, not {value!r}")


def _check_texts(who: str, name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"{who}: {name} must be a mapping, not {value!r}")
    for key, text in value.items():
        _check_text(f"{who}: {name}", "a key", key)
        _check_text(f"{who}: {name}", repr(key), text)


def _check_forwards(who: str, forwards: Any) -> None:
    if not isinstance(forwards, Mapping):
        raise InputError(f"{who}: forwards must be a mapping, not {forwards!r}")
    for name, function in forwards.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)*", name):
            raise InputError(f"{who}: forwards: a key must be 'Class.method' or a function's name, not {name!r}")
        if not callable(function):
            raise InputError(f"{who}: forwards: {name} must be a function of the module, not {function!r}")


def _check_plan(who: str, name: str, plan: Any) -> None:
    _check_texts(who, name, plan)
    for pattern, style in plan.items():
        if style not in STYLES:
            raise InputError(f"{who}: style {style!r} of {pattern!r} in {name}; one of {', '.join(STYLES)}")


def _segments(who: str, key: Any) -> tuple[str, ...] | None:
    """A dotted path or its segments, as segments."""
    if key is None:
        return None
    segments = key.split(".") if isinstance(key, str) else key
    if not isinstance(segments, Sequence) or not segments or not all(isinstance(s, str) and s for s in segments):
        raise InputError(f"{who}: moe_num_experts_key must be a dotted path or its segments, not {key!r}")
    return tuple(segments)
