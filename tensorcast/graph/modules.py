"""The modules a graph is compiled to: parameters lie where their names say, a layer runs its piece of the program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.nn.attention import attend
from tensorcast.trace.library import call

ACTIVATIONS = {"Silu": "SiLU", "Gelu": "GELU"}


@dataclass(frozen=True)
class Instruction:
    """`function(*reads)` gives `writes`; `frees` are dropped behind it."""

    function: Callable[..., Any]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    frees: tuple[str, ...]


def run(program: tuple[Instruction, ...], data: dict[str, Any]) -> None:
    """Run a program on named data."""
    for step in program:
        result = step.function(*(data[name] for name in step.reads))
        data.update(zip(step.writes, result if isinstance(result, tuple) else (result,), strict=True))
        del result
        for name in step.frees:
            data.pop(name, None)


class Part(nn.Module):
    """A node of the tree without a program of its own."""


class Norm(nn.Module):
    """A norm over the last dimension. The class's name says which, see `RMSNorm`."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(width)), eps


class RMSNorm(Norm):
    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class Attention(Part):
    """FusedAttention: the head counts that deployment divides, the layer of the cache, the cache's unit in tokens."""

    is_causal = True

    def __init__(self, heads: int, kv_heads: int, head_dim: int, layer_idx: int, scale: float, unit: int) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads, self.head_dim = heads, kv_heads, head_dim
        self.layer_idx, self.scaling, self.cache_unit = layer_idx, scale, unit

    def forward(self, q, k, v, lengths):
        """q, k, v [tokens, heads, size] → [tokens, heads · size]."""
        return attend(self, q, k, v, lengths, scaling=self.scaling)


class Gated(Part):
    """act(gate(x)) · up(x), then the down product."""

    def __init__(self, act: str) -> None:
        super().__init__()
        self.act = act

    def forward(self, x):
        if hasattr(self, "gate_up_proj"):
            return self.down_proj(call.swiglu(*self.gate_up_proj(x).chunk(2, dim=-1)))
        return self.down_proj(call.activation(self.gate_proj(x), self.act) * self.up_proj(x))


class Router(nn.Module):
    """Scores of every expert, and the best `top_k`."""

    def __init__(self, experts: int, hidden: int, top_k: int) -> None:
        super().__init__()
        self.weight, self.top_k = nn.Parameter(torch.empty(experts, hidden)), top_k

    def forward(self, x):
        return torch.topk(nn.functional.linear(x, self.weight).softmax(-1), self.top_k, dim=-1)


class Experts(nn.Module):
    """Weights of all experts; what runs them is the slot that patch_moe installs."""

    def __init__(self, gate_up: tuple[int, ...], down: tuple[int, ...]) -> None:
        super().__init__()
        self.gate_up_proj, self.down_proj = nn.Parameter(torch.empty(gate_up)), nn.Parameter(torch.empty(down))

    def forward(self, x, indices, scores):
        raise ModelError("the experts of a graph run through the moe_experts slot; run patch_moe")


class MoE(Part):
    """A router and its experts."""

    def __init__(self, gate: str, experts: str) -> None:
        super().__init__()
        self.names = (gate, experts)

    def forward(self, x):
        gate, experts = (getattr(self, name) for name in self.names)
        scores, indices = gate(x)
        return experts(x, indices, scores)


class Layer(Part):
    """One layer of a stack. `program_text` says what it does whatever its index and the names of its data."""

    def __init__(self, takes: tuple[str, ...], gives: tuple[str, ...], text: str) -> None:
        super().__init__()
        self.program_text = text
        self._takes, self._gives = {"names": takes}, {"names": gives}  # names are no property of the layer: see reuse
        self._program: dict[str, tuple[Instruction, ...]] = {}

    def program(self, steps: tuple[Instruction, ...]) -> None:
        self._program["steps"] = steps

    def forward(self, *values):
        """Live data in, live data out, in the order the layer was made with."""
        data = dict(zip(self._takes["names"], values, strict=True))
        del values
        run(self._program["steps"], data)
        found = tuple(data[name] for name in self._gives["names"])
        return found[0] if len(found) == 1 else found


class GraphModel(Part):
    """The whole graph. `decoder`, `table` and `head` are paths of the layers' parent, the embedding and the head."""

    def __init__(self, decoder: str, table: str, head: str, result: str) -> None:
        super().__init__()
        self._paths, self._result = {"decoder": decoder, "table": table, "head": head}, result
        self._steps: tuple[Instruction, ...] = ()

    def forward(self, input_ids, position_ids, attn_metadata):
        """Token ids and positions [tokens] of all sequences, and the sequences themselves."""
        data = {"inputIds": input_ids, "positionIds": position_ids, "seqLens": attn_metadata}
        run(self._steps, data)
        return data[self._result]

    def get_decoder(self) -> nn.Module:
        return self.get_submodule(self._paths["decoder"])

    def get_input_embeddings(self) -> nn.Module | None:
        return self.get_submodule(self._paths["table"]) if self._paths["table"] else None

    def get_output_embeddings(self) -> nn.Module | None:
        return self.get_submodule(self._paths["head"]) if self._paths["head"] else None
