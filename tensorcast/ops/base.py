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
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tensorcast.catalog import Catalog

Number = Any  # int, float or a NumPy array with one element per configuration


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
class Operator:
    """One operator. See the module docstring for the meaning of the three functions."""

    name: str
    schema: str
    family: str  # the cost family that turns the work into seconds; "none" = costs nothing (views, allocation)
    meta: Callable[..., Any] | None
    dims: Callable[..., dict[str, Any]]
    work: Callable[[Mapping[str, Number], Mapping[str, Any]], Work]
    summary: str = ""
    arguments: tuple[str, ...] = ()

    def describe(self, args: tuple, kwargs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
        """Sizes and attributes of one call."""
        named = dict(zip(self.arguments, args, strict=False)) | dict(kwargs)
        dims = self.dims(**named)
        attrs = {k: v for k, v in named.items() if isinstance(v, (bool, int, float, str)) and k not in dims}
        attrs.update(dims.pop("attrs", {}))
        return dims, attrs


OPERATORS: Catalog[Operator] = Catalog("operator")


def operator(schema: str, *, family: str, replace: bool = False) -> Callable[[type], Operator]:
    """Turn a class body into a registered `Operator`; `schema` is torch's schema syntax without the namespace."""
    name = schema.split("(", 1)[0]
    arguments = tuple(re.findall(r"(\w+)(?:=[^,)]*)?(?=[,)])", schema.split("->", 1)[0].split("(", 1)[1]))

    def build(body: type) -> Operator:
        op = Operator(
            name=name,
            schema=schema,
            family=family,
            meta=body.meta,
            dims=body.dims,
            work=body.work,
            summary=(body.__doc__ or "").strip().split("\n")[0],
            arguments=arguments,
        )
        return OPERATORS.register(name, op, replace=replace)

    return build


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
_PLAIN_BYTES = {"int64": 8, "int32": 4, "int16": 2, "uint8": 1, "bool": 1, "fp64": 8, "complex64": 8}


def item_bytes(name: str) -> float:
    """Bytes of one element stored in format `name`, without scales."""
    if name in _PLAIN_BYTES:
        return _PLAIN_BYTES[name]
    from tensorcast.formats import format_named

    return format_named(name).bits / 8
