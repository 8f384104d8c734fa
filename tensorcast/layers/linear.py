"""nn.Linear and nn.Embedding as single operators, quantised and sharded as their state says."""

from __future__ import annotations

import inspect
import weakref
from functools import cache

import torch
from torch import nn

from tensorcast.formats import bytes_of
from tensorcast.layers.sequence_parallel import whole_tokens
from tensorcast.layers.state import has_state, install, is_replaced, original_forward, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def install_linears(model, within: str = "") -> int:
    """Every nn.Linear and nn.Embedding of the model emits one operator. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        if isinstance(module, nn.Linear) and is_replaced(module):
            install(module, path)  # a product of another kind, which a profile describes
        elif isinstance(module, nn.Linear) and is_product(type(module)):
            install(module, path, linear_forward)
        elif isinstance(module, nn.Embedding) and _takes_ids(module):
            install(module, path, embedding_forward)
        else:
            continue
        count += 1
    return count


@cache
def is_product(code: type[nn.Linear]) -> bool:
    """Whether a class of linear gives x · weightᵀ + bias; code of its own is run once on four numbers to see.

    One that cannot be run alone, or gives anything else (it rounds its weight first …), stays as it is.
    """
    if code.forward is nn.Linear.forward:
        return True
    try:
        with torch.device("cpu"), torch.no_grad():
            probe, x = nn.Linear(2, 2, dtype=torch.float32), torch.tensor([[0.3, -0.7]], dtype=torch.float32)
            expected = probe(x)
            probe.__class__ = code
            return torch.allclose(code.forward(probe, x), expected)
    except Exception:
        return False


def own_products_to_linear(model, within: str = "") -> None:
    """transformers' Conv1D, a product whose weight is stored [inputs, outputs], as the nn.Linear of equal numbers."""
    from transformers.pytorch_utils import Conv1D

    for path, module in model.modules(within):
        if type(module) is Conv1D:
            inputs, outputs = module.weight.shape
            with torch.device("meta"):
                model.replace_module(path, nn.Linear(inputs, outputs, dtype=module.weight.dtype).requires_grad_(False))


def install_row_linears(model) -> int:
    """Slot row_linear on every product whose partial sums are added up right behind it. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        if isinstance(module, nn.Linear) and has_state(module) and state_of(module).shard.sums:
            state_of(module).slots["row_linear"] = model.kernels.fill("row_linear", path)
            count += 1
    return count


def linear_forward(module: nn.Linear, input: torch.Tensor) -> torch.Tensor:
    """forward of an installed nn.Linear, whose argument some code passes by torch's name for it."""
    state = state_of(module)
    x = state.shard.before(input)
    slot = state.slots.get("row_linear")
    if slot is not None and slot.kernel is not None:
        return slot.kernel(x, module)
    return state.shard.after(product(x, module.weight, module.bias, state.quant))


def summed_linear(x: torch.Tensor, module: nn.Linear) -> torch.Tensor:
    """Kernel `fused` of row_linear: the product and the sum of its results over the ranks as one operator."""
    state = state_of(module)
    group = state.shard.group
    return product(x, module.weight, module.bias, state.quant, call.linear_all_reduce, group.size, group.stride)


def _takes_ids(module: nn.Embedding) -> bool:
    """Whether forward looks up the ids it is given; others work them out first (positions counted from a mask)."""
    return len(inspect.signature(type(module).forward).parameters) == 2


def embedding_forward(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """forward of an installed nn.Embedding; some models multiply the rows by a constant `embed_scale`, or norm them."""
    if ids.is_floating_point():  # weights of a sum over all rows, which is the class's own product
        return original_forward(module, ids)
    rows = state_of(module).shard.after(call.embedding(ids, module.weight))
    for part in module.children():  # what a class of its own does to the rows it has found
        rows = part(rows)
    return rows if getattr(module, "embed_scale", None) is None else rows * 1.0


def product(x, weight, bias, spec, operator=None, *more) -> torch.Tensor:
    """x · weightᵀ + bias with the kernels that `spec` (a QuantSpec or None) brings along.

    `operator`: another one than `linear`, which takes the arguments `more` behind those of `linear`.
    """
    operator = operator or call.linear
    x = whole_tokens(x)
    if spec is None:
        fmt = dtype_name(weight)
        return operator(x, weight, bias, fmt, dtype_name(x), fmt, 0, False, "", *more)
    quantised = quantise_activation(x, spec)
    n, k = weight.shape
    scales = spec.weight_bytes(n, k) - bytes_of(n * k, spec.weight)
    formats = (spec.weight, spec.activation, spec.math, scales, spec.dequantises_weight, spec.label)
    y = operator(x, weight, bias, *formats, *more)
    del quantised
    return y


def quantise_activation(x: torch.Tensor, spec) -> torch.Tensor | None:
    """The quantised copy of `x`, made once however many products read it; None when `x` stays as it is."""
    if not spec.needs_activation_quantise:
        return None
    memo = current().quantised
    key = (id(x), spec.activation, spec.activation_group, spec.dynamic)
    found = memo.get(key)
    if found is not None and found() is x:
        return None
    memo[key] = weakref.ref(x)
    kernel = call.quantize_inside if current().is_normed(x) else call.quantize
    copy = kernel(x, spec.activation, spec.activation_group, spec.dynamic, spec.math, spec.label)
    current().note_read_with(x, copy)
    return copy
