"""The operators of a ComputeGraph: their parameters, and which of them are read, written or named weights.

A parameter is one of

    in      data that is read            weight   the name of a parameter of the model
    out     data that is written         bias     as weight; absent where no such weight is known
    io      data that is changed         cache    the keys or values of one layer
    int     a whole number               float    a number
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tensorcast.errors import CustomModelError

_SIGNATURES = """
Add(in input, float v, out output)
AddTo(io input0, in input1, float alpha=1.0)
Cat(in input0, in input1, int axis, out output)
DataTypeAs(io input, in input1)
Embedding(in input, weight weight, out output)
Exit()
ExpandHead(io input, int headDim)
FusedAttention(in q, cache k, cache v, in curk, in curv, in original, in mask, out output, in seqLens, float scale,\
 int maskType=0, int unitLen=128)
Gelu(in input, out output)
LayerNorm(in input, weight weight, bias bias, float eps, out output)
Linear(in input, weight weight, bias bias, out output)
LlamaRotatePosition2D(io input, in positionIds, in sin, in cos, int rotaryDim)
MoE(in input, weight gate, weight gateUp, weight down, int topK, out output)
Mul(in input, float v, out output)
MulTo(io input0, in input1)
Print(in input)
RMSNorm(in input, weight weight, float eps, out output)
Repeat(in input, int axis, int repeatTimes, out output)
Silu(in input, out output)
Split(in input, int axis, int start, int end, out output)
SplitLastTokenStates(in input, in seqLens, out output)
Swiglu(in input, out output)
"""
OTHER_NAMES = {"ExpandHeads": "ExpandHead"}
"""Names that written graphs use for an operator."""
SILENT = ("Print", "Exit")
"""Operators for debugging: nothing runs."""

_READ, _WRITTEN, _NAMED = ("in", "io", "cache"), ("out", "io"), ("weight", "bias")


@dataclass(frozen=True)
class Parameter:
    kind: str
    name: str
    default: float | None = None

    @property
    def is_number(self) -> bool:
        return self.kind in ("int", "float")


@dataclass(frozen=True)
class Signature:
    """One operator as it is called."""

    name: str
    parameters: tuple[Parameter, ...]

    def __str__(self) -> str:
        shown = (p.name if p.default is None else f"{p.name}={p.default:g}" for p in self.parameters)
        return f"{self.name}({', '.join(shown)})"

    def bind(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name, defaults filled in; CustomModelError when they do not fit."""
        names = [p.name for p in self.parameters]
        unknown = [name for name in kwargs if name not in names]
        given = dict(zip(names, args, strict=False))
        twice = [name for name in kwargs if name in given]
        if len(args) > len(names):
            raise CustomModelError(f"{self.name} takes {len(names)} arguments, {len(args)} are given: {self}")
        if unknown or twice:
            what = f"has no argument {unknown[0]!r}" if unknown else f"is given {twice[0]!r} twice"
            raise CustomModelError(f"{self.name} {what}: {self}")
        given |= kwargs
        missing = [p.name for p in self.parameters if p.name not in given and p.default is None]
        if missing:
            raise CustomModelError(f"{self.name} lacks {', '.join(missing)}: {self}")
        return {p.name: given.get(p.name, p.default) for p in self.parameters}


@dataclass(frozen=True)
class Op:
    """One recorded operator: `values` are names of data and weights, and numbers. `where`: the line that called it."""

    index: int
    signature: Signature
    values: Mapping[str, Any]
    where: str = ""

    @property
    def type(self) -> str:
        return self.signature.name

    def __str__(self) -> str:
        return f"operator {self.index} ({self.type})"

    def fault(self, text: str) -> CustomModelError:
        """An error about this operator."""
        return CustomModelError(f"{self.where}: {self}: {text}" if self.where else f"{self}: {text}")

    def _of(self, kinds: tuple[str, ...]) -> Iterator[str]:
        return (self.values[p.name] for p in self.signature.parameters if p.kind in kinds)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self._of(_READ))

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(self._of(_WRITTEN))

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of all weights, biases included."""
        return tuple(self._of(_NAMED))

    @property
    def biases(self) -> tuple[str, ...]:
        return tuple(self._of(("bias",)))


def _parsed(line: str) -> Signature:
    name, inside = line.removesuffix(")").split("(", 1)
    found = re.findall(r"(\w+) (\w+)(?:=([\d.]+))?", inside)
    numbers = {"int": int, "float": float}
    return Signature(
        name, tuple(Parameter(kind, n, numbers[kind](default) if default else None) for kind, n, default in found)
    )


OPERATORS: Mapping[str, Signature] = {s.name: s for s in map(_parsed, _SIGNATURES.strip().split("\n"))}
