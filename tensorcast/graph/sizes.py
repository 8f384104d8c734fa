"""Shapes of a graph's data, worked out operator by operator before anything is built.

A dimension is a number, or "T" (new tokens of all sequences) or "B" (sequences). Inputs that are no tensors have the
shape of their own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorcast.graph.operators import SILENT, Op
from tensorcast.graph.recording import CACHES, INPUTS
from tensorcast.graph.weights import Weights

Shape = tuple
TOKENS, SEQUENCES = "T", "B"
_INPUTS: Mapping[str, Shape] = {name: (name,) for name in INPUTS} | {"inputIds": (TOKENS,), "positionIds": (TOKENS,)}


@dataclass(frozen=True)
class Sized:
    """An operator with the shapes of what it reads, under its parameters' names, and of what it writes."""

    op: Op
    inputs: Mapping[str, Shape]
    result: Shape | None


def sized(ops: Sequence[Op], weights: Weights) -> list[Sized]:
    """Every operator with its shapes; CustomModelError names the first that does not fit."""
    known: dict[str, Shape] = dict(_INPUTS)
    done: list[Sized] = []
    caches: dict[str, Op] = {}
    for op in ops:
        if op.type == "FusedAttention" and caches.setdefault(op.values["k"], op) is not op:
            raise op.fault(f"{op.values['k']!r} is the cache of {caches[op.values['k']]} already; each has its own")
        inputs = {p.name: _known(known, op.values[p.name]) for p in op.signature.parameters if p.kind in ("in", "io")}
        result = None if op.type in SILENT else _RULES[op.type](_Call(op, inputs, weights))
        known.update(dict.fromkeys(op.writes, result))
        done.append(Sized(op, inputs, result))
    return done


