"""What a training step keeps of its forward pass: bytes that the backward pass reads, each storage counted once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from tensorcast.errors import ModelError
from tensorcast.layers.state import has_state, state_of
from tensorcast.ops.backward import INDICES, INPUTS, RESULT, gradient_of
from tensorcast.trace.library import call
from tensorcast.trace.liveness import tensors_in

_SCALED = ("aten::mul", "aten::div", "aten::maximum", "aten::minimum")  # by a plain number: nothing to keep


class Kept:
    """Storages kept so far. Parameters, buffers and inputs are there anyway and count for nothing.

    So are tensors that all layers of a stack are given (rotary tables, masks); the hidden states a layer starts with
    count, and are what a checkpointed layer keeps.
    """

    def __init__(self, resident: frozenset[int], inputs) -> None:
        self._known = {*resident, *(t.untyped_storage()._cdata for t in tensors_in(inputs))}
        self._entered = 0

    def layer_begins(self, args: tuple, kwargs: Mapping[str, Any]) -> None:
        """A layer of a stack is about to run with these arguments."""
        hidden = tensors_in(args[:1]) or tensors_in(kwargs.get("hidden_states"))
        self._new([t for t in tensors_in((args[1:], dict(kwargs))) if not any(t is h for h in hidden)])
        self._entered = sum(t.untyped_storage().nbytes() for t in hidden)

    def sizes(self, op: str, named: Mapping[str, Any] | None, inputs, outputs, dims, attrs) -> dict[str, float]:
        """More sizes of a row: `kept` bytes; `entered` bytes of the hidden states, of a layer's first operator.

        `named`: its arguments, where it is one of ours.
        """
        sizes, rule = {"kept": 0.0}, gradient_of(op)
        if rule is not None:
            sizes["kept"] = self._new(_tensors(op, rule.keeps, named, inputs, outputs)) + float(
                rule.beside(dims, attrs)
            )
        if self._entered:
            sizes["entered"], self._entered = float(self._entered), 0
        return sizes

    def _new(self, tensors) -> float:
        """Bytes of the storages not counted before."""
        total = 0.0
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._known:
                self._known.add(key)
                weakref.finalize(storage, self._known.discard, key).atexit = False
                total += storage.nbytes()
        return total


def _tensors(op: str, keeps: tuple[str, ...], named, inputs, outputs) -> list[torch.Tensor]:
    found = []
    for name in keeps:
        if name == RESULT:
            found += outputs
        elif name == INPUTS:
            found += inputs if op not in _SCALED or len(inputs) > 1 else []
        elif name == INDICES:
            found += [t for t in inputs if not t.is_floating_point()]
        else:
            found += tensors_in(named[name])
    return found


@contextmanager
def logits_in_parts(model) -> Iterator[tuple[int, int]]:
    """While inside, every rank keeps its part of the logits, for a loss over a divided vocabulary.

    Gives (ranks, stride) that share the vocabulary.
    """
    head = model.output_head
    shard = state_of(head).shard if head is not None and has_state(head) else None
    if shard is None or shard.style != "column_gather" or shard.group.size == 1:
        yield 1, 1
        return
    state_of(head).shard = replace(shard, style="column")
    try:
        yield shard.group.size, shard.group.stride
    finally:
        state_of(head).shard = shard


def run_loss(model, result: Any, batch: int, tokens: int, ranks: int, stride: int) -> None:
    """The loss over the logits of every token; over a divided vocabulary with three sums of one figure a token."""
    logits = result if isinstance(result, torch.Tensor) else getattr(result, "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.shape[:-1] != (batch, tokens):
        name = model.blueprint.source.name
        raise ModelError(
            f"{name}: --phase train needs logits [batch, tokens, vocabulary] of every token, none came out"
        )
    call.cross_entropy(logits)
    if ranks > 1:
        for _ in ("maximum", "sum", "target"):
            call.all_reduce(logits.new_empty((batch, tokens), dtype=torch.float32), ranks, stride)
