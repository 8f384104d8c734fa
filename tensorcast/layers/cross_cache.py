"""The cache of an encoder-decoder: keys and values of the decoder's own tokens, and those of what its encoder read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import cache_utils

from tensorcast.deployed import CROSS
from tensorcast.layers.cache import build_cache
from tensorcast.ops.base import item_bytes
from tensorcast.trace.context import current
from tensorcast.trace.library import call

Shapes = Mapping[int, tuple[tuple[int, ...], tuple[int, ...]]]
"""Decoder layer → shapes of the keys and of the values that its cross-attention keeps, batch first."""


class CrossLayer(cache_utils.DynamicLayer):
    """What one layer keeps of the encoder's result; its length never grows. `kept`: shapes, once it has been filled."""

    def __init__(self, kept: tuple[tuple[int, ...], tuple[int, ...]] | None = None) -> None:
        super().__init__()
        self.is_initialized = True
        if kept is not None:
            dtype = current().model.blueprint.dtype
            self.keys, self.values = (torch.empty(shape, dtype=dtype, device="meta") for shape in kept)

    def update(self, key_states, value_states, *args, **kwargs):
        model, step, tracer = current().model, current().step, current().tracer
        self.shapes = tuple(key_states.shape), tuple(value_states.shape)
        elements = (key_states.numel() + value_states.numel()) / key_states.shape[0]
        if tracer is not None:
            fixed, nbytes = model.blueprint.source.reading.fixed, elements * item_bytes(model.kv_format)
            sizes = {"sequence_bytes": nbytes} if fixed else {"token_bytes": nbytes / step.tokens}
            tracer.note_cache(CROSS, **{"token_bytes": 0, "sequence_bytes": 0, **sizes}, window=0, block=1)
        return call.kv_append(key_states, value_states, 0, model.kv_format, 0)

    def get_seq_length(self):
        return 0 if self.keys is None else self.keys.shape[-2]


class SequenceCache(cache_utils.EncoderDecoderCache):
    """`past` tokens of the decoder, and the encoder's result where `kept` says that it is there."""

    def __init__(self, config, past: int, kept: Shapes | None = None) -> None:
        own = build_cache(config, past)
        across = [CrossLayer(_kept(kept, index) if kept else None) for index in range(len(own.layers))]
        super().__init__(own, cache_utils.Cache(layers=across))

    @property
    def shapes(self) -> Shapes:
        """What the layers that ran were given; reused ones are like one of them."""
        return {i: x.shapes for i, x in enumerate(self.cross_attention_cache.layers) if hasattr(x, "shapes")}


def _kept(kept: Shapes, index: int):
    """Of a layer that was reused: as of the nearest one before it that ran."""
    return kept.get(index) or kept[max(i for i in kept if i < index)]
