"""Tensor and expert parallelism: which parameter is split how, and the local shapes one rank holds.

Every parameter is cut on the built module itself, so what a rank stores and computes is what the module then shows.
Which way a linear goes is decided by `tp_rules`. An attention's heads are cut where its input projections are; KV heads
that are fewer than ranks are replicated. Widths that do not divide are rounded up: the largest shard is costed.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from math import ceil

from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.expert_sharding import split_experts
from tensorcast.layers.local import (
    check_shares,
    divides,
    head_counts,
    head_modules,
    head_numbers,
    localise,
    localise_heads,
)
from tensorcast.layers.mla import is_mla
from tensorcast.layers.parameters import smaller
from tensorcast.layers.scan import is_scan
from tensorcast.layers.scan_sharding import ScanCutter, cut_channels
from tensorcast.layers.sequence import exchange_guidance, split_sequence
from tensorcast.layers.sequence_parallel import spread_tokens
from tensorcast.layers.state import Group, Shard, has_state, install, state_of
from tensorcast.layers.tp_rules import ATTENTION_INPUTS, FUSED, KEY, VALUE, Rule, Rules

_QUERY_NORMS = ("q_norm", "norm_q", "norm_added_q", "norm")
_KEY_NORMS = ("k_norm", "norm_k", "norm_added_k")

SINKS = ("sinks", "sink")


def shard(model) -> tuple[int, list[str]]:
    """Cut the model for its plan. Returns how many modules were cut and notes for the report."""
    plan = model.plan
    work = _Sharder(model)
    if plan.tp > 1:
        work.attention()
        work.scans()
        work.linears()
        work.embeddings()
        work.say_unmatched()
    if plan.tp * plan.dp > 1:
        work.count += split_experts(model)
    if plan.sequence_parallel:
        spread_tokens(model)
    if plan.sp > 1:
        work.count += split_sequence(model)
    if plan.cfg > 1:
        work.count += exchange_guidance(model)
    return work.count, work.notes


def rules_applied(model) -> str:
    """Every rule that cut a module, with how many, for the step report: `default q_proj (36), …`."""
    shards = [state_of(m).shard for m in model.module.modules() if has_state(m)]
    counts = Counter(shard.rule for shard in shards if shard.rule and shard.style != "replicated")
    exchanges = [state_of(m).exchange for m in model.module.modules() if has_state(m)]
    counts["experts"] = sum(e is not None and e.ep.size * e.tp.size > 1 for e in exchanges)
    return ", ".join(f"{rule} ({count})" for rule, count in counts.items() if count)


class _Sharder:
    """One pass over one model."""

    def __init__(self, model) -> None:
        self.model, self.plan, self.root = model, model.plan, model.module
        self.tp = Group(model.plan.tp, 1)
        self.count = 0
        self.notes: list[str] = []
        self.rules = Rules(model) if model.plan.tp > 1 else None
        self._placed: set[int] = set()  # linears that are done with
        self._uneven: dict[str, str] = {}

    # -- attention -----------------------------------------------------------------------------------------------------

    def attention(self) -> None:
        """Heads are cut where the input projections are; an attention whose projections are whole runs whole."""
        found = [(path, module) for path, module in head_modules(self.model)]
        cut = [(p, m) for p, m in found if is_scan(m) or self._cuts_heads(p, m)]
        for path, module in cut:
            self._check_heads(path, module)
            if self.plan.dcp > 1 and not is_scan(module):
                check_shares(self.plan, path, module)
        whole = {id(m) for _, m in found} - {id(m) for _, m in cut}
        replicated = Counter()
        if whole:
            kinds = ", ".join(sorted({type(m).__name__ for _, m in found if id(m) in whole}))
            self.notes.append(f"attention runs whole on every rank, no rule cuts its heads: {kinds} ({len(whole)})")
        for path, module in found:
            if id(module) in whole:
                self._split_inputs(path, module)
            elif not is_scan(module):
                replicated[self._cut_heads(path, module)] += 1
        for kv_heads, layers in replicated.items():
            if kv_heads < self.tp.size:
                times, dcp = self.tp.size // kv_heads, self.plan.dcp
                shared = f", its tokens dealt out to groups of {dcp} of them" if dcp > 1 else ""
                self.notes.append(
                    f"KV heads replicated over ranks in {layers} layers: {kv_heads} are fewer than tp {self.tp.size}, "
                    f"each is kept {times} times{shared}"
                )

    def _cuts_heads(self, path, module) -> bool:
        """Whether the rules split what goes into an attention; those for q, k and v side by side must agree."""
        styles = {name: self.rules.of(name, child).style for name, child in _linears(path, module)}
        inputs = {name: style for name, style in styles.items() if name.rpartition(".")[2] in ATTENTION_INPUTS}
        ways = {(name.rpartition(".")[0], style == "column") for name, style in inputs.items()}
        if len(ways) > len(dict(ways)):
            said = ", ".join(f"{name.rpartition('.')[2]} {style or 'no rule'}" for name, style in inputs.items())
            raise DeploymentError(f"--tp {self.tp.size}: the rules of {path} cut only part of its heads: {said}")
        return "column" in styles.values()

    def _check_heads(self, path, module) -> None:
        """Heads must divide; the error lists the values that would."""
        counts = head_numbers(module)
        if not divides(counts, self.tp.size):
            numbers = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items())
            valid = ", ".join(map(str, self.model.tp_values))
            raise DeploymentError(f"--tp {self.tp.size}: {path} has {numbers}; values that divide: {valid}")

    def _split_inputs(self, path, module) -> None:
        """Every rank has the whole result of an attention it runs whole, so a row product takes its own part of it."""
        for name, child in _linears(path, module):
            rule = self.rules.of(name, child)
            if rule.style in ("row", "row_split"):
                self._cut(child, 1, ceil(child.in_features / self.tp.size), "row_split", rule.source)

    def _cut_heads(self, path, module) -> int:
        """Cut one attention; returns its KV heads."""
        tp = self.tp.size
        heads, kv_heads, head_dim = head_counts(module)
        local_heads, local_kv = heads // tp, max(1, kv_heads // tp)
        if not is_mla(module):
            for name in (*KEY, *VALUE):
                linear = getattr(module, name, None)
                if isinstance(linear, nn.Linear):
                    rule = self.rules.of(f"{path}.{name}", linear).source
                    self._cut(linear, 0, linear.out_features // kv_heads * local_kv, "column", rule)
            for name in FUSED:
                if isinstance(getattr(module, name, None), nn.Linear):
                    self._cut_fused(f"{path}.{name}", getattr(module, name), (heads, kv_heads), (local_heads, local_kv))
        for name, child in module.named_children():  # gates of heads, which no rule knows by name
            if isinstance(child, nn.Linear) and child.out_features == heads and has_state(child):
                if self.rules.of(f"{path}.{name}", child).style is None:
                    self._cut(child, 0, local_heads, "column", "heads")
        self._cut_of_heads(path, module, heads, local_heads)
        self._cut_convolutions(path, module, kv_heads * head_dim, local_kv * head_dim)
        for name in (*_QUERY_NORMS, *_KEY_NORMS):
            width = kv_heads if name in _KEY_NORMS else heads
            self._cut_norm(getattr(module, name, None), name, width, head_dim)
        packed = any(hasattr(child, "_tp_packed_col_blocks") for child in module.children())
        localise(module, heads, local_heads, kv_heads, local_kv, widths=not packed)
        return heads if is_mla(module) else kv_heads

    def _cut_fused(self, path, linear, whole, local) -> None:
        """Cut a product that gives queries, keys and values: what each rank's heads need of every one of the three."""
        (heads, kv_heads), (local_heads, local_kv) = whole, local
        width, rest = divmod(linear.out_features, heads + 2 * kv_heads)
        if rest:
            raise DeploymentError(
                f"--tp {self.tp.size}: {path} has {linear.out_features} outputs, which are not {heads} query heads and "
                f"{kv_heads} KV heads of one size; split it with tp_plan of a ModelProfile, or use --tp 1"
            )
        self._cut(linear, 0, (local_heads + 2 * local_kv) * width, "column", self.rules.of(path, linear).source)

    def _cut_of_heads(self, path: str, module: nn.Module, heads: int, local: int) -> None:
        """Parameters with a row for every head: sinks of the attention, and whatever its small parts hold."""
        parts = [(name, m) for name, m in module.named_children() if not isinstance(m, nn.Linear)]
        for name, part in (("", module), *parts):
            for key, value in part._parameters.items():
                named = key in SINKS if part is module else key != "weight"
                if not named or value is None or value.dim() == 0 or value.shape[0] != heads:
                    continue
                part._parameters[key] = smaller(value, 0, local)
                install(part, f"{path}.{name}".rstrip(".")).shard = Shard("column", self.tp, rule="heads")
            if part is not module:
                localise_heads(part, heads, local)

    def _cut_convolutions(self, path: str, module: nn.Module, width: int, local: int) -> None:
        """Convolutions of every channel of keys or values by itself go with their heads."""
        for name, part in module.named_modules():
            if isinstance(part, nn.Conv1d) and part.groups == part.in_channels == width:
                cut_channels(part, f"{path}.{name}", local, self.tp)

    def _cut_norm(self, norm, name, width, head_dim) -> None:
        """A norm over all heads holds the part of this rank's heads; one over each head stays whole."""
        weight = getattr(norm, "weight", None)
        if weight is None or weight.dim() != 1 or not head_dim:
            return
        if weight.shape[0] == width * head_dim > head_dim:
            norm._parameters["weight"] = smaller(weight, 0, weight.shape[0] * max(1, width // self.tp.size) // width)
            state_of(norm).shard = Shard("norm", self.tp, reduce=name not in _KEY_NORMS, rule="norm over all heads")

    # -- state-space and linear attention ------------------------------------------------------------------------------

    def scans(self) -> None:
        """Scan layers are cut over their heads or channels."""
        cutter = ScanCutter(self.rules, self.tp, self._cut)
        for path, module in head_modules(self.model):
            if is_scan(module):
                cutter.layer(path, module)

    # -- everything else -----------------------------------------------------------------------------------------------

    def linears(self) -> None:
        tp, unknown = self.tp.size, set()
        for path, module in self.root.named_modules():
            if not isinstance(module, nn.Linear) or not has_state(module) or id(module) in self._placed:
                continue
            named = any(fnmatchcase(path, pattern) for pattern in self.model.visual_rules)
            if path.startswith(tuple(self.model.unsharded)) and not named:
                continue
            rule, leaf = self.rules.of(path, module), path.rpartition(".")[2]
            if rule.style is None:
                unknown.add(leaf)
            elif rule.style in ("column", "column_gather"):
                self._even(leaf, "outputs", module.out_features)
                self._cut(module, 0, _largest_part(leaf, module, tp), rule.style, rule.source)
            elif rule.style in ("row", "row_split"):
                self._even(leaf, "inputs", module.in_features)
                self._cut(module, 1, ceil(module.in_features / tp), rule.style, rule.source)
            else:
                state_of(module).shard = Shard(rule=rule.source)
        self._require_cut(unknown)
        if unknown:
            self.notes.append(f"replicated on every rank, no rule names them: {', '.join(sorted(unknown))}")
        if whole := self._whole_convolutions():
            self.notes.append(f"convolutions run whole on every rank: {', '.join(whole)}")
        self.notes += self._uneven.values()

    def _whole_convolutions(self) -> list[str]:
        """Names of the convolutions that nothing has cut, towers with rules of their own left out."""
        found = (
            path.rpartition(".")[2]
            for path, module in self.root.named_modules()
            if isinstance(module, nn.modules.conv._ConvNd)
            and not path.startswith(tuple(self.model.unsharded))
            and not (has_state(module) and state_of(module).shard.style != "replicated")
        )
        return sorted(set(found))

    def _require_cut(self, unknown: set[str]) -> None:
        """Most of the decoder's products whole on every rank, for want of a rule, is no tensor parallelism."""
        parts = [m for layer in self.model.layers or [self.root] for m in layer.modules() if isinstance(m, nn.Linear)]
        shards = [(state_of(m).shard, m) for m in parts if has_state(m) and m is not self.model.output_head]
        cut = self.tp.size * sum(m.weight.numel() for shard, m in shards if shard.style != "replicated")
        whole = sum(m.weight.numel() for shard, m in shards if not shard.rule)
        if cut and whole <= cut:
            return
        named = f" (no rule names {', '.join(sorted(unknown))})" if unknown else ""
        raise DeploymentError(
            f"--tp {self.tp.size}: no tensor-parallel plan for {self.model.architecture}; add `tp_plan` to a "
            f"ModelProfile or `base_model_tp_plan` to the configuration{named}"
        )

    def _even(self, leaf: str, what: str, width: int) -> None:
        """A note where `width` does not divide: the slowest rank is costed."""
        tp = self.tp.size
        if width % tp and leaf != "lm_head":
            size = ceil(width / tp)
            self._uneven[leaf] = f"{leaf}: {width} {what} over {tp} ranks, the largest shard of {size} is costed"

    def embeddings(self) -> None:
        """Tables with a row for every token are split by rows unless a rule says otherwise; so is any table it names.

        A tied head keeps sharing the rows.
        """
        token = self.model.token_embedding
        for path, table in self.root.named_modules():
            if isinstance(table, nn.Embedding) and has_state(table) and not path.startswith(self.model.unsharded):
                rule = self.rules.of(path, table)
                if rule.style is None and token is not None and table.num_embeddings == token.num_embeddings:
                    rule = Rule("vocab", "vocabulary")
                self._cut_table(path, table, rule, table is token and self.model.tied)

    def _cut_table(self, path: str, table: nn.Embedding, rule: Rule, tied: bool) -> None:
        if rule.style in (None, "replicated"):
            return
        dim = 0 if rule.style == "vocab" else 1
        size = ceil(table.weight.shape[dim] / self.tp.size)
        if not tied:
            table._parameters["weight"] = smaller(table.weight, dim, size)
        elif dim == 1 or state_of(self.model.output_head).shard.style not in ("column", "column_gather"):
            raise DeploymentError(
                f"--tp {self.tp.size}: {path} is tied to the head, and the rules cut the two differently "
                f"({rule.source}); set tie_word_embeddings false, or split both by the vocabulary"
            )
        else:
            table._parameters["weight"] = self.model.output_head.weight
        state_of(table).shard = Shard(rule.style, self.tp, rule=rule.source)
        self.count += 1
        if dim == 0 and table.num_embeddings % self.tp.size:
            self.notes.append(f"vocabulary of {table.num_embeddings} padded to {size} rows a rank")

    def say_unmatched(self) -> None:
        """Rules of the configuration's plan that name nothing: listed, and refused by --strict."""
        self.model.unmatched = tuple(self.rules.unmatched())
        if self.model.unmatched:
            named = ", ".join(self.model.unmatched)
            self.notes.append(f"rules of the configuration's tensor-parallel plan that match nothing: {named}")

    def _cut(self, linear: nn.Linear, dim: int, size: int, style: str, rule: str) -> None:
        weight, whole = linear.weight, linear.out_features
        linear._parameters["weight"] = smaller(weight, dim, size)
        if linear.bias is not None and dim == 0:
            linear._parameters["bias"] = smaller(linear.bias, 0, size)
        if dim == 0:
            linear.out_features = size
        else:
            linear.in_features = size
        padded = whole if dim == 0 and size * self.tp.size > whole else 0
        state_of(linear).shard = Shard(style, self.tp, rule=rule or "heads", whole=padded)
        self._placed.add(id(linear))
        self.count += 1


def _linears(path: str, module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """(path, linear) of every installed linear inside `module`, which is at `path`."""
    inside = ((f"{path}.{name}", child) for name, child in module.named_modules())
    return [(name, child) for name, child in inside if isinstance(child, nn.Linear) and has_state(child)]


def _largest_part(leaf: str, linear: nn.Linear, tp: int) -> int:
    """Outputs of the largest shard; the parts of a fused product (gate and up) are cut one by one."""
    parts = len(getattr(linear, "fused", ())) or (2 if leaf == "gate_up_proj" else 1)
    return parts * ceil(linear.out_features / parts / tp)
