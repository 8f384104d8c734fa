"""Communication between ranks. `size` ranks, `stride` apart in the rank grid, take part.

`bytes` follow nccl-tests: the full buffer (the gathered result of all_gather, the input of the others).
"""

from __future__ import annotations

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator


def _sent(op, nbytes, size):
    from tensorcast.cost.collective import wire_bytes

    return wire_bytes(op, nbytes, size)


def _work(op):
    def work(d, a):
        nbytes = d["elements"] * item_bytes(a["format"])
        return Work(
            vector_flops=d["elements"] * (op in ("all_reduce", "reduce_scatter")),
            comm_bytes=_sent(op, nbytes, a["size"]),
        )

    return work


def _dims(op):
    def dims(x, *args, **kwargs):
        return {"elements": x.numel(), "attrs": {"format": dtype_name(x), "collective": op}}

    return dims


@operator("all_reduce(Tensor x, int size, int stride) -> Tensor", family="collective")
class AllReduce:
    """Sum over the ranks, result on all of them."""

    def meta(x, size, stride):
        return x.new_empty(x.shape)

    dims = _dims("all_reduce")
    work = _work("all_reduce")


@operator("all_gather(Tensor x, int dim, int size, int stride) -> Tensor", family="collective")
class AllGather:
    """Concatenate the ranks' pieces along `dim`, result on all of them."""

    def meta(x, dim, size, stride):
        shape = list(x.shape)
        shape[dim] *= size
        return x.new_empty(shape)

    def dims(x, dim, size, stride):
        return {"elements": x.numel() * size, "attrs": {"format": dtype_name(x), "collective": "all_gather"}}

    work = _work("all_gather")


@operator("gather_slices(Tensor x, int size, int stride) -> Tensor", family="collective")
class GatherSlices:
    """all_gather of a tensor the ranks hold one slice of each: x has the shape of the whole."""

    def meta(x, size, stride):
        return x.new_empty(x.shape)

    dims = _dims("all_gather")
    work = _work("all_gather")


@operator("reduce_scatter(Tensor x, int dim, int size, int stride) -> Tensor", family="collective")
class ReduceScatter:
    """Sum over the ranks, each keeps its piece along `dim`."""

    def meta(x, dim, size, stride):
        shape = list(x.shape)
        shape[dim] = -(-shape[dim] // size)
        return x.new_empty(shape)

    dims = _dims("reduce_scatter")
    work = _work("reduce_scatter")


@operator("all_to_all(Tensor x, int size, int stride) -> Tensor", family="collective")
class AllToAll:
    """Every rank sends 1/size of its buffer to each other rank."""

    def meta(x, size, stride):
        return x.new_empty(x.shape)

    dims = _dims("all_to_all")
    work = _work("all_to_all")


@operator("send_recv(Tensor x, int size, int stride) -> Tensor", family="collective")
class SendRecv:
    """Pass the buffer on to the next pipeline stage."""

    def meta(x, size, stride):
        return x.new_empty(x.shape)

    dims = _dims("send_recv")
    work = _work("send_recv")
