"""How a graph becomes a program: which operators make one layer, which of them run as one, and what lives how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tensorcast.graph.operators import SILENT
from tensorcast.graph.sizes import Sized

Place = tuple[str, int] | None
"""(path of a list of layers, index in it), or None outside of any."""
GATE, UP, DOWN, GATE_UP = "gate_proj", "up_proj", "down_proj", "gate_up_proj"
_CARRIES = ("RMSNorm", "LayerNorm", "Split", "Repeat", "Cat", "Mul", "Add")
"""Operators whose result is still made by the product before them, as far as heads go."""


@dataclass(frozen=True)
class Step:
    """What runs as one. `kind`: the operator's name; Rotate (one or two of them), Gated or Lookup for several."""

    kind: str
    parts: tuple[Sized, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    place: Place = None
    module: str = ""  # path of the module that runs it
    frees: tuple[str, ...] = ()  # data that nobody reads after it

    @property
    def first(self) -> Sized:
        return self.parts[0]


@dataclass(frozen=True)
class Layer:
    """The steps of one layer of a stack, with the data it takes from outside and hands on."""

    stack: str
    index: int
    steps: tuple[Step, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    frees: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"{self.stack}.{self.index}"


@dataclass(frozen=True)
class Layout:
    """The program of a graph: steps and layers in order, the name of the result, the stacks of layers."""

    program: tuple[Step | Layer, ...]
    result: str
    stacks: Mapping[str, int] = field(default_factory=dict)


def laid_out(ops: Sequence[Sized]) -> Layout:
    """The program of a graph whose operators have shapes."""
    ops = [sized for sized in ops if sized.op.type not in SILENT]
    result = "logits" if any("logits" in s.op.writes for s in ops) else ops[-1].op.writes[-1]
    places = _places(ops)
    steps = _attended(_rotated(_gated(ops, places, result)))
    steps = [*_lookups(steps), *steps]
    live, after = {result}, []
    for step in reversed(steps):
        after.append(frozenset(live))
        live = (live - {*step.writes}) | {*step.reads}
    freed = [
        replace(step, frees=tuple(sorted({*step.reads, *step.writes} - left)))
        for step, left in zip(steps, reversed(after), strict=True)
    ]
    program = _layers(freed, list(reversed(after)))
    stacks = {layer.stack: layer.index + 1 for layer in program if isinstance(layer, Layer)}
    return Layout(tuple(program), result, stacks)


def module_of(weight: str) -> str:
    """Path of the module that holds a weight."""
    return weight.rpartition(".")[0]


def place_of(weight: str) -> Place:
    """The layer that a weight's name says: `model.layers.3.mlp.up_proj.weight` → ("model.layers", 3).

    A number right before the parameter's own name is that of a product in a list, not of a layer.
    """
    parts = weight.split(".")
    at = next((i for i, part in enumerate(parts[:-2]) if part.isdecimal() and i), None)
    return (".".join(parts[:at]), int(parts[at])) if at is not None else None


def _places(ops: Sequence[Sized]) -> list[Place]:
    """The layer of every operator; those that name no weight go with the one before them.

    A stack counts only if its layers come in order, each in one piece; the operators of any other stay outside.
    """
    places: list[Place] = []
    for sized in ops:
        named = [place_of(name) for name in sized.op.weights]
        places.append(named[0] if named else (places[-1] if places else None))
    runs = [place for i, place in enumerate(places) if place is not None and (i == 0 or places[i - 1] != place)]
    stacks: dict[str, list[int]] = {}
    for stack, index in runs:
        stacks.setdefault(stack, []).append(index)
    whole = {stack for stack, found in stacks.items() if found == list(range(len(found)))}
    return [place if place is not None and place[0] in whole else None for place in places]


def _gated(ops: Sequence[Sized], places: Sequence[Place], result: str) -> list[Step]:
    """Steps of the operators, gated feed-forwards as one each."""
    steps, i = [], 0
    while i < len(ops):
        count = _gated_length(ops[i : i + 5], places[i : i + 5])
        parts = tuple(ops[i : i + count])
        if count > 1 and not _read_later(parts, ops[i + count :], result):
            path = module_of(module_of(parts[0].op.values["weight"]))
            reads, writes = (parts[0].op.values["input"],), (parts[-1].op.values["output"],)
            steps.append(Step("Gated", parts, reads, writes, places[i], path))
        else:
            count, op = 1, ops[i].op
            module = module_of(op.weights[0]) if op.weights else ""
            module = module_of(module) if op.type == "MoE" else module
            reads = tuple(name for name in op.reads if name != "atype")
            steps.append(Step(op.type, parts[:1], reads, op.writes, places[i], module))
        i += count
    return steps


def _gated_length(ops: Sequence[Sized], places: Sequence[Place]) -> int:
    """How many operators from here are act(gate(x)) · up(x) behind a down product: 5, 3 with one product, else 1."""
    v = [s.op.values for s in ops]
    types = [s.op.type for s in ops]
    leaves = [module_of(x["weight"]).rpartition(".")[2] if "weight" in x else "" for x in v]
    parents = {module_of(module_of(x["weight"])) for x in v if "weight" in x}
    if types[:3] == ["Linear", "Swiglu", "Linear"] and len({module_of(module_of(v[i]["weight"])) for i in (0, 2)}) == 1:
        chained = v[1]["input"] == v[0]["output"] and v[2]["input"] == v[1]["output"]
        if chained and (leaves[0], leaves[2]) == (GATE_UP, DOWN) and _inside(v[0]["weight"], places[:3]):
            return 3
    shape = types[:2] == ["Linear"] * 2 and types[2:3] in (["Silu"], ["Gelu"]) and types[3:] == ["MulTo", "Linear"]
    if not shape or len(parents) != 1 or {leaves[0], leaves[1]} != {GATE, UP} or leaves[4] != DOWN:
        return 1
    gate, up = (v[0], v[1]) if leaves[0] == GATE else (v[1], v[0])
    act, product = v[2], v[3]
    same = gate["input"] == up["input"] and gate["output"] != up["output"] and gate["input"] != v[0]["output"]
    chained = act["input"] == gate["output"] and {product["input0"], product["input1"]} == {act["output"], up["output"]}
    whole = same and chained and v[4]["input"] == product["input0"] and _inside(gate["weight"], places)
    return 5 if whole else 1


def _inside(weight: str, places: Sequence[Place]) -> bool:
    """Whether the module around the weight's is one of its own, not a whole layer or model."""
    path, place = module_of(module_of(weight)), places[0]
    return bool(path) and len(set(places)) == 1 and (place is None or path != f"{place[0]}.{place[1]}")


def _read_later(parts: Sequence[Sized], rest: Sequence[Sized], result: str) -> bool:
    """Whether anything inside of `parts` but the last result is read behind them."""
    inner = {name for s in parts[:-1] for name in s.op.writes} - {*parts[-1].op.writes}
    for sized in rest:
        if inner & {*sized.op.reads}:
            return True
        inner -= {*sized.op.writes}
    return result in inner


def _rotated(steps: Sequence[Step]) -> list[Step]:
    """Rotating is one step for queries and keys where one follows the other."""
    out: list[Step] = []
    for step in steps:
        if step.kind != "LlamaRotatePosition2D":
            out.append(step)
            continue
        name, pairs, last = step.first.op.values["input"], _pairs(step.first), out[-1] if out else None
        joins = (
            last is not None
            and last.kind == "Rotate"
            and len(last.parts) == 1
            and last.writes != (name,)
            and (_pairs(last.first), last.place) == (pairs, step.place)
        )
        parts = (*out.pop().parts, step.first) if joins else (step.first,)
        names = tuple(part.op.values["input"] for part in parts)
        out.append(Step("Rotate", parts, (*names, f"cos.{pairs}", f"sin.{pairs}"), names, step.place))
    return out


def _pairs(rotation: Sized) -> int:
    """Pairs of elements of a head that turn."""
    return min(rotation.op.values["rotaryDim"], rotation.inputs["input"][-1] // 2)


def _lookups(steps: Sequence[Step]) -> list[Step]:
    """One lookup for every width of the tables of cos and sin."""
    widths = {int(step.reads[-1].removeprefix("sin.")): step.first for step in steps if step.kind == "Rotate"}
    return [
        Step("Lookup", (part,), ("positionIds",), (f"cos.{pairs}", f"sin.{pairs}"), None, f"rotary_emb.{pairs}")
        for pairs, part in widths.items()
    ]


def _attended(steps: Sequence[Step]) -> list[Step]:
    """Attention runs in the module around the product that made its queries; else in one of its own."""
    made: dict[str, str] = {}
    taken = {step.module for step in steps if step.kind == "Gated"}
    out = []
    for step in steps:
        op = step.first.op
        if step.kind == "FusedAttention":
            path = module_of(made.get(op.values["q"], ""))
            layer = f"{step.place[0]}.{step.place[1]}" if step.place else ""
            if not path or path == layer or path in taken or not path.startswith(layer):
                path = _free(f"{layer}.attention" if layer else "attention", taken)
            taken.add(path)
            step = replace(step, module=path, reads=tuple(op.values[n] for n in ("q", "curk", "curv", "seqLens")))
        elif step.kind == "Linear":
            made[op.values["output"]] = step.module
        elif step.kind in _CARRIES:
            source = made.get(op.values.get("input", op.values.get("input0")), "")
            made[op.values["output"]] = source
        elif step.kind not in ("ExpandHead", "Rotate", "DataTypeAs"):
            made.update(dict.fromkeys(step.writes, ""))
        out.append(step)
    return out


def _free(path: str, taken: set[str]) -> str:
    names = (path, *(f"{path}_{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if name not in taken)


def _layers(steps: Sequence[Step], after: Sequence[frozenset[str]]) -> list[Step | Layer]:
    """Steps of one layer become a Layer; `after`: what is read behind each step."""
    program: list[Step | Layer] = []
    start = 0
    for i in range(1, len(steps) + 1):
        if i < len(steps) and steps[i].place == steps[start].place:
            continue
        run = tuple(steps[start:i])
        program += [_layer(run, after[i - 1])] if run[0].place is not None else run
        start = i
    return program


def _layer(steps: tuple[Step, ...], after: frozenset[str]) -> Layer:
    takes: dict[str, None] = {}
    written: dict[str, None] = {}
    for step in steps:
        takes.update(dict.fromkeys(name for name in step.reads if name not in written))
        written.update(dict.fromkeys(step.writes))
    stack, index = steps[0].place
    gives = tuple(name for name in written if name in after)
    return Layer(stack, index, steps, tuple(takes), gives, tuple(sorted({*takes} - after)))
