"""A module that a model calls again and again: of calls with equal arguments one is run and the rest are counted.

The decoder of a video's autoencoder makes one group of frames a call, and keeps frames from call to call in lists that
it is given. What a call leaves in them is put there again for every call that it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tensorcast.layers.reuse import _shapes
from tensorcast.trace.context import current


def count_repeated_calls(module: nn.Module, name: str) -> None:
    """Replace the forward of `module`, whose calls are the list of layers `name` of the table. With reuse switched off
    every call is run."""
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        context, given = current(), (args, kwargs)
        tracer = context.tracer
        if tracer is None or tracer.layer is not None or not context.model.deployment.reuse:
            return original(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            key = (name, _shapes(given), _shapes(_kept_inside(module)))
        kept = list(_lists(given))
        seen = tracer.blocks.get(key)
        if seen is not None:
            tracer.stands_for(seen, _calls(tracer, name))
            for entries in kept:
                entries[:] = [None] * len(entries)  # what the call replaces is free before the new is there
            result, left = seen.result(())
            for entries, content in zip(kept, left, strict=True):
                entries[:] = content
            return result
        with tracer.block(key, name, _calls(tracer, name)) as seen:
            result = original(*args, **kwargs)
            seen.remember((result, kept), ())
        return result

    module.forward = forward


def _kept_inside(module: nn.Module) -> list[Any]:
    """What the parts of a module keep from call to call in attributes of their own: frames, flags, counters."""
    kinds = (torch.Tensor, bool, int, float, str, type(None))
    values = (
        (path, name, value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if not name.startswith("_") and isinstance(value, kinds)
    )
    return list(values)


def _calls(tracer: Any, name: str) -> int:
    """Calls so far in this trace."""
    return sum(len(seen.layers) for (stack, *_), seen in tracer.blocks.items() if stack == name)


def _lists(value: Any) -> Iterator[list]:
    """The lists among the arguments, outermost only: what a call can leave something in."""
    if isinstance(value, list):
        yield value
    elif isinstance(value, (tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _lists(item)
