"""What ranks do that hold a part of the tokens each: of the KV cache, or of the residual stream.

Parts are of equal size: ⌈rows / size⌉ rows each, of which the last rank's may be padding.
"""

from __future__ import annotations

import numpy as np

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator
from tensorcast.ops.collective import Collective


@operator(
    "gather_keys(Tensor k, Tensor v, int rows, str format, int size, int stride) -> (Tensor, Tensor)",
    family="collective",
)
class GatherKeys(Collective):
    """all_gather of the `rows` cached tokens that the ranks hold a part of each; the new tokens are here already.

    k, v [b, kv_heads, rows + new, d]; they travel in the cache's `format`.
    """

    collective = "all_gather"

    def meta(k, v, rows, format, size, stride):
        return k.new_empty(k.shape), v.new_empty(v.shape)

    def dims(k, v, rows, format, size, stride):
        width = sum(t.shape[1] * t.shape[-1] for t in (k, v))
        return {"copies": k.shape[0], "rows": rows, "width": width, "attrs": {"collective": "all_gather"}}


@operator("rescale_partials(Tensor out, Tensor sums) -> Tensor", family="elementwise")
class RescalePartials:
    """Attention results over a part of the keys, times their weight in the whole: exp(own - log Σ exp(sums)).

    out [..., heads, dv]; sums: for every rank the log-sum-exp of the scores of each query and head, fp32.
    """

    def meta(out, sums):
        return out.new_empty(out.shape)

    def dims(out, sums):
        return {"elements": out.numel(), "sums": sums.numel(), "attrs": {"format": dtype_name(out)}}

    def work(d, a):
        nbytes = d["elements"] * item_bytes(a["format"])
        return Work(vector_flops=d["elements"] + 5 * d["sums"], read_bytes=nbytes + 4 * d["sums"], write_bytes=nbytes)


def _of_tokens(x, collective):
    attrs = {"format": dtype_name(x), "collective": collective}
    return {"copies": 1, "rows": x.numel() // x.shape[-1], "width": x.shape[-1], "attrs": attrs}


@operator("all_gather_tokens(Tensor x, int size, int stride) -> Tensor", family="collective")
class AllGatherTokens(Collective):
    """The tokens of all ranks, each of which has a part of them, on all of them; x stands for all of them, too."""

    collective = "all_gather"

    def dims(x, size, stride):
        return _of_tokens(x, "all_gather")


@operator("reduce_scatter_tokens(Tensor x, int size, int stride) -> Tensor", family="collective")
class ReduceScatterTokens(Collective):
    """Sum over the ranks, each of which keeps its part of the tokens; the result stands for all of them."""

    collective = "reduce_scatter"

    def dims(x, size, stride):
        return _of_tokens(x, "reduce_scatter")


def of_rank(d, a):
    """The sizes of one rank's part of an operator on tokens that lie on `spread` ranks: ⌈tokens / spread⌉ of them.

    `whole`: bytes that every rank reads, whatever its part. Sizes of any other operator are its own.
    """
    if "spread" not in a:
        return d
    own, whole = np.ceil(d["tokens"] / a["spread"]), d.get("whole", 0)
    cut = {name: d[name] * own / d["tokens"] for name in ("elements", "write") if name in d}
    return {**d, **cut, **({"read": whole + (d["read"] - whole) * own / d["tokens"]} if "read" in d else {})}
