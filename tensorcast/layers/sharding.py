"""Tensor and expert parallelism: which parameter is split how, and the local shapes one rank holds.

Every parameter is cut on the built module itself, so what a rank stores and computes is what the module then shows.
Which way a linear goes is decided by the last part of its path, first rule that speaks: the model's profile, the table
below, the plan in the model's own configuration. KV heads that are fewer than ranks are replicated.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import ceil

from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.experts import Exchange, ExpertSizes, experts_weights
from tensorcast.layers.local import (
    divides,
    empty_parameter,
    head_counts,
    head_modules,
    head_numbers,
    localise,
    localise_scan,
    scan_width,
    smaller,
)
from tensorcast.layers.mla import is_mla
from tensorcast.layers.state import Group, Shard, has_state, state_of

# Serving engines split these leaves so, whatever the model.
LEAVES: Mapping[str, str] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj", "q_b_proj", "kv_b_proj"), "column"),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj", "w1", "w3", "fc1", "linear_fc1"), "column"),
    **dict.fromkeys(("o_proj", "down_proj", "w2", "out_proj", "fc2", "linear_fc2"), "row"),
    **dict.fromkeys(("in_proj", "in_proj_qkvz", "in_proj_ba"), "column"),
    **dict.fromkeys(("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b"), "column"),
    "lm_head": "column_gather",
    **dict.fromkeys(("q_a_proj", "kv_a_proj_with_mqa", "wq_b", "wk", "weights_proj"), "replicated"),
    **dict.fromkeys(("shared_expert_gate", "eh_proj"), "replicated"),
}
_CONFIG_STYLES = {
    "colwise": "column",
    "packed_colwise": "column",
    "rowwise": "row",
    "packed_rowwise": "row",
    "colwise_gather_output": "column_gather",
    "colwise_rep": "column_gather",
    "rowwise_split_input": "row",
    "replicated_with_grad_allreduce": "replicated",
    "mla_kv_a_proj": "replicated",
}


def shard(model) -> tuple[int, list[str]]:
    """Cut the model for its plan. Returns how many modules were cut and notes for the report."""
    plan = model.plan
    work = _Sharder(model)
    if plan.tp > 1:
        work.check_heads()
        work.attention()
        work.scans()
        work.linears()
        work.embeddings()
    if plan.tp * plan.dp > 1:
        work.experts()
    return work.count, work.notes


class _Sharder:
    """One pass over one model."""

    def __init__(self, model) -> None:
        self.model, self.plan, self.root = model, model.plan, model.module
        self.tp = Group(model.plan.tp, 1)
        self.count = 0
        self.notes: list[str] = []
        self.rules = model.tp_rules
        self._scan_linears: set[int] = set()

    # -- attention -----------------------------------------------------------------------------------------------------

    def _attentions(self):
        return ((path, module) for path, module in head_modules(self.model) if not hasattr(module, "A_log"))

    def check_heads(self) -> None:
        """Heads must divide; the error lists the values that would."""
        tp = self.tp.size
        for path, module in head_modules(self.model):
            counts = head_numbers(module)
            if not divides(counts, tp):
                numbers = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
                valid = ", ".join(map(str, self.model.tp_values))
                raise DeploymentError(f"--tp {tp}: {path} has {numbers}; values that divide: {valid}")

    def attention(self) -> None:
        tp = self.tp.size
        replicated = 0
        for _, module in self._attentions():
            heads, kv_heads, head_dim = head_counts(module)
            local_heads, local_kv = heads // tp, max(1, kv_heads // tp)
            if not is_mla(module):
                for name in ("k_proj", "v_proj"):
                    self._resize_kv(module, name, kv_heads, local_kv)
                if hasattr(module, "qkv_proj"):
                    width = (local_heads + 2 * local_kv) * head_dim
                    self._cut(module.qkv_proj, 0, width, "column", "heads")
                replicated += kv_heads < tp
            for name in ("sinks", "sink"):
                value = getattr(module, name, None)
                if isinstance(value, nn.Parameter) and value.shape[0] == heads:
                    module._parameters[name] = smaller(value, 0, local_heads)
                    state_of(module).shard = Shard("column", self.tp, rule="heads")
            for name, width in (("q_norm", heads), ("k_norm", kv_heads)):
                norm = getattr(module, name, None)
                weight = getattr(norm, "weight", None)
                if weight is None or weight.dim() != 1 or not head_dim:
                    continue
                if weight.shape[0] == width * head_dim > head_dim:
                    norm._parameters["weight"] = smaller(weight, 0, weight.shape[0] * max(1, width // tp) // width)
                    state_of(norm).shard = Shard("norm", self.tp, reduce=name == "q_norm", rule="norm over all heads")
            localise(module, heads, local_heads, kv_heads, local_kv)
        if replicated:
            self.notes.append(f"KV heads replicated over ranks in {replicated} layers: fewer than tp {tp}")

    def _resize_kv(self, module, name, kv_heads, local_kv) -> None:
        linear = getattr(module, name, None)
        if isinstance(linear, nn.Linear):
            self._cut(linear, 0, linear.out_features // kv_heads * local_kv, "column", "kv heads")

    # -- state-space and linear attention ------------------------------------------------------------------------------

    def scans(self) -> None:
        """Heads and groups of scan layers are split; what holds a size as an attribute gets the local one."""
        tp = self.tp.size
        for path, module in self.root.named_modules():
            if not hasattr(module, "A_log"):
                continue
            groups = module.__dict__.get("n_groups", tp)
            localise_scan(module, tp)
            norm = getattr(module, "norm", None)
            if groups < tp and norm is not None and has_state(norm):
                state_of(norm).shard = Shard("norm", Group(tp // groups, 1), rule="norm group over several ranks")
            for child in module.children():
                if isinstance(child, nn.Linear):
                    self._scan_linears.add(id(child))
            self._scan_linear(module, path)

    def _scan_linear(self, module, path) -> None:
        for name, child in module.named_children():
            if not isinstance(child, nn.Linear):
                continue
            if name.startswith("in_proj"):
                self._cut(child, 0, scan_width(module, name, child, self.tp.size), "column", "scan layer")
            else:
                self._cut(child, 1, ceil(child.in_features / self.tp.size), "row", "scan layer")

    # -- everything else -----------------------------------------------------------------------------------------------

    def linears(self) -> None:
        tp = self.tp.size
        unknown: set[str] = set()
        for path, module in self.root.named_modules():
            if not isinstance(module, nn.Linear) or not has_state(module) or state_of(module).shard.rule:
                continue
            if path.startswith(tuple(self.model.unsharded)) or id(module) in self._scan_linears:
                continue
            style, rule = self._style(path)
            if style is None:
                unknown.add(path.rpartition(".")[2])
            elif style in ("column", "column_gather"):
                self._cut(module, 0, ceil(module.out_features / tp), style, rule)
            elif style == "row":
                self._cut(module, 1, ceil(module.in_features / tp), style, rule)
        if self.count == 0:
            raise DeploymentError(
                f"--tp {tp}: no tensor-parallel plan for {self.model.architecture}; add `tp_plan` to a ModelProfile or "
                f"`base_model_tp_plan` to the configuration"
            )
        if unknown:
            self.notes.append(f"replicated on every rank, no rule names them: {', '.join(sorted(unknown))}")

    def _style(self, path: str) -> tuple[str | None, str]:
        for pattern, style in self.rules.items():
            if fnmatchcase(path, pattern):
                return style, f"profile {pattern}"
        leaf = path.rpartition(".")[2]
        if leaf in LEAVES:
            return LEAVES[leaf], leaf
        for pattern, style in self.model.config_tp_plan.items():
            if fnmatchcase(path, f"*{pattern}"):
                if style not in _CONFIG_STYLES:
                    raise DeploymentError(f"the configuration's parallel style {style!r} ({pattern}) is not known")
                return _CONFIG_STYLES[style], f"config {pattern}"
        return None, ""

    def embeddings(self) -> None:
        """Token embeddings are split by rows of the vocabulary; a tied head keeps sharing the rows."""
        token = self.model.token_embedding
        if token is None:
            return
        rows = ceil(token.num_embeddings / self.tp.size)
        if self.model.tied:
            token._parameters["weight"] = self.model.output_head.weight
        else:
            token._parameters["weight"] = smaller(token.weight, 0, rows)
        state_of(token).shard = Shard("vocab", self.tp, rule="vocabulary")
        self.count += 1
        if token.num_embeddings % self.tp.size:
            self.notes.append(f"vocabulary of {token.num_embeddings} padded to {rows} rows a rank")

    def experts(self) -> None:
        """Experts over ep ranks, each cut into tp·dp/ep parts; shared experts add up with the routed ones."""
        plan = self.plan
        ranks = plan.tp * plan.dp
        parts = ranks // plan.ep
        found = False
        for path, block in self.root.named_modules():
            for name, module in block.named_children():
                if experts_weights(module) is None or not has_state(module):
                    continue
                found = True
                self._cut_experts(f"{path}.{name}", module, parts)
                exchange = state_of(module).exchange
                state_of(module).exchange = Exchange(
                    experts=exchange.experts,
                    groups=plan.dp,
                    slices=plan.tp,
                    ep=Group(plan.ep, parts),
                    tp=Group(parts, 1),
                )
                if not state_of(module).exchange.travels:
                    self._reduce_in_block(block)
                self.count += 1
        if plan.ep > 1 and not found:
            raise DeploymentError(f"--ep {plan.ep}: {self.model.architecture} has no experts; use --ep 1")

    def _cut_experts(self, path, module, parts) -> None:
        experts = state_of(module).exchange.experts
        if experts % self.plan.ep:
            valid = ", ".join(map(str, _divisors(experts)))
            raise DeploymentError(f"--ep {self.plan.ep}: {path} has {experts} experts; values that divide: {valid}")
        sizes = ExpertSizes.of(module)
        local, cut = experts // self.plan.ep, ceil(sizes.inter / parts)
        for name, weight in list(module.named_parameters(recurse=False)):
            shape = [local, *weight.shape[1:]]
            if weight.dim() == 3:
                axis = _inter_axis(name.startswith("down"), sizes.transposed)
                shape[axis] = shape[axis] // sizes.inter * cut
            elif weight.dim() == 2 and not name.startswith("down"):
                shape[1] = shape[1] // sizes.inter * cut
            module._parameters[name] = empty_parameter(weight, shape)
        for name in ("num_experts", "intermediate_dim", "intermediate_size", "expert_dim"):
            if name in module.__dict__:
                module.__dict__[name] = local if name == "num_experts" else cut

    def _reduce_in_block(self, block) -> None:
        """One sum for routed and shared experts, at the end of the block."""
        for module in block.modules():
            if isinstance(module, nn.Linear) and has_state(module) and state_of(module).shard.style == "row":
                old = state_of(module).shard
                state_of(module).shard = Shard("row", old.group, reduce=False, rule=old.rule)
        state_of(block).shard = Shard("row", self.tp, rule="sum of routed and shared experts")

    def _cut(self, linear: nn.Linear, dim: int, size: int, style: str, rule: str) -> None:
        weight = linear.weight
        linear._parameters["weight"] = smaller(weight, dim, size)
        if linear.bias is not None and dim == 0:
            linear._parameters["bias"] = smaller(linear.bias, 0, size)
        if dim == 0:
            linear.out_features = size
        else:
            linear.in_features = size
        state_of(linear).shard = Shard(style, self.tp, rule=rule)
        self.count += 1


def _inter_axis(down: bool, transposed: bool) -> int:
    """Axis of the intermediate size: [experts, 2·inter, hidden] and [experts, hidden, inter], or both transposed."""
    return 2 if down != transposed else 1


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, n + 1) if n % i == 0]
