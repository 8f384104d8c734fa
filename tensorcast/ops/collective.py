"""Communication between ranks. `size` ranks, `stride` apart in the rank grid, take part.

`bytes` follow nccl-tests: the full buffer (the gathered result of all_gather, the input of the others).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcast.errors import InputError
from tensorcast.ops.base import Work, dtype_name, item_bytes, operator

# How often the buffer crosses the links, each time but for a rank's own share.
_PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1, "dispatch": 1, "combine": 1}


def wire_bytes(collective: str, nbytes: Any, size: Any) -> Any:
    """Bytes a device sends: (n-1)/n of the buffer, twice that for all_reduce, all of it for send_recv; 0 if alone."""
    size = np.asarray(size)
    if collective == "send_recv":
        return nbytes * np.where(size > 1, 1.0, 0.0)[()]
    if collective not in _PASSES:
        raise InputError(f"unknown collective {collective!r}; one of send_recv, {', '.join(_PASSES)}")
    return nbytes * (_PASSES[collective] * (size - 1) / size)[()]


def buffer_elements(d: Any, a: Any) -> Any:
    """Elements of the full buffer of a collective; rows that are dealt out to the ranks fill `size` equal parts."""
    return d["elements"] if "elements" in d else d["copies"] * d["width"] * a["size"] * np.ceil(d["rows"] / a["size"])


class Collective:
    """A collective whose result has the shape of its input; subclasses say which."""

    collective = ""

    def __init_subclass__(cls) -> None:
        name = cls.collective

        def dims(x, **_):
            return {"elements": x.numel(), "attrs": {"format": dtype_name(x), "collective": name}}

        def work(d, a):
            elements, sums = buffer_elements(d, a), name in ("all_reduce", "reduce_scatter")
            nbytes = elements * item_bytes(a["format"])
            return Work(vector_flops=elements * sums, comm_bytes=wire_bytes(name, nbytes, a["size"]))

        for function in (dims, work):
            if function.__name__ not in cls.__dict__:
                setattr(cls, function.__name__, staticmethod(function))

    def meta(x, *_):
        return x.new_empty(x.shape)


@operator("all_reduce(Tensor x, int size, int stride) -> Tensor", family="collective")
class AllReduce(Collective):
    """Sum over the ranks, result on all of them."""

    collective = "all_reduce"


@operator("all_gather(Tensor x, int dim, int size, int stride) -> Tensor", family="collective")
class AllGather(Collective):
    """Concatenate the ranks' pieces along `dim`, result on all of them."""

    collective = "all_gather"

    def meta(x, dim, size, stride):
        shape = list(x.shape)
        shape[dim] *= size
        return x.new_empty(shape)

    def dims(x, dim, size, stride):
        return {"elements": x.numel() * size, "attrs": {"format": dtype_name(x), "collective": "all_gather"}}


@operator("gather_slices(Tensor x, int size, int stride) -> Tensor", family="collective")
class GatherSlices(Collective):
    """all_gather of a tensor the ranks hold one slice of each: x has the shape of the whole."""

    collective = "all_gather"


@operator("reduce_scatter(Tensor x, int dim, int size, int stride) -> Tensor", family="collective")
class ReduceScatter(Collective):
    """Sum over the ranks, each keeps its piece along `dim`."""

    collective = "reduce_scatter"

    def meta(x, dim, size, stride):
        shape = list(x.shape)
        shape[dim] = -(-shape[dim] // size)
        return x.new_empty(shape)


@operator("all_to_all(Tensor x, int size, int stride) -> Tensor", family="collective")
class AllToAll(Collective):
    """Every rank sends 1/size of its buffer to each other rank."""

    collective = "all_to_all"


@operator("send_recv(Tensor x, int size, int stride) -> Tensor", family="collective")
class SendRecv(Collective):
    """Pass the buffer on to the next pipeline stage."""

    collective = "send_recv"
