"""Feed-forward blocks: gated, and a mixture of experts."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from tensorcast.errors import ModelError
from tensorcast.nn.linear import Linear


def activation(name: str) -> nn.Module:
    """The activation module a configuration calls `name`."""
    if name not in ACT2FN:
        raise ModelError(f"unknown activation {name!r}; one of {', '.join(sorted(ACT2FN))}")
    return ACT2FN[name]


class GatedMLP(nn.Module):
    """down(act(gate(x)) · up(x)) with one product for gate and up: W [2·intermediate_size, hidden_size]."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        bias: bool = False,
        *,
        act: str = "silu",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.gate_up_proj = Linear(
            hidden_size,
            2 * intermediate_size,
            bias,
            dtype=dtype,
            tensor_parallel_mode="column",
            fused=("gate", "up"),
        )
        self.down_proj = Linear(intermediate_size, hidden_size, bias, dtype=dtype, tensor_parallel_mode="row")
        self.act_fn = activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(self.act_fn(gate) * up)


class Router(nn.Module):
    """Scores every expert and picks `top_k`: [tokens, hidden] → weights and indices [tokens, top_k]."""

    def __init__(self, num_experts: int, top_k: int, hidden_size: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, hidden_size, dtype=dtype))
        self.top_k = top_k

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.softmax(nn.functional.linear(x, self.weight), dim=-1, dtype=torch.float32)
        weights, chosen = scores.topk(self.top_k, dim=-1)
        return (weights / weights.sum(-1, keepdim=True)).to(x.dtype), chosen


class Experts(nn.Module):
    """`num_experts` gated feed-forwards: gate and up [experts, 2·inter, hidden], down [experts, hidden, inter]."""

    def __init__(self, num_experts: int, hidden_size: int, intermediate_size: int, act: str, dtype) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gate_up_proj = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size, dtype=dtype))
        self.down_proj = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size, dtype=dtype))
        self.act_fn = activation(act)

    def forward(self, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(x)
        for expert in range(self.num_experts):
            rows, slots = torch.where(chosen == expert)
            gate, up = (x[rows] @ self.gate_up_proj[expert].T).chunk(2, dim=-1)
            y = (self.act_fn(gate) * up) @ self.down_proj[expert].T
            out.index_add_(0, rows, y * weights[rows, slots, None])
        return out


class MoE(nn.Module):
    """A mixture of experts: every token runs through its `top_k` experts, and through `shared_experts` if there are."""

    def __init__(
        self,
        num_experts: int,
        top_k: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        act: str = "silu",
        shared_experts: nn.Module | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ModelError(f"MoE: top_k {top_k} of {num_experts} experts")
        self.gate = Router(num_experts, top_k, hidden_size, dtype)
        self.experts = Experts(num_experts, hidden_size, intermediate_size, act, dtype)
        self.shared_experts = shared_experts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x)
        y = self.experts(x, chosen, weights)
        return y if self.shared_experts is None else y + self.shared_experts(x)
