"""From a graph with shapes to an nn.Module whose parameter paths are the names of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from tensorcast.errors import ModelError
from tensorcast.graph import modules as parts
from tensorcast.graph.layout import Layer, Layout, Step, laid_out, module_of
from tensorcast.graph.operators import Op
from tensorcast.graph.recording import CACHES, ComputeGraph
from tensorcast.graph.sizes import Sized, sized
from tensorcast.graph.weights import Weights
from tensorcast.nn.attention import RotaryEmbedding, turn
from tensorcast.trace.library import call


def compiled(graph: ComputeGraph, weights: Weights) -> parts.GraphModel:
    """The module of a recorded graph; CustomModelError names the operator that does not fit."""
    ops = graph._record().ops
    return _Compiler(laid_out(sized(ops, weights)), ops, weights).model()


class _Compiler:
    """One compilation."""

    def __init__(self, layout: Layout, ops: list[Op], weights: Weights) -> None:
        self.layout, self.ops, self.weights = layout, ops, weights
        self._made: dict[str, nn.Module] = {}
        self._used: dict[str, Op] = {}

    def model(self) -> parts.GraphModel:
        stacks = self.layout.stacks
        decoder = max(stacks, key=stacks.get, default="")
        root = parts.GraphModel(module_of(decoder), self._table(), self._head(), self.layout.result)
        for item in self.layout.program:
            self._make(item)
        program = tuple(self._instruction(item) for item in self.layout.program)
        self._assemble(root)
        root._steps = program
        for name, source in self.weights.ties.items():
            root.get_submodule(module_of(name)).weight = root.get_submodule(module_of(source)).weight
        return root

    def _table(self) -> str:
        found = (op for op in self.ops if op.type == "Embedding" and op.values["input"] == "inputIds")
        return next((module_of(op.values["weight"]) for op in found), "")

    def _head(self) -> str:
        found = (op for op in reversed(self.ops) if op.type == "Linear" and self.layout.result in op.writes)
        return next((module_of(op.values["weight"]) for op in found), "")

    # -- modules -------------------------------------------------------------------------------------------------------

    def _make(self, item: Step | Layer) -> None:
        if isinstance(item, Layer):
            self._made.setdefault(item.stack, nn.ModuleList())
            self._made[item.path] = parts.Layer(item.takes, item.gives, _text(item))
            for step in item.steps:
                self._make(step)
            return
        for part in item.parts:
            if part.op.type in _HOLDERS:
                self._hold(part)
        if item.kind in _MAKERS:
            self._put(item.module, _MAKERS[item.kind](item), item.first.op)

    def _put(self, path: str, module: nn.Module, op: Op) -> None:
        """Make `module` the one at `path`; one of its class may be there already, used a second time."""
        if type(self._made.setdefault(path, module)) is not type(module):
            raise op.fault(
                f"{path} is the path of another module too ({type(self._made[path]).__name__}); rename its weights"
            )

    def _hold(self, part: Sized) -> None:
        """The module with the weights of one operator; one weight may be used by several operators that agree."""
        op = part.op
        if op.type == "MoE":
            self._hold_experts(op)
            return
        path, bias = module_of(op.values["weight"]), self._bias(op)
        if op.values["weight"] != f"{path}.weight" or not path:
            raise op.fault(f"weight {op.values['weight']!r}: the name of such a weight ends in .weight")
        if bias is not None and bias != f"{path}.bias":
            raise op.fault(f"bias {bias!r} does not belong to {op.values['weight']!r}; its name would be {path}.bias")
        other = self._used.setdefault(path, op)
        if (other.type, self._bias(other)) != (op.type, bias):
            raise op.fault(f"{op.values['weight']!r} is used by {other} in another way")
        shape = self.weights.shapes.get(op.values["weight"])
        shape = shape or self.weights.shapes[self.weights.ties[op.values["weight"]]]
        self._put(path, _HOLDERS[op.type](shape, bias is not None, op.values), op)

    def _bias(self, op: Op) -> str | None:
        """Name of the operator's bias, None where it has none."""
        name = op.values.get("bias")
        return name if name in self.weights.shapes else None

    def _hold_experts(self, op: Op) -> None:
        gate, gate_up, down = (op.values[name] for name in ("gate", "gateUp", "down"))
        experts, block = module_of(gate_up), module_of(module_of(gate))
        if (gate_up, down) != (f"{experts}.gate_up_proj", f"{experts}.down_proj") or module_of(experts) != block:
            names = "<block>.<router>.weight, <block>.<experts>.gate_up_proj, <block>.<experts>.down_proj"
            raise op.fault(f"{gate!r}, {gate_up!r}, {down!r}: the names must be {names}")
        shapes = self.weights.shapes
        self._put(module_of(gate), parts.Router(*shapes[gate], op.values["topK"]), op)
        self._put(experts, parts.Experts(shapes[gate_up], shapes[down]), op)
        self._put(block, parts.MoE(module_of(gate).rpartition(".")[2], experts.rpartition(".")[2]), op)

    def _assemble(self, root: nn.Module) -> None:
        """Put every module where its path says, in the order of the program, with plain parts in between."""
        for path in self._made:
            parent, names = root, path.split(".")
            for i, name in enumerate(names, 1):
                if name not in parent._modules:
                    here = ".".join(names[:i])
                    parent.add_module(name, self._made[here] if here in self._made else parts.Part())
                parent = parent._modules[name]

    # -- program -------------------------------------------------------------------------------------------------------

    def _instruction(self, item: Step | Layer) -> parts.Instruction:
        if isinstance(item, Layer):
            layer = self._made[item.path]
            layer.program(tuple(self._instruction(step) for step in item.steps))
            return parts.Instruction(layer, item.takes, item.gives, item.frees)
        if item.kind == "Lookup":
            function = partial(self._made[item.module], dtype=torch.get_default_dtype())
        elif item.kind in _FUNCTIONS:
            function = _FUNCTIONS[item.kind](item.first)
        else:
            function = self._made[item.module]
        return parts.Instruction(function, item.reads, item.writes, item.frees)


