"""Decode context parallelism: ranks that would hold copies of the same keys hold a part of the tokens each.

`dcp` neighbours of a tensor-parallel group share the cache of the KV heads that all of them read (of latents: there is
one). Tokens are dealt out to them one by one. In a prefill every rank has the new keys of its heads anyway and keeps
its part; cached keys are gathered first. In decode

    queries of all heads     all_gather   [b, dcp · heads, s, d]
    attention                of dcp · heads over ⌈keys / dcp⌉ of every query
    log Σ exp of the scores  all_gather   [dcp, b, dcp · heads, s] in fp32
    results, rescaled        reduce_scatter over the heads   [b, s, dcp · heads, dv] → [b, s, heads, dv]

on every rank: out = Σ_r exp(l_r - log Σ exp(l)) out_r with the log-sum-exp l_r of rank r is full attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from tensorcast.errors import DeploymentError, TransformationError
from tensorcast.trace.context import current
from tensorcast.trace.library import call


def require_shared(model, caches) -> None:
    """DeploymentError where a layer keeps something of every token that ranks cannot share, or none keeps anything."""
    dcp = model.plan.dcp
    if dcp == 1:
        return
    kept = [note for note in caches if note.token_bytes]
    alone = sorted({note.kind for note in kept if note.shards == 1})
    if not kept:
        raise DeploymentError(f"--dcp {dcp}: {model.architecture} has no KV cache to share; leave it out")
    if alone:
        raise DeploymentError(f"--dcp {dcp}: ranks cannot share the cache of kind {', '.join(alone)}; leave it out")


def shared_keys(k: torch.Tensor, v: torch.Tensor, past: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What attention gets of a shared cache: in decode the rank's own part, else all, of which `past` are gathered."""
    context = current()
    model, dcp = context.model, context.model.plan.dcp
    if context.phase != "decode":
        return call.gather_keys(k, v, past, model.kv_format, dcp, 1) if past else (k, v)
    k._shards = dcp
    context.unread[id(k)] = context.tracer.here if context.tracer is not None else ""
    return k, v


def require_read(context) -> None:
    """DeploymentError where the code of a model attended shared keys in a way of its own."""
    if context.unread:
        path = next(iter(context.unread.values()))
        raise DeploymentError(
            f"--dcp {context.model.plan.dcp}: {path} does not attend its cache as it is kept (code or an mla kernel of "
            "its own), so ranks cannot share it; leave it out"
        )


def attend_shared(slot, q, k, v, rule) -> torch.Tensor:
    """The slot's kernel on q [b, heads, s, d] → [b, s, heads, dv], over the parts of keys that ranks share."""
    if getattr(k, "_shards", 1) > 1 and not getattr(slot.kernel, "shards", False):
        how = f"attention={slot.name} reads all keys; choose --kernel attention=flash or paged"
        raise TransformationError(f"--dcp {k._shards}: {how}")
    return over_shares(lambda q, rule: slot.kernel(q, k, v, rule), (q,), k, rule, heads_dim=2)


def over_shares(attend: Callable, queries: tuple, k: torch.Tensor, rule, *, heads_dim: int) -> torch.Tensor:
    """`attend(*queries, rule)`; where ranks share the keys, with the queries of all of them, results merged.

    `queries`: parts [b, heads, s, …] of the queries; `heads_dim`: where the result has its heads.
    """
    current().unread.pop(id(k), None)
    shards = getattr(k, "_shards", 1)
    if shards == 1:
        return attend(*queries, rule)
    if rule.topk:
        raise DeploymentError(f"--dcp {shards}: sparse attention picks keys of all tokens; leave it out")
    with current().suspended():  # written side by side by the kernels that make them
        own = queries[0] if len(queries) == 1 else torch.cat(queries, dim=-1)
    widths = [part.shape[-1] for part in queries]
    out = attend(*call.all_gather(own, 1, shards, 1).split(widths, dim=-1), replace(rule, shards=shards))
    sums = call.all_gather(out.new_empty(out.shape[:-1], dtype=torch.float32), 0, shards, 1)
    return call.reduce_scatter(call.rescale_partials(out, sums), heads_dim, shards, 1)
