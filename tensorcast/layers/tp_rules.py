"""Which rule of tensor parallelism speaks for a module.

The first of these that names it: the model's profile, the plan in its configuration, the module's own declaration
(`tensor_parallel_mode` of a tensorcast.nn.Linear), and the table below, which goes by the last part of the path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from tensorcast.errors import DeploymentError, near_names

# What attention reads its queries, keys and values with, by what model code calls them.
QUERY = ("q_proj", "query", "q_lin", "Wq", "project_q", "query_proj", "to_q", "q")
KEY = ("k_proj", "key", "k_lin", "Wk", "project_k", "key_proj", "to_k", "k")
VALUE = ("v_proj", "value", "v_lin", "Wv", "project_v", "value_proj", "to_v", "v")
FUSED = ("qkv_proj", "query_key_value", "c_attn", "Wqkv", "img_attn_qkv", "txt_attn_qkv", "img_qkv_proj")
ATTENTION_INPUTS = (*QUERY, *KEY, *VALUE, *FUSED)

# Serving engines split these so, whatever the model: by the end of a module's path, the longest that fits.
LEAVES: Mapping[str, str] = {
    **dict.fromkeys(ATTENTION_INPUTS, "column"),
    **dict.fromkeys(("q_b_proj", "kv_b_proj", "pos_query_proj", "pos_key_proj"), "column"),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "fc1", "linear_fc1"), "column"),
    **dict.fromkeys(("o_proj", "down_proj", "w2", "out_proj", "fc2", "linear_fc2"), "row"),
    **dict.fromkeys(("in_proj", "in_proj_qkvz", "in_proj_ba"), "column"),
    **dict.fromkeys(("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"), "column"),
    **dict.fromkeys(
        ("dense_h_to_4h", "intermediate.dense", "c_fc", "fc_in", "lin1", "w_0", "w_1", "ffn.0", "Wi"), "column"
    ),
    **dict.fromkeys(("dense_4h_to_h", "output.dense", "c_proj", "fc_out", "lin2", "w_out", "ffn.2", "Wo"), "row"),
    **dict.fromkeys(("attention.dense", "self_attention.dense", "self_attn.dense", "out_lin", "attention_out"), "row"),
    "multi_head_attention.dense": "row",
    **dict.fromkeys(("wi", "wi_0", "wi_1", "intermediate_dense", "ffn"), "column"),
    **dict.fromkeys(("o", "wo", "Wo", "output_dense", "ffn_output"), "row"),
    **dict.fromkeys(("add_q_proj", "add_k_proj", "add_v_proj", "txt_kv_proj", "net.0.proj"), "column"),
    **dict.fromkeys(("to_out", "to_out.0", "to_add_out", "img_attn_proj", "txt_attn_proj", "net.2"), "row"),
    "lm_head": "column_gather",
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa", "wq_b", "wk", "weights_proj"), "replicated"),
    **dict.fromkeys(("shared_expert_gate", "eh_proj"), "replicated"),
}
CONFIG_STYLES: Mapping[str, str] = {
    **dict.fromkeys(("colwise", "packed_colwise"), "column"),
    **dict.fromkeys(("rowwise", "packed_rowwise"), "row"),
    **dict.fromkeys(("colwise_gather_output", "colwise_rep"), "column_gather"),
    **dict.fromkeys(("rowwise_split_input", "rowwise_rep"), "row_split"),
    **dict.fromkeys(("replicated_with_grad_allreduce", "mla_kv_a_proj", "replicate"), "replicated"),
    "embedding_rowwise": "vocab",
    "embedding_colwise": "column_gather",
    # Named on parents of the linears: experts, sinks and the sum behind shared experts are found by structure.
    **dict.fromkeys(("grouped_gemm", "ep_dispatch_experts", "moe_tp_experts", "moe_identity_expert"), "structure"),
    **dict.fromkeys(("local_params", "all_reduce"), "structure"),
}
"""The words of transformers' plans → ours (see `layers.state.Shard`)."""

LINEAR = ("column", "row", "column_gather", "row_split", "replicated")
TABLE = ("vocab", "column_gather", "replicated")


