"""Products that read the same input run as one: q, k and v; gate and up; the two down-projections of latent attention.

The merged product is emitted when the first part is asked for; the other parts get their slice when they are asked with
the same tensor. Parts of different formats stay apart, and so do those of attention whose keys come from elsewhere.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import weakref
from functools import lru_cache

import torch
from torch import nn

from tensorcast.errors import KernelError
from tensorcast.layers.linear import linear_forward, product
from tensorcast.layers.state import has_state, install, state_of
from tensorcast.trace.context import current

# What is merged → what the product is called in reports.
QKV = {
    ("q_proj", "k_proj", "v_proj"): "qkv_proj",
    ("q_a_proj", "kv_a_proj_with_mqa"): "qkv_a_proj",
    ("q_proj", "kv_a_proj_with_mqa"): "q_kv_a_proj",
}
GATE_UP = ("gate_proj", "up_proj")
ELSEWHERE = (
    "key_value_states", "encoder_hidden_states", "cross_attention_states", "key_hidden_states", "value_hidden_states",
)  # fmt: skip
"""What model code calls the states that cross-attention makes its keys and values of."""
NAMES = {**QKV, GATE_UP: "gate_up_proj"}


def install_merged_qkv(model) -> int:
    """Slot qkv_proj on every module with projections that can be merged. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        names = next((group for group in QKV if _linears(module, group)), None)
        if names is None or _read_apart(type(module), names):
            continue
        slot = model.kernels.fill("qkv_proj", path)
        install(module, path).slots["qkv_proj"] = slot
        if slot.kernel is not None:
            slot.kernel(module, names)
        count += 1
    return count


def merge(module: nn.Module, names: tuple[str, ...]) -> None:
    """Kernel `fused`: the named linears of `module` run as one product."""
    parts = [getattr(module, name) for name in names]
    path = state_of(parts[0]).path.rpartition(".")[0]
    merged = _Merged(parts, f"{path}.{NAMES[names]}")
    takes = inspect.signature(type(module).forward)
    if not takes.parameters.keys().isdisjoint(ELSEWHERE):
        look = lambda part, args, options: merged.look(takes, part, args, options)  # noqa: E731
        module.register_forward_pre_hook(look, with_kwargs=True)
    eager = f"{'swiglu' if names == GATE_UP else 'qkv_proj'}@{path}=eager"
    module.register_forward_hook(lambda part, args, result: merged.require_all_taken(eager))
    for index, part in enumerate(parts):
        install(part, state_of(part).path, lambda part, x, index=index: merged(part, index, x))


class _Merged:
    """The last result, kept for the parts that have not asked yet; only as long as its input lives."""

    def __init__(self, parts: list[nn.Linear], path: str) -> None:
        self.parts, self.path = parts, path
        self._input = lambda: None
        self._waiting: dict[int, torch.Tensor] = {}
        self._apart = False

    def look(self, takes: inspect.Signature, module: nn.Module, args: tuple, options: dict) -> None:
        """Before a forward of the module: whether its keys come from the same input as its queries."""
        given = takes.bind_partial(module, *args, **options).arguments
        self._apart = any(given.get(name) is not None for name in ELSEWHERE)

    def __call__(self, part: nn.Linear, index: int, x: torch.Tensor) -> torch.Tensor:
        if self._apart or not self._mergeable():
            return linear_forward(part, x)
        if self._input() is not x or index not in self._waiting:
            self._input = weakref.ref(x)
            self._waiting = dict(enumerate(self._product(x)))
        return self._waiting.pop(index)

    def require_all_taken(self, eager: str) -> None:
        """After a forward of the module: KernelError where a product of all parts has run and some never asked for it,
        as when each part reads a tensor of its own."""
        if self._waiting:
            names = ", ".join(state_of(part).path.rpartition(".")[2] for part in self.parts)
            raise KernelError(f"{self.path}: {names} do not read one tensor; use --kernel {eager}")

    def _mergeable(self) -> bool:
        first = state_of(self.parts[0])
        same = all(state_of(p).quant == first.quant for p in self.parts)
        whole_inputs = all(state_of(p).shard.style in ("replicated", "column") for p in self.parts)
        return same and whole_inputs and len({p.bias is None for p in self.parts}) == 1

    def _product(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        widths = [p.weight.shape[0] for p in self.parts]
        first = self.parts[0]
        with current().suspended():
            weight = first.weight.new_empty((sum(widths), first.weight.shape[1]))
            bias = first.bias.new_empty(sum(widths)) if first.bias is not None else None
        with current().scope(self.path):
            return product(x, weight, bias, state_of(first).quant).split(widths, dim=-1)


def _linears(module: nn.Module, names: tuple[str, ...]) -> bool:
    parts = [module._modules.get(name) for name in names]
    if not all(isinstance(p, nn.Linear) and has_state(p) for p in parts):
        return False
    return len({p.in_features for p in parts}) == 1


@lru_cache(maxsize=256)
def _read_apart(code: type, names: tuple[str, ...]) -> bool:
    """Whether forward, by its source, always hands different values to the projections `names`.

    False where the source does not show it: it calls them elsewhere, or its arguments say where keys come from.
    """
    if not inspect.signature(code.forward).parameters.keys().isdisjoint(ELSEWHERE):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code.forward)))
    except (OSError, TypeError, SyntaxError):
        return False
    read: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
                read.setdefault(node.func.attr, set()).add(ast.unparse(node.args[0]))
    given = [read.get(name, set()) for name in names]
    return all(given) and not set.intersection(*given)
