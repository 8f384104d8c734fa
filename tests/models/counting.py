"""A module of diffusers in memory, and the work that torch counts when it runs."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode


def real(config: dict) -> torch.nn.Module:
    """The module itself, in memory."""
    import diffusers.models

    return getattr(diffusers.models, config["_class_name"]).from_config(config).eval()


def counted(module: torch.nn.Module, inputs: dict) -> tuple[float, float]:
    """(FLOP torch counts in a run on the CPU, FLOP of its attention by formula): the counter leaves attention out."""
    attention, original = [0.0], torch.nn.functional.scaled_dot_product_attention

    class Formula(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            kwargs = kwargs or {}
            if func is original:
                q, k, v = args[:3] if args else (kwargs["query"], kwargs["key"], kwargs["value"])
                batch, heads, queries, width = q.shape
                attention[0] += 2 * batch * heads * queries * k.shape[2] * (width + v.shape[3])
                return q.new_zeros((batch, heads, queries, v.shape[3]))
            return func(*args, **kwargs)

    with torch.no_grad(), Formula(), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return counter.get_total_flops(), attention[0]
