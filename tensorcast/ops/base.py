"""The operator object: schema, meta result and work in one place.

An operator is declared as a class body and becomes one frozen `Operator`:

    @operator("swiglu(Tensor gate, Tensor up) -> Tensor", family="activation")
    class Swiglu:
        '''silu(gate) * up.'''
        def meta(gate, up): return gate.new_empty(gate.shape)
        def dims(gate, up): return {"elements": gate.numel()}
        def work(d, a): return Work(vector_flops=6 * d["elements"], read_bytes=…, write_bytes=…)

* `meta` gets the arguments (meta tensors) and returns empty results; it only calls methods of its arguments.
* `dims` names the sizes the work depends on. They must be polynomials of batch, new tokens and context: what clamps
  (a window, top-k, tiles) belongs into `work`, as an attribute.
* Arguments that are not tensors become attributes under their own names, unless `dims` names them as sizes; `dims` may
  add more under `"attrs"`.
* `work` is NumPy code on arrays of any one shape: one element per configuration.
* A kernel that does what several operators do has the family "composed" and `parts(d, a) -> Parts` in place of `work`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any

import numpy as np

from tensorcast.catalog import Catalog

Number = Any  # int, float or a NumPy array with one element per configuration
SCRATCH = "workspace_bytes"


@dataclass(frozen=True)
class Work:
    """What one call of an operator asks of a machine, whatever the machine.

    A multiply-add is two FLOP. Bytes are those that must cross the memory interface when operands are cold.
    """

    matrix_flops: Number = 0  # FLOP on the matrix engine (tensor cores, cube)
    vector_flops: Number = 0  # FLOP on the vector units
    read_bytes: Number = 0  # bytes read from device memory
    write_bytes: Number = 0  # bytes written to device memory
    comm_bytes: Number = 0  # bytes this device sends over its links
    workspace_bytes: Number = 0  # scratch memory alive during the call only

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Part:
    """`count` calls of another operator inside a composed one."""

    op: str
    dims: Mapping[str, Number]
    attrs: Mapping[str, Any]
    count: Number = 1

    def work(self) -> Work:
        """Work of all the calls; their scratch memory is used one after another."""
        from tensorcast.ops import operator_named

        one = operator_named(self.op).work(self.dims, self.attrs)
        return Work(*(getattr(one, f.name) * (1 if f.name == SCRATCH else self.count) for f in fields(one)))


@dataclass(frozen=True)
class Parts:
    """What a composed operator is made of.

    `device`: calls that follow each other. `links`: collectives that run beside them, in `pieces` equal pieces: all
    but one piece of the shorter side is hidden behind the longer one. Without links every call is a launch of its own.
    """

    device: tuple[Part, ...]
    links: tuple[Part, ...] = ()
    pieces: Number = 1

    def work(self) -> Work:
        """The sum of all parts, of whose scratch memory the largest counts."""
        works = [part.work() for part in (*self.device, *self.links)]
        total = sum(works[1:], works[0])
        return replace(total, workspace_bytes=reduce(np.maximum, (w.workspace_bytes for w in works)))


PIECE, MOST_PIECES = 128, 4  # rows that a piece has at least, and how many pieces a kernel cuts its rows into at most


def pieces(rows: Number) -> Number:
    """Pieces of `rows` rows that a kernel which sends while it computes works in. An assumption, no measurement."""
    return np.clip(np.floor(np.asarray(rows) / PIECE), 1, MOST_PIECES)


@dataclass(frozen=True)
class Operator:
    """One operator. See the module docstring for the meaning of the functions."""

    name: str
    schema: str
    family: str  # the cost family that turns the work into seconds; "none" = costs nothing (views, allocation)
    meta: Callable[..., Any] | None
    dims: Callable[..., dict[str, Any]]
    work: Callable[[Mapping[str, Number], Mapping[str, Any]], Work]
    summary: str = ""
    arguments: tuple[str, ...] = ()
    parts: Callable[[Mapping[str, Number], Mapping[str, Any]], Parts] | None = None  # of a composed operator

    def describe(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
        """Sizes and attributes of one call.

        A plain argument that `dims` does not give back is an attribute, and those are the same for any amount of work.
        One that grows with it, such as the tokens in a cache, must be a size even where no cost depends on it: as an
        attribute it makes every point another operator, and every decode step is traced anew.
        """
        named = dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        dims = self.dims(**named)
        attrs = {k: v for k, v in named.items() if isinstance(v, (bool, int, float, str)) and k not in dims}
        attrs.update(dims.pop("attrs", {}))
        return dims, attrs


@dataclass(frozen=True)
class OpCall:
    """One call of an operator that is not ours: what `dims` of such an operator gets.

    `args` and `kwargs` as torch passed them, `result` as it came back; `inputs` and `outputs`: all tensors among them.
    """

    args: tuple
    kwargs: Mapping[str, Any]
    result: Any
    inputs: tuple
    outputs: tuple

    @property
    def read_bytes(self) -> int:
        """Bytes of all input tensors, each read once."""
        return _bytes_of(self.inputs)

    @property
    def write_bytes(self) -> int:
        """Bytes of all results."""
        return _bytes_of(self.outputs)


OPERATORS: Catalog[Operator] = Catalog("operator", how="list them with `tensorcast list ops`")


def operator(schema: str, *, family: str, replace: bool = False) -> Callable[[type], Operator]:
    """Turn a class body into a registered `Operator`; `schema` is torch's schema syntax without the namespace."""
    name = schema.split("(", 1)[0]
    arguments = tuple(re.findall(r"(\w+)(?:=[^,)]*)?(?=[,)])", schema.split("->", 1)[0].split("(", 1)[1]))

    def build(body: type) -> Operator:
        parts = getattr(body, "parts", None)
        op = Operator(
            name=name,
            schema=schema,
            family=family,
            meta=body.meta,
            dims=body.dims,
            work=body.work if parts is None else lambda d, a: parts(d, a).work(),
            summary=(body.__doc__ or "").strip().split("\n")[0],
            arguments=arguments,
            parts=parts,
        )
        return OPERATORS.register(name, op, replace=replace)

    return build


def _bytes_of(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def dtype_name(tensor: Any) -> str:
    """Our format name of a tensor's dtype: bf16, fp16, fp32, int8, int64, bool …"""
    return _DTYPES.get(str(tensor.dtype), str(tensor.dtype).removeprefix("torch."))


_DTYPES = {
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
    "torch.float32": "fp32",
    "torch.float64": "fp64",
    "torch.float8_e4m3fn": "fp8",
    "torch.float8_e5m2": "fp8_e5m2",
}

# Index and mask types, which are no number formats of a matrix engine and so not in formats.py.
_PLAIN_BYTES = {"int64": 8, "int32": 4, "int16": 2, "uint8": 1, "bool": 1, "fp64": 8, "complex64": 8, "complex128": 16}


def item_bytes(name: str) -> float:
    """Bytes of one element stored in format `name`, without scales."""
    if name in _PLAIN_BYTES:
        return _PLAIN_BYTES[name]
    from tensorcast.formats import format_named

    return format_named(name).bits / 8