def shown(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _known(known: Mapping[str, Shape], name: str) -> Shape:
    return (name,) if name.startswith(CACHES) and name not in known else known[name]


@dataclass(frozen=True)
class _Call:
    op: Op
    inputs: Mapping[str, Shape]
    weights: Weights

    def tensor(self, name: str, rank: int = 1) -> Shape:
        """The shape of the argument `name`, a tensor of at least `rank` dimensions."""
        shape, given = self.inputs[name], self.op.values[name]
        if shape and isinstance(shape[0], str) and shape[0] not in (TOKENS, SEQUENCES):
            raise self.op.fault(f"{name} is {given!r}, which is no tensor")
        if len(shape) < rank:
            raise self.op.fault(f"{name} {given!r} has shape {shown(shape)}; {rank} dimensions are needed")
        return shape

    def expect(self, name: str, wanted: str) -> None:
        """The argument `name` must be the input `wanted`."""
        if self.op.values[name] != wanted:
            raise self.op.fault(f"{name} is {self.op.values[name]!r}; it must be data[{wanted!r}]")

    def weight(self, name: str, rank: int) -> tuple[int, ...]:
        text = self.op.values[name]
        shape = self.weights.shapes.get(text) or self.weights.shapes[self.weights.ties[text]]
        if len(shape) != rank:
            raise self.op.fault(f"weight {text} has shape {shown(shape)}; {rank} dimensions are needed")
        return shape

    def fits(self, name: str, weight: str, inputs: int) -> Shape:
        """The tensor `name`, whose last dimension must be the `inputs` of a weight."""
        shape, text = self.tensor(name), self.op.values[weight]
        if shape[-1] != inputs:
            what = f"input {self.op.values[name]!r} has shape {shown(shape)}, weight {text} has shape"
            size = self.weights.shapes.get(text) or self.weights.shapes[self.weights.ties[text]]
            raise self.op.fault(f"{what} {shown(size)}: it takes {inputs} inputs, not {shape[-1]}")
        return shape

    def axis(self, rank: int) -> int:
        axis = self.op.values["axis"]
        if not -rank <= axis < rank:
            raise self.op.fault(f"axis {axis} of {rank} dimensions")
        return axis % rank


def _embedding(c: _Call) -> Shape:
    _, width = c.weight("weight", 2)
    ids = c.tensor("input")
    if c.op.values["input"] not in ("inputIds", "positionIds"):
        raise c.op.fault(f"input {c.op.values['input']!r} has shape {shown(ids)}; token ids or positions are needed")
    return (*ids, width)


def _linear(c: _Call) -> Shape:
    out, inputs = c.weight("weight", 2)
    shape, bias = c.fits("input", "weight", inputs), c.weights.shapes.get(c.op.values["bias"])
    if bias is not None and bias != (out,):
        raise c.op.fault(f"bias {c.op.values['bias']} has shape {shown(bias)}, its weight has {out} outputs")
    return (*shape[:-1], out)


def _norm(c: _Call) -> Shape:
    (width,) = c.weight("weight", 1)
    bias = c.weights.shapes.get(c.op.values.get("bias"))
    if bias is not None and bias != (width,):
        raise c.op.fault(f"bias {c.op.values['bias']} has shape {shown(bias)}, its weight [{width}]")
    if c.op.values.get("eps", 0) < 0:
        raise c.op.fault(f"eps is {c.op.values['eps']}; it must not be negative")
    return c.fits("input", "weight", width)


def _heads(c: _Call) -> Shape:
    shape, width = c.tensor("input"), c.op.values["headDim"]
    if width < 1 or not isinstance(shape[-1], int) or shape[-1] % width:
        raise c.op.fault(f"input {c.op.values['input']!r} has shape {shown(shape)}, not a multiple of headDim {width}")
    return (*shape[:-1], shape[-1] // width, width)


def _rotate(c: _Call) -> Shape:
    shape, pairs = c.tensor("input", 3), c.op.values["rotaryDim"]
    for name in ("positionIds", "sin", "cos"):
        c.expect(name, name)
    if pairs < 1 or shape[-1] % 2:
        raise c.op.fault(f"rotaryDim {pairs} of heads with {shape[-1]} elements; an even number turns, in pairs")
    return shape


def _attention(c: _Call) -> Shape:
    v, (q, k, w) = c.op.values, (c.tensor(name, 3) for name in ("q", "curk", "curv"))
    c.expect("mask", "attentionMask")
    c.expect("seqLens", "seqLens")
    caches = [v["k"].removeprefix(CACHES[0]), v["v"].removeprefix(CACHES[1])]
    if caches[0] != caches[1]:
        raise c.op.fault(f"k is {v['k']!r} and v is {v['v']!r}; one layer's keys and values belong together")
    if v["maskType"] != 0:
        raise c.op.fault(f"maskType {v['maskType']} is not modelled; 0 is, a query sees the keys up to its own")
    if v["unitLen"] < 1 or v["scale"] <= 0:
        raise c.op.fault(f"unitLen {v['unitLen']}, scale {v['scale']}; both must be positive")
    sizes = f"q {shown(q)}, curk {shown(k)}, curv {shown(w)}"
    if not len(q) == len(k) == len(w) == 3 or q[0] != k[0] or k[:2] != w[:2] or q[-1] != k[-1] or q[1] % k[1]:
        raise c.op.fault(f"{sizes}: [tokens, heads, size] is needed, and a multiple of the KV heads")
    if c.tensor("original")[0] != q[0]:
        raise c.op.fault(f"original has shape {shown(c.inputs['original'])}, not the rows of q {shown(q)}")
    return (q[0], q[1] * w[2])


def _last_tokens(c: _Call) -> Shape:
    c.expect("seqLens", "seqLens")
    shape = c.tensor("input", 2)
    if shape[0] != TOKENS:
        raise c.op.fault(f"input {c.op.values['input']!r} has shape {shown(shape)}, not one row for every token")
    return (SEQUENCES, *shape[1:])


def _same(c: _Call) -> Shape:
    return c.tensor("input")


def _cast(c: _Call) -> Shape:
    if c.op.values["input1"] != "atype":
        c.tensor("input1")
    return c.tensor("input")


def _pair(c: _Call) -> Shape:
    first, second = c.tensor("input0"), c.tensor("input1")
    padded = (1,) * (len(first) - len(second)) + second
    if len(padded) != len(first) or any(b not in (a, 1) for a, b in zip(first, padded, strict=False)):
        raise c.op.fault(f"input0 has shape {shown(first)}, input1 {shown(second)}; they must be the same, or 1")
    return first


def _half(c: _Call) -> Shape:
    shape = c.tensor("input")
    if not isinstance(shape[-1], int) or shape[-1] % 2:
        raise c.op.fault(f"input {c.op.values['input']!r} has shape {shown(shape)}; gate and up are one half each")
    return (*shape[:-1], shape[-1] // 2)


def _cat(c: _Call) -> Shape:
    first, second = c.tensor("input0"), c.tensor("input1")
    axis = c.axis(len(first))
    others = [first[:axis] + first[axis + 1 :], second[:axis] + second[axis + 1 :]]
    if len(first) != len(second) or others[0] != others[1]:
        raise c.op.fault(f"input0 has shape {shown(first)}, input1 {shown(second)}; only axis {axis} may differ")
    _number(c, first, axis)
    return (*first[:axis], first[axis] + _number(c, second, axis), *first[axis + 1 :])


def _split(c: _Call) -> Shape:
    shape, start, end = c.tensor("input"), c.op.values["start"], c.op.values["end"]
    axis = c.axis(len(shape))
    if not 0 <= start < end <= _number(c, shape, axis):
        raise c.op.fault(f"start {start}, end {end} of {shape[axis]} elements")
    return (*shape[:axis], end - start, *shape[axis + 1 :])


def _repeat(c: _Call) -> Shape:
    shape, times = c.tensor("input"), c.op.values["repeatTimes"]
    axis = c.axis(len(shape))
    if times < 1:
        raise c.op.fault(f"repeatTimes {times}; it must be at least 1")
    return (*shape[:axis], _number(c, shape, axis) * times, *shape[axis + 1 :])


def _number(c: _Call, shape: Shape, axis: int) -> int:
    if not isinstance(shape[axis], int):
        raise c.op.fault(f"axis {axis} of shape {shown(shape)} is tokens or sequences; only sizes of the model change")
    return shape[axis]


def _experts(c: _Call) -> Shape:
    experts, hidden = c.weight("gate", 2)
    w13, w2 = c.weight("gateUp", 3), c.weight("down", 3)
    if not (w13[0] == w2[0] == experts and w13[2] == w2[1] == hidden and w13[1] == 2 * w2[2]):
        names = ", ".join(f"{n} {shown(c.weights.shapes[c.op.values[n]])}" for n in ("gate", "gateUp", "down"))
        raise c.op.fault(f"{names}: [experts, h], [experts, 2·i, h] and [experts, h, i] are needed")
    if not 1 <= c.op.values["topK"] <= experts:
        raise c.op.fault(f"topK {c.op.values['topK']} of {experts} experts")
    return c.fits("input", "gate", hidden)


_RULES: Mapping[str, Callable[[_Call], Shape]] = {
    **dict.fromkeys(("Add", "Mul", "Silu", "Gelu"), _same),
    **dict.fromkeys(("AddTo", "MulTo"), _pair),
    **dict.fromkeys(("RMSNorm", "LayerNorm"), _norm),
    "Cat": _cat,
    "DataTypeAs": _cast,
    "Embedding": _embedding,
    "ExpandHead": _heads,
    "FusedAttention": _attention,
    "Linear": _linear,
    "LlamaRotatePosition2D": _rotate,
    "MoE": _experts,
    "Repeat": _repeat,
    "Split": _split,
    "SplitLastTokenStates": _last_tokens,
    "Swiglu": _half,
}