def _text(layer: Layer) -> str:
    """What the layer does, with its own path and the names of data left out."""
    names: dict[str, str] = {}
    lines = []
    for step in layer.steps:
        for part in step.parts:
            values = {}
            for parameter in part.op.signature.parameters:
                value = part.op.values[parameter.name]
                if parameter.kind in ("weight", "bias"):
                    value = value.replace(f"{layer.path}.", "*.", 1)
                elif isinstance(value, str):
                    value = names.setdefault(value, f"%{len(names)}")
                values[parameter.name] = value
            lines.append(f"{step.kind} {part.op.type} {values}")
    order = [names.get(name, name) for name in (*layer.takes, "→", *layer.gives)]
    return "\n".join((*lines, " ".join(order)))


def _linear(shape: tuple[int, ...], bias: bool, values: Mapping[str, Any]) -> nn.Module:
    return nn.Linear(shape[1], shape[0], bias=bias)


_HOLDERS: Mapping[str, Callable[..., nn.Module]] = {
    "Embedding": lambda shape, bias, values: nn.Embedding(*shape),
    "Linear": _linear,
    "LayerNorm": lambda shape, bias, values: nn.LayerNorm(shape[0], eps=values["eps"], bias=bias),
    "MoE": None,
    "RMSNorm": lambda shape, bias, values: parts.RMSNorm(shape[0], values["eps"]),
}


def _attention(step: Step) -> nn.Module:
    values, inputs = step.first.op.values, step.first.inputs
    (_, heads, width), kv_heads = inputs["q"], inputs["curk"][1]
    layer = int(values["k"].removeprefix(CACHES[0]))
    return parts.Attention(heads, kv_heads, width, layer, values["scale"], values["unitLen"])


def _gated(step: Step) -> nn.Module:
    act = next((part.op.type for part in step.parts if part.op.type in parts.ACTIVATIONS), "Silu")
    return parts.Gated(parts.ACTIVATIONS[act])


_MAKERS: Mapping[str, Callable[[Step], nn.Module]] = {
    "FusedAttention": _attention,
    "Gated": _gated,
    "Lookup": lambda step: RotaryEmbedding(2 * int(step.module.rpartition(".")[2])),
}


def _cast(part: Sized) -> Callable:
    if part.op.values["input1"] == "atype":
        dtype = torch.get_default_dtype()
        return lambda x: x.to(dtype)
    return lambda x, like: x.to(like.dtype)


def _heads(part: Sized) -> Callable:
    width = part.op.values["headDim"]

    def expand(x):
        if x.shape[-1] % width:
            raise ModelError(
                f"{part.op}: {x.shape[-1]} local elements are no whole heads of {width}; use a smaller --tp"
            )
        return x.unflatten(-1, (-1, width))

    return expand


def _split(part: Sized) -> Callable:
    """A rank that holds a part of the axis takes its part of the range."""
    v, shape = part.op.values, part.inputs["input"]
    axis = v["axis"] % len(shape)
    whole = shape[axis]

    def split(x):
        share, left = divmod(whole, x.shape[axis])
        if left or v["start"] % share or v["end"] % share:
            raise ModelError(
                f"{part.op}: a rank has {x.shape[axis]} of {whole} elements, which cannot be split at "
                f"{v['start']} and {v['end']}; use another --tp, or one weight for each part"
            )
        return x.narrow(axis, v["start"] // share, (v["end"] - v["start"]) // share)

    return split


def _repeat(part: Sized) -> Callable:
    v, rank = part.op.values, len(part.inputs["input"])
    times = [v["repeatTimes"] if i == v["axis"] % rank else 1 for i in range(rank)]
    return lambda x: x.repeat(times)


def _last_tokens(x, lengths):
    """Rows of the last token of every sequence."""
    if len({*lengths.seq_lens}) == 1:
        return x.unflatten(0, (lengths.num_seqs, -1))[:, -1]
    return x[torch.empty(lengths.num_seqs, dtype=torch.long)]


def _turn(part: Sized) -> Callable:
    def rotate(*tensors):
        *heads, cos, sin = tensors
        q, k = heads if len(heads) == 2 else (heads[0], heads[0][..., :0, :])
        return turn(q, k, cos, sin)[: len(heads)]

    return rotate


_FUNCTIONS: Mapping[str, Callable[[Sized], Callable]] = {
    "Add": lambda part: lambda x: x + part.op.values["v"],
    "AddTo": lambda part: lambda x, y: torch.add(x, y, alpha=part.op.values["alpha"]),
    "Cat": lambda part: lambda x, y: torch.cat((x, y), dim=part.op.values["axis"]),
    "DataTypeAs": _cast,
    "ExpandHead": _heads,
    "Gelu": lambda part: lambda x: call.activation(x, parts.ACTIVATIONS["Gelu"]),
    "Mul": lambda part: lambda x: x * part.op.values["v"],
    "MulTo": lambda part: lambda x, y: x * y,
    "Repeat": _repeat,
    "Rotate": _turn,
    "Silu": lambda part: lambda x: call.activation(x, parts.ACTIVATIONS["Silu"]),
    "Split": _split,
    "SplitLastTokenStates": lambda part: _last_tokens,
    "Swiglu": lambda part: lambda x: call.swiglu(*x.chunk(2, dim=-1)),
}
