"""A layer of routed experts in torch: permute, both grouped products, activation, weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from tensorcast.measure.machine import Machine


def experts_kernel(machine: Machine) -> str:
    """Whether torch has one kernel for all experts' products here, or goes through them one by one."""
    return "torch_grouped_mm" if _grouped(machine) else "torch_loop"


def _grouped(machine: Machine):
    """torch's grouped product if it runs on this device, else None."""
    product = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    if product is None or machine.kind == "cpu":  # there it is a loop itself
        return None
    ends = torch.tensor([16, 32], dtype=torch.int32, device=machine.device)
    try:
        product(machine.random(32, 64), machine.random(2, 64, 64), offs=ends)
    except (RuntimeError, NotImplementedError):  # of torch: no such kernel for this device
        return None
    return product


def experts_call(machine: Machine, s: Mapping[str, Any]) -> Callable[[], Any]:
    """The layer on tokens that visit all experts equally often."""
    tokens, hidden, inter, count, topk = (s[n] for n in ("tokens", "hidden", "inter", "experts", "topk"))
    x = machine.random(tokens, hidden)
    # Laid out n × k, so that both products read rows of weights as an engine stores them.
    into, back = machine.random(count, 2 * inter, hidden).mT, machine.random(count, hidden, inter).mT
    chosen = torch.arange(tokens * topk, device=machine.device) % count
    weights = machine.random(tokens, topk, 1)
    ends = torch.bincount(chosen, minlength=count).cumsum(0).to(torch.int32)
    product = _grouped(machine) or _loop(ends.tolist())

    def layer():
        order = torch.argsort(chosen)
        gate, up = product(x[order // topk], into, offs=ends).chunk(2, dim=-1)
        out = product(F.silu(gate) * up, back, offs=ends)
        return (out[torch.argsort(order)].view(tokens, topk, hidden) * weights).sum(1)

    return layer


def _loop(ends: list[int]):
    spans = list(zip([0, *ends[:-1]], ends, strict=True))

    def product(rows, matrices, offs):
        return torch.cat([rows[a:b] @ matrices[at] for at, (a, b) in enumerate(spans) if b > a])

    return product
