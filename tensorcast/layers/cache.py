"""A KV cache of any length that holds nothing: each layer answers with operators and remembers what a token costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import cache_utils

from tensorcast.errors import ModelError
from tensorcast.layers.context_parallel import shared_keys
from tensorcast.layers.scan import STATE_FORMAT
from tensorcast.ops.base import dtype_name, item_bytes
from tensorcast.trace.context import current
from tensorcast.trace.library import call


class _Recorder:
    """What one layer keeps, for the memory report: bytes a token (within `window`) and bytes a sequence."""

    def note(
        self, kind: str, *, token_bytes: float = 0, sequence_bytes: float = 0, window: int = 0, **more: int
    ) -> None:
        tracer = current().tracer
        if tracer is not None:
            sizes = {"token_bytes": token_bytes, "sequence_bytes": sequence_bytes}
            tracer.note_cache(kind, **sizes, window=window, **more)


class _Keys(_Recorder):
    """Keys and values of one layer with `past` tokens in front of the new ones; memory is taken by `block` tokens."""

    past: int
    window: int
    block: int = 1

    def update(self, key_states, value_states, *args, **kwargs):
        fmt = current().model.kv_format
        elements = sum(t.shape[1] * t.shape[-1] for t in (key_states, value_states))
        shared = {"block": self.block, "shards": current().model.plan.dcp}
        self.note("kv", token_bytes=elements * item_bytes(fmt), window=self.window, **shared)
        return self.append(key_states, value_states)

    def append(self, key_states, value_states):
        """The keys and values to attend: those of the cache and the new ones, which go into it."""
        model = current().model
        kept = call.kv_append(key_states, value_states, self.past, model.kv_format, self.window, model.plan.dcp)
        return shared_keys(*kept, self.past) if model.plan.dcp > 1 else kept

    def update_indexer(self, indexer_key_states, *args, **kwargs):
        fmt = current().model.index_format
        self.note("index", token_bytes=indexer_key_states.shape[-1] * item_bytes(fmt))
        return call.index_append(indexer_key_states, self.past, fmt)

    def get_seq_length(self):
        return self.past

    def get_mask_sizes(self, query_length):
        return self.past + int(query_length), 0


class _States(_Recorder):
    """Convolution and recurrent state of one layer; present when `past` tokens have been seen.

    Code that does more with a state than hand it to a scan gets an empty one of the shape that the layer last gave.
    """

    past: int
    index: int

    def get_conv_state(self, state_idx=0):
        return self._kept("conv", state_idx)

    def get_recurrent_state(self, state_idx=0):
        return self._kept("state", state_idx)

    def update_conv_state(self, conv_states, state_idx=0, conv_kernel_size=None, **kwargs):
        # the inputs that the next token's window still needs; code that names no window hands over just those
        width = conv_kernel_size - 1 if conv_kernel_size is not None else conv_states.shape[-1]
        self.note("conv", sequence_bytes=conv_states.shape[1] * width * item_bytes(dtype_name(conv_states)))
        shape = (*conv_states.shape[:-1], conv_kernel_size or conv_states.shape[-1])
        self._keep("conv", state_idx, shape, conv_states.dtype)
        return conv_states

    def update_recurrent_state(self, recurrent_states, state_idx=0, **kwargs):
        elements = recurrent_states.numel() // recurrent_states.shape[0]
        self.note("state", sequence_bytes=elements * item_bytes(STATE_FORMAT))
        self._keep("state", state_idx, recurrent_states.shape, recurrent_states.dtype)
        return recurrent_states

    def _keep(self, kind, state_idx, shape, dtype) -> None:
        current().model.states[self.index, kind, state_idx] = tuple(shape[1:]), dtype

    def _kept(self, kind, state_idx):
        if not self.past:
            return None
        found = current().model.states.get((self.index, kind, state_idx))
        if found is None:
            return _PLACEHOLDER
        with current().suspended():
            return torch.empty((current().step.batch, *found[0]), dtype=found[1])

    def _start(self) -> None:
        for i in range(self.number_of_states):
            self.has_previous_state[i] = self.past > 0


_PLACEHOLDER = object()


class KvLayer(_Keys, cache_utils.DynamicIndexedLayer):
    """A layer with keys and values."""

    def __init__(self, past: int, window: int = 0) -> None:
        super().__init__()
        self.past, self.window = past, window
        self.is_initialized = True
        self.keys = self.values = torch.empty(0)  # as a layer of the library that nothing was written to


class StateLayer(_States, cache_utils.LinearAttentionLayer):
    """A layer with states."""

    def __init__(self, past: int, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        self.past = past
        self._start()


class MixedLayer(_States, _Keys, cache_utils.LinearAttentionAndFullAttentionLayer):
    """A layer that runs attention and a scan side by side: keys and values, and states."""

    def __init__(self, past: int, window: int = 0, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        self.past, self.window = past, window
        self.is_initialized = True
        self._start()


def build_cache(config, past: int, drafts: Sequence[str | None] = ()):
    """A cache for every decoder layer of `config` and every block of its draft layers, each with `past` tokens.

    `drafts` are the kinds of those blocks, None for one like the last layer.
    """
    kinds, options = cache_utils.get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    like = dict(zip(("dummy" if k in ("moe", "mlp") else k for k in kinds), options, strict=True))
    layers = [*zip(kinds, options, strict=True)]
    for kind in drafts:
        kind = "dummy" if kind in ("moe", "mlp") else kind
        layers.append((kinds[-1], options[-1]) if kind is None else (kind, like.get(kind, {})))
    made = [_layer(kind, opts, past) for kind, opts in layers]
    for index, layer in enumerate(made):
        layer.index = index
    return EmptyCache(made, past)


def _layer(kind: str, options: dict, past: int):
    own = current().model.profile.caches.get(kind)
    if own is not None:
        return own(options, past)
    known = cache_utils.DYNAMIC_LAYER_TYPE_MAPPING.get(kind)
    if known is None or known.__module__ != cache_utils.__name__:
        # Such a cache decides how much is read and kept; taking it for plain keys and values would be a wrong number.
        raise ModelError(
            f"{current().model.blueprint.source.name}: layers of type {kind} keep a cache of their own kind, which is "
            f"not modelled yet; layers with keys and values, latents, an index or recurrent states are"
        )
    if kind == "dummy":
        return cache_utils.DummyLayer()
    states, keys = (issubclass(known, c) for c in (cache_utils.LinearAttentionLayer, cache_utils.DynamicLayer))
    window, number = int(options.get("sliding_window") or 0), options.get("number_of_states", 1)
    if states:
        return MixedLayer(past, window, number) if keys else StateLayer(past, number)
    return KvLayer(past, window)


class EmptyCache(cache_utils.Cache):
    """Layers without storage, `past` tokens in each. States are answered per layer so that a step with a past takes
    the decode branch."""

    def __init__(self, layers: list, past: int) -> None:
        super().__init__(layers=layers)
        self.past = past

    def get_seq_length(self, layer_idx=0):
        return self.past

    def get_conv_state(self, layer_idx, state_idx=0):
        layer = self.layers[layer_idx]
        return layer.get_conv_state(state_idx) if isinstance(layer, _States) else None

    def get_recurrent_state(self, layer_idx, state_idx=0):
        layer = self.layers[layer_idx]
        return layer.get_recurrent_state(state_idx) if isinstance(layer, _States) else None
