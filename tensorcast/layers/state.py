"""What deployment adds to a module: its path, quantisation, sharding and kernel slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import nn

from tensorcast.trace.library import call

_FIELD = "_tensorcast"


@dataclass(frozen=True)
class Group:
    """`size` ranks, `stride` apart in the rank grid."""

    size: int = 1
    stride: int = 1


ALONE = Group()


@dataclass(frozen=True)
class Shard:
    """How a module's parameters are split over `group` and what follows its product.

    style: column (outputs split), row (inputs split, partial sums), column_gather (split, then gathered), vocab (rows
    of a table split), row_split (as row, each rank taking its part of inputs that all of them have whole), experts,
    replicated. `reduce` False: the partial sums are added up later, by the parent.
    """

    style: str = "replicated"
    group: Group = ALONE
    reduce: bool = True
    rule: str = ""  # which rule decided, for the report
    scatter: bool = False  # of the sum, every rank keeps a part of the tokens (sequence parallelism)
    whole: int = 0  # outputs of the product before it was split, where the last rank's part is padded

    def before(self, x: torch.Tensor) -> torch.Tensor:
        """The part of the input that this rank multiplies."""
        if self.style == "row_split":
            return x[..., : -(-x.shape[-1] // self.group.size)]
        return x

    @property
    def sums(self) -> bool:
        """Whether the partial sums of a product are added up right behind it."""
        return self.group.size > 1 and self.reduce and self.style in ("row", "row_split")

    @property
    def adds(self) -> bool:
        """The same of a product or of the rows of a table."""
        return self.sums or (self.group.size > 1 and self.reduce and self.style == "vocab")

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """The collective that makes the product's result whole, or leaves every rank its tokens of it."""
        if self.adds:
            add = call.reduce_scatter_tokens if self.scatter else call.all_reduce
            return add(y, self.group.size, self.group.stride)
        if self.group.size > 1 and self.style == "column_gather":
            gathered = call.all_gather(y, y.dim() - 1, self.group.size, self.group.stride)
            return gathered[..., : self.whole] if self.whole else gathered
        return y


@dataclass
class Deployed:
    """The state of one module. `quant` is a QuantSpec or None; `slots` by op name."""

    path: str
    quant: Any = None
    shard: Shard = Shard()
    slots: dict[str, Any] = field(default_factory=dict)
    exchange: Any = None  # moe.Exchange of an experts module


def state_of(module: nn.Module) -> Deployed:
    """The module's state; modules nobody installed anything into have none."""
    return module.__dict__[_FIELD]


def has_state(module: nn.Module) -> bool:
    return _FIELD in module.__dict__


def is_replaced(module: nn.Module) -> bool:
    """Whether a profile gave the module a forward of its own, which no step puts another in the place of."""
    return "forward" in module.__dict__ and "_original_forward" not in module.__dict__


def install(module: nn.Module, path: str, forward: Callable | None = None) -> Deployed:
    """Give `module` a state (kept if it has one) and, if asked, a forward of its own. The old one stays reachable."""
    state = module.__dict__.setdefault(_FIELD, Deployed(path))
    if forward is not None:
        module.__dict__.setdefault("_original_forward", module.forward)
        module.__dict__["forward"] = MethodType(forward, module)
    return state


def original_forward(module: nn.Module, *args, **kwargs):
    """What the module did before `install`."""
    return module.__dict__["_original_forward"](*args, **kwargs)
