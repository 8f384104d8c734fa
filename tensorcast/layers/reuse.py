"""Layer reuse: of equal layers that get inputs of equal shapes, one is run and the rest are counted.

Two layers are equal when every submodule agrees in name, class, parameter shapes and dtypes, plain attributes,
quantisation, sharding and kernels, and the configuration says the same of both.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import nn
from torch.utils import _pytree as pytree

from tensorcast.layers.sequence_parallel import keep_own, tokens_spread
from tensorcast.layers.state import Deployed, install, original_forward
from tensorcast.trace.context import current
from tensorcast.transformer_model import Stack

_IGNORED = {"layer_idx", "layer_index", "training", "_is_hf_initialized", "layer_number", "layer_id", "idx", "index"}
_PLAIN = (bool, int, float, str, type(None))
_UNSEEN = torch._C.DisableTorchFunction
"""Looking at shapes and making tensors alike is nothing for the modes of functions around to see."""


def find_stacks(model) -> list[Stack]:
    """The decoder's layers and other lists of three or more real blocks, outermost only; they report to the tracer."""
    decoder, towers = model.layers, model.tower_layers
    drafts = set() if model.drafts is None else {*model.drafts.modules()}  # run one by one, with inputs of their own
    for path, module in model.module.named_modules():
        nested = any(path.startswith(f"{s.path}.") for s in model.stacks)
        if not isinstance(module, nn.ModuleList) or nested or module in drafts:
            continue
        if (module is decoder or path == towers or len(module) >= 3) and all(_is_block(child) for child in module):
            model.stacks.append(Stack(path, list(module), model.deployment.reuse))
    for stack in model.stacks:
        for index, block in enumerate(stack.layers):
            install(block, f"{stack.path}.{index}", _block_forward(stack, index))
    return model.stacks


def _is_block(module: nn.Module | None) -> bool:
    return module is not None and sum(1 for _ in module.parameters()) >= 3 and sum(1 for _ in module.modules()) >= 4


def _block_forward(stack: Stack, index: int):
    def forward(block, *args, **kwargs):
        context = current()
        tracer, context.block_options = context.tracer, kwargs
        if tracer is None or tracer.layer is not None:
            return original_forward(block, *args, **kwargs)
        key = (stack.path, index, len(tracer.blocks))  # a layer that runs again is traced again
        if stack.reuse:
            with _UNSEEN():
                key = (stack.path, signature(block, index), _shapes((args, kwargs)))
        seen = tracer.blocks.get(key)
        if seen is not None:
            tracer.stands_for(seen, index)
            with _UNSEEN():
                result = seen.result((args, kwargs))
            tracer.passed_on(result)
            return result
        if tracer.kept is not None:
            tracer.kept.layer_begins(args, kwargs)
        with tracer.block(key, stack.path, index) as seen:
            result = original_forward(block, *args, **kwargs)
            seen.remember(result, (args, kwargs))
        return result

    return forward


class Seen:
    """One traced representative: the layers it stands for, its calls, the most bytes in use when one of the layers
    starts, and the shapes of what it returned."""

    def __init__(self, index: int) -> None:
        self.layers = [index]
        self.calls: list = []
        self.sum = None  # the call that added up what it returned, if it ended so
        self.live = 0

    def remember(self, result, inputs) -> None:
        leaves, self._spec = pytree.tree_flatten(result)
        given = pytree.tree_leaves(inputs)
        self._leaves = [_Output.of(x, given) if isinstance(x, torch.Tensor) else x for x in leaves]
        self._hands_on = any(isinstance(x, _Output) and x.handed_on >= 0 for x in self._leaves)

    def result(self, inputs):
        """Fresh tensors of the same shapes: memory in use goes on as if the layer had run on `inputs`."""
        given = pytree.tree_leaves(inputs) if self._hands_on else []
        leaves = [x.made(given) if isinstance(x, _Output) else x for x in self._leaves]
        return pytree.tree_unflatten(leaves, self._spec)


class _Output(NamedTuple):
    """A tensor that a layer returned: what it is like, or which of the layer's inputs it is (-1: none)."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    handed_on: int
    tokens: int  # that it stands for where they lie on several ranks

    @classmethod
    def of(cls, x: torch.Tensor, given: list) -> _Output:
        place = next((i for i, y in enumerate(given) if y is x), -1)
        return cls(tuple(x.shape), x.stride(), x.dtype, x.device, place, tokens_spread(x))

    def made(self, given: list) -> torch.Tensor:
        if self.handed_on >= 0:
            return given[self.handed_on]
        made = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)
        return keep_own(made, self.tokens) if self.tokens else made


def signature(block: nn.Module, index: int) -> str:
    """Digest of everything that decides what a block emits. Computed once; deployed modules do not change."""
    cached = block.__dict__.get("_tensorcast_signature")
    if cached is None:
        parts: list[object] = []
        for name, module in block.named_modules():
            parts.append((name, type(module).__name__, _parameters(module), _attributes(module, index)))
        cached = block.__dict__["_tensorcast_signature"] = hashlib.sha256(repr(parts).encode()).hexdigest()
    return cached


def _parameters(module: nn.Module):
    return [(n, tuple(p.shape), str(p.dtype)) for n, p in module._parameters.items() if p is not None]


def _attributes(module: nn.Module, index: int):
    out = []
    for name, value in vars(module).items():
        if name in _IGNORED or name.startswith(("_forward", "_backward", "_state_dict", "_load", "_non_persistent")):
            continue
        values = value if isinstance(value, (tuple, list)) else (value,)
        if all(isinstance(v, _PLAIN) for v in values):
            out.append((name, value))
        elif isinstance(value, Deployed):
            slots = sorted((op, slot.name) for op, slot in value.slots.items())
            out.append((name, value.quant, value.shard, value.exchange, slots))
    layer = getattr(module, "layer_idx", None)
    config = getattr(module, "config", None)
    if isinstance(layer, int) and config is not None:
        out += _said_of_layer(config, layer)
    return out


def _said_of_layer(config, layer: int) -> list[tuple[str, object]]:
    """What the per-layer lists of a configuration say of one layer: layer_types, mlp_layer_types, no_rope_layers …

    A list of layer numbers (moe_layers: [0, 2, 4 …]) says whether the layer is in it.
    """
    config = vars(config).get("_config", config)  # a rank's own view of it (sharding) keeps the whole one inside
    layers = getattr(config, "num_hidden_layers", None)
    out = []
    for name, value in vars(config).items():
        if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, _PLAIN) for v in value):
            continue
        if all(type(v) is int for v in value) and list(value) == sorted({*value}) and value[-1] < layers:
            out.append((name, layer in value))
        elif len(value) == layers and layer < layers:
            out.append((name, value[layer]))
    return out


def _shapes(value):
    """Shapes, strides and dtypes of every tensor in the arguments, and the values that are known; hashable."""
    if isinstance(value, torch.Tensor) and value.device.type == "cpu":
        return value.dtype, str(value.tolist())
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, tokens_spread(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_shapes(item) for item in value)
    if isinstance(value, dict):
        return tuple((name, _shapes(item)) for name, item in value.items())
    return type(value).__name__