@dataclass(frozen=True)
class Rule:
    """How one module is split, and which rule said so. No style: no rule names the module."""

    style: str | None = None
    source: str = ""


class Rules:
    """The rules of one model under `--tp`; they remember what they were asked for."""

    def __init__(self, model) -> None:
        self.model, self.used = model, Counter()
        self.profile, self.config = model.tp_rules, model.config_tp_plan
        for pattern, style in self.config.items():
            if style not in CONFIG_STYLES:
                near = near_names(style, CONFIG_STYLES, 1)
                hint = f"; nearest: {near[0]}" if near else ""
                raise DeploymentError(
                    f"--tp {model.plan.tp}: the parallel style {style!r} of {pattern!r} in the configuration's plan is "
                    f"not known{hint}; known: {', '.join(CONFIG_STYLES)}"
                )

    def of(self, path: str, module: nn.Module) -> Rule:
        """The rule of a linear or an embedding; DeploymentError for a style that it cannot have."""
        rule = self._plan(path, module)
        if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            rule = Rule("replicated", "part of torch's own attention")  # which reads its weights without calling it
        allowed = TABLE if isinstance(module, nn.Embedding) else LINEAR
        if rule.style is not None and rule.style not in allowed:
            what = type(module).__name__
            raise DeploymentError(f"--tp: {path} is a {what}, which cannot be split as {rule.style} ({rule.source})")
        return rule

    def _plan(self, path: str, module: nn.Module) -> Rule:
        own, declared = getattr(module, "tensor_parallel_mode", None), None
        if own is not None:
            declared = Rule(own, "declared by the module")
        for pattern, style in self.profile.items():
            if fnmatchcase(path, pattern):
                return _agreed(Rule(style, f"profile {pattern}"), declared, path)
        for pattern, style in self.config.items():
            if _fits(path, pattern):
                return _agreed(Rule(CONFIG_STYLES[style], f"config {pattern}"), declared, path)
        if declared is not None:
            return declared
        token = self.model.token_embedding
        words = token.num_embeddings if token is not None else 0
        if module is self.model.output_head and module.out_features >= words:
            return Rule("column_gather", "output head")
        named = path.removesuffix(".linear")  # a class of its own around one product
        leaf = max((end for end in _ends(named) if end in LEAVES), key=len, default=None)
        return Rule(LEAVES[leaf], f"default {leaf}") if leaf is not None else Rule()

    def unmatched(self) -> list[str]:
        """Patterns of the configuration's plan that name nothing, but for those of transformers' own plans.

        Those are written for a whole family, of which one model rarely has every part.
        """
        root = self.model.module
        names = [name for name, _ in (*root.named_modules(), *root.named_parameters())]
        generic = _library_plan(self.model)
        return [
            pattern
            for pattern in self.config
            if not any(pattern == known or pattern.endswith(f".{known}") for known in generic)
            and not any(_fits(name, pattern) for name in names)
        ]


def _agreed(rule: Rule, declared: Rule | None, path: str) -> Rule:
    """A plan and the module's own declaration must say the same."""
    if declared is not None and declared.style != rule.style:
        raise DeploymentError(
            f"{path} declares tensor_parallel_mode {declared.style!r}, and the rule {rule.source} says "
            f"{rule.style!r}; make the two agree"
        )
    return rule


def _ends(path: str) -> list[str]:
    """The last name of a path, the last two and the last three."""
    names = path.split(".")
    return [".".join(names[-count:]) for count in (1, 2, 3)]


def _fits(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path, f"*.{pattern}")


def _library_plan(model) -> Iterable[str]:
    """Patterns of the plans that come with the classes of transformers this model is made of."""
    found = {"embed_tokens"}  # transformers adds it to every plan
    classes = [type(m) for m in model.module.modules() if hasattr(type(m), "config_class")]
    for code in (*classes, *(c.config_class for c in classes if c.config_class is not None), type(model.text_config)):
        if code.__module__.startswith("transformers."):
            found.update(getattr(code, "_tp_plan", None) or {})
            found.update(getattr(code, "base_model_tp_plan", None) or {})
    return found
