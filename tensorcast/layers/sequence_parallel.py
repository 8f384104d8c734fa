"""Sequence parallelism: between two sums over the tensor-parallel ranks, each of them holds a part of the tokens.

The sum behind attention and behind feed-forward is a reduce-scatter over tokens in place of an all-reduce; residual
sums and norms run on ⌈tokens / tp⌉ of them; an all-gather comes before the next product. A ring sends as many bytes for
the two as for the one all-reduce. Where every token sees others, in attention and scans, ranks have all of them.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from tensorcast.errors import DeploymentError
from tensorcast.layers.state import has_state, state_of
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def spread_tokens(model) -> int:
    """Scatter every sum of the residual stream's width. Returns how many; DeploymentError where there is none."""
    hidden, count = getattr(model.text_config, "hidden_size", None), 0
    for path, module in model.module.named_modules():
        if not has_state(module) or any(fnmatchcase(path, pattern) for pattern in model.visual_rules):
            continue
        shard, width = state_of(module).shard, _width(module)
        if shard.adds and hidden and width in (hidden, None):
            state_of(module).shard = replace(shard, scatter=True)
            count += shard.style != "vocab"
    if not count:
        what = f"{model.architecture} adds up no results of its hidden size over the ranks"
        raise DeploymentError(f"--sequence-parallel: {what}; leave it out")
    for norm in (model.final_norm, *(draft.norm for draft in model.drafts or ())):
        if norm is not None:  # the head takes the last tokens only, of all there are
            norm.register_forward_hook(lambda module, args, result: whole_tokens(result))
    return count


def _width(module: nn.Module) -> int | None:
    """Elements of a token behind a module; None for a block, whose result is as wide as what it read."""
    return module.weight.shape[1] if isinstance(module, nn.Embedding) else getattr(module, "out_features", None)


def tokens_spread(x: torch.Tensor) -> int:
    """Tokens that `x` stands for where they lie on several ranks, else 0."""
    tracer = current().tracer
    return tracer.spread.tokens(x) if tracer is not None and tracer.spread is not None else 0


def keep_own(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """`x`, of which each rank has a part of `tokens` tokens only."""
    tracer = current().tracer
    if tracer is not None and tracer.spread is not None:
        tracer.spread.put(x, tokens)
    return x


def whole_tokens(x: torch.Tensor) -> torch.Tensor:
    """All tokens of `x` on every rank: gathered once, however many products read them."""
    if not isinstance(x, torch.Tensor) or not tokens_spread(x):
        return x
    if getattr(x, "_whole", None) is None:
        plan = current().model.plan
        x._whole = call.all_gather_tokens(x, plan.tp, 1)
    return x._whole
