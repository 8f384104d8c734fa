"""Checks that a model cut over ranks is the whole model: every parameter, once, but for what is said to be copied."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tensorcast.checking.result import Failed, Skipped
from tensorcast.checking.subject import Subject
from tensorcast.errors import DeploymentError
from tensorcast.layers.local import head_modules, head_numbers
from tensorcast.layers.state import has_state, state_of
from tensorcast.transformer_model import TransformerModel


@dataclass
class Tally:
    """Elements of one rank's parameters by fate, and what all ranks hold beyond the whole model."""

    cut: int = 0
    replicated: int = 0
    copies: int = 0  # KV heads and groups that several ranks hold
    padding: int = 0  # what the last rank's share lacks to be as large as the others'

    def line(self, ranks: int, whole: int, how: str) -> str:
        surplus = {"copies of KV heads": self.copies, "padding": self.padding}
        extra = "".join(f" - {count:,} {name}" for name, count in surplus.items() if count)
        return f"{how}: {ranks} x {self.cut:,} cut + {self.replicated:,} replicated{extra} = {whole:,}"


def ranks_add_up(subject: Subject) -> str:
    """The sum over ranks of what is cut, and once what is replicated, is the unsharded model."""
    whole = subject.deployed()
    degrees = [n for n in whole.tp_values if n > 1]
    if not degrees:
        raise Skipped("no degree of tensor parallelism divides the heads of every layer")
    told = []
    for tp in dict.fromkeys((degrees[0], degrees[-1])):
        try:
            local = subject.deployed(tp=tp)
        except DeploymentError as refused:
            if f"--tp {tp}" in str(refused):  # it cannot be deployed so, and says it
                raise Skipped(str(refused)) from None
            raise
        told.append(_sum(whole, local, tp).line(tp, _elements(whole.module), f"tp {tp}"))
    return "; ".join(told)


def expert_ranks_add_up(subject: Subject) -> str:
    """The same with the experts spread over the ranks."""
    whole = subject.deployed()
    experts = [state_of(m).exchange.experts for m in whole.module.modules() if _has_experts(m)]
    if not experts:
        raise Skipped("no experts")
    degrees = [n for n in whole.tp_values if n > 1 and all(count % n == 0 for count in experts)]
    if not degrees:
        raise Skipped("no degree divides both heads and experts")
    ep = degrees[0]
    local = subject.deployed(tp=ep, ep=ep)
    return _sum(whole, local, ep).line(ep, _elements(whole.module), f"tp {ep}, ep {ep}")


def _has_experts(module: nn.Module) -> bool:
    return has_state(module) and state_of(module).exchange is not None


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _sum(whole: TransformerModel, local: TransformerModel, ranks: int) -> Tally:
    """The tally of one rank against the whole model; Failed names the first parameter that does not add up."""
    before, after = dict(whole.module.named_parameters()), dict(local.module.named_parameters())
    if before.keys() != after.keys():
        odd = sorted(before.keys() ^ after.keys())[0]
        raise Failed(f"{odd} is a parameter of its own {'before' if odd in before else 'after'} the cut only")
    tally = Tally()
    for name, parameter in before.items():
        here, there = parameter.shape, after[name].shape
        if here == there:
            tally.replicated += parameter.numel()
            continue
        tally.cut += after[name].numel()
        surplus = ranks * after[name].numel() - parameter.numel()
        what = f"{name}: {list(here)} is cut to {list(there)} over {ranks} ranks"
        if surplus < 0:
            raise Failed(f"{what}: {-surplus:,} elements are on no rank")
        if surplus and surplus == _copied(whole, name, ranks) * parameter.numel() // here[0]:
            tally.copies += surplus
        elif _is_padding(here, there, ranks):
            tally.padding += surplus
        elif surplus:
            raise Failed(f"{what}: {surplus:,} elements too many, neither copies of KV heads nor padding")
    return tally


def _copied(whole: TransformerModel, name: str, ranks: int) -> int:
    """Rows of a parameter that ranks hold in excess because they share KV heads, or groups of a scan layer."""
    path = name.rpartition(".")[0]
    above = [(at, module) for at, module in head_modules(whole) if path == at or path.startswith(f"{at}.")]
    if not above:
        return 0
    at, module = above[-1]
    numbers = head_numbers(module)
    shared = min((count for kind, count in numbers.items() if kind in ("KV_heads", "n_groups")), default=ranks)
    if shared >= ranks:
        return 0
    rows = whole.module.get_parameter(name).shape[0]
    if "n_groups" in numbers:
        rows = 2 * shared * module.ssm_state_size
    elif "qkv" in path.removeprefix(at):  # the keys' and values' part of a fused projection
        rows = rows * 2 * shared // (numbers["heads"] + 2 * shared)
    return rows * (ranks - shared) // shared


def _is_padding(whole, local, ranks: int) -> bool:
    """Whether every cut size was rounded up to a whole share: of one part, or of two fused ones."""
    for size, share in zip(whole, local, strict=True):
        parts = 2 if size % 2 == 0 and share % 2 == 0 else 1
        if size != share and not 0 <= ranks * share - size < ranks * parts:
            return False
    return True
