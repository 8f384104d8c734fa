"""nn.Linear and nn.Embedding as single operators, quantised and sharded as their state says."""

from __future__ import annotations

import weakref

import torch
from torch import nn

from tensorcast.formats import bytes_of
from tensorcast.layers.state import install, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def install_linears(model, within: str = "") -> int:
    """Every nn.Linear and nn.Embedding of the model emits one operator. Returns how many."""
    count = 0
    for path, module in model.modules(within):
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
            install(module, path, linear_forward)
        elif isinstance(module, nn.Embedding):
            install(module, path, embedding_forward)
        else:
            continue
        count += 1
    return count


def linear_forward(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """forward of an installed nn.Linear."""
    state = state_of(module)
    return state.shard.after(product(x, module.weight, module.bias, state.quant))


def embedding_forward(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """forward of an installed nn.Embedding; some models multiply the rows by a constant `embed_scale`."""
    rows = state_of(module).shard.after(call.embedding(ids, module.weight))
    return rows if getattr(module, "embed_scale", None) is None else rows * 1.0


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, spec) -> torch.Tensor:
    """x · weightᵀ + bias with the kernels that `spec` (a QuantSpec or None) brings along."""
    if spec is None:
        fmt = dtype_name(weight)
        return call.linear(x, weight, bias, fmt, dtype_name(x), fmt, 0, False, "")
    quantised = quantise_activation(x, spec)
    n, k = weight.shape
    scales = spec.weight_bytes(n, k) - bytes_of(n * k, spec.weight)
    y = call.linear(
        x, weight, bias, spec.weight, spec.activation, spec.math, scales, spec.dequantises_weight, spec.label
    )
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
    return call.quantize(x, spec.activation, spec.activation_group, spec.dynamic, spec.math, spec.label)
