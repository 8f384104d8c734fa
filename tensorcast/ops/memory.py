"""Operators limited by memory: norms, rotary embedding, activations, embeddings."""

from __future__ import annotations

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator


def _elementwise(elements, fmt, *, reads, writes, flops):
    size = item_bytes(fmt)
    return Work(vector_flops=flops * elements, read_bytes=reads * elements * size, write_bytes=writes * elements * size)


@operator("residual_add(Tensor x, Tensor residual) -> Tensor", family="inside")
class ResidualAdd:
    """x + residual done by the norm that follows: it reads the residual and writes the sum beside its own traffic."""

    def meta(x, residual):
        return x.new_empty(x.shape)

    def dims(x, residual):
        return {"elements": x.numel(), "attrs": {"format": dtype_name(x)}}

    def work(d, a):
        return _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=1)


@operator("rms_norm(Tensor x, Tensor? w, bool adds) -> Tensor", family="norm")
class RmsNorm:
    """x · rsqrt(mean(x²) + eps) · w over the last dimension, in one pass; `adds`: it adds x up where x is a sum."""

    def meta(x, w, adds):
        if w is not None and w.dim() == 1 and w.shape[0] not in (1, x.shape[-1]):
            raise RuntimeError(f"a norm of {tuple(x.shape)} with a weight of {w.shape[0]} elements")
        return x.new_empty(x.shape)

    def dims(x, w, adds):
        return {"elements": x.numel(), "width": x.shape[-1], "attrs": {"format": dtype_name(x)}}

    def work(d, a):
        norm = _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=4)
        return norm + Work(read_bytes=d["width"] * item_bytes(a["format"]))


@operator("layer_norm(Tensor x, Tensor? w, bool adds) -> Tensor", family="norm")
class LayerNorm:
    """(x - mean) · rsqrt(var + eps) · w + b over the last dimension, in one pass; `adds` as in rms_norm."""

    meta = RmsNorm.meta
    dims = RmsNorm.dims

    def work(d, a):
        norm = _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=7)
        return norm + Work(read_bytes=2 * d["width"] * item_bytes(a["format"]))


@operator("gated_rms_norm(Tensor x, Tensor gate, Tensor? w) -> Tensor", family="norm")
class GatedRmsNorm:
    """rms_norm(x) · silu(gate), in one pass."""

    def meta(x, gate, w):
        return x.new_empty(x.shape)

    def dims(x, gate, w):
        return {"elements": x.numel(), "width": x.shape[-1], "attrs": {"format": dtype_name(x)}}

    def work(d, a):
        norm = _elementwise(d["elements"], a["format"], reads=2, writes=1, flops=9)
        return norm + Work(read_bytes=d["width"] * item_bytes(a["format"]))


@operator("rotary(Tensor q, Tensor k, Tensor cos) -> (Tensor, Tensor)", family="rotary")
class Rotary:
    """Rotate queries and keys by their position: both read and written once, cos and sin read once."""

    def meta(q, k, cos):
        return q.new_empty(q.shape), k.new_empty(k.shape)

    def dims(q, k, cos):
        return {
            "elements": q.numel() + k.numel(),
            "table": 2 * cos.numel(),
            "attrs": {"format": dtype_name(q), "table_format": dtype_name(cos)},
        }

    def work(d, a):
        return _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=3) + Work(
            read_bytes=d["table"] * item_bytes(a["table_format"])
        )


@operator("rotary_lookup(Tensor cos) -> Tensor", family="gather")
class RotaryLookup:
    """Rows of the cached cos and sin table for the positions of this step."""

    def meta(cos):
        return cos.new_empty(cos.shape)

    def dims(cos):
        return {"elements": 2 * cos.numel(), "attrs": {"format": dtype_name(cos)}}

    def work(d, a):
        return _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=0)


@operator("swiglu(Tensor gate, Tensor up) -> Tensor", family="activation")
class Swiglu:
    """act(gate) · up in one pass."""

    def meta(gate, up):
        return gate.new_empty(gate.shape)

    def dims(gate, up):
        return {"elements": gate.numel(), "attrs": {"format": dtype_name(gate)}}

    def work(d, a):
        return _elementwise(d["elements"], a["format"], reads=2, writes=1, flops=6)


@operator("activation(Tensor x, str function) -> Tensor", family="activation")
class Activation:
    """function(x), element by element, in one pass."""

    def meta(x, function):
        return x.new_empty(x.shape)

    def dims(x, function):
        return {"elements": x.numel(), "attrs": {"format": dtype_name(x)}}

    def work(d, a):
        return _elementwise(d["elements"], a["format"], reads=1, writes=1, flops=5)


@operator("join_images(Tensor features, bool adds) -> Tensor", family="copy")
class JoinImages:
    """Features [n, width] of images put in place of n of the tokens that a decoder sees, or added to them."""

    def meta(features, adds):
        return features.new_empty(features.shape)

    def dims(features, adds):
        return {"rows": features.shape[0], "width": features.shape[1], "attrs": {"format": dtype_name(features)}}

    def work(d, a):
        elements = d["rows"] * d["width"]
        moved = _elementwise(elements, a["format"], reads=1 + a["adds"], writes=1, flops=int(a["adds"]))
        return moved + Work(read_bytes=d["rows"] * item_bytes("int64"))


@operator("embedding(Tensor ids, Tensor w) -> Tensor", family="gather")
class Embedding:
    """Gather rows of the table: only the rows asked for are read."""

    def meta(ids, w):
        return w.new_empty((*ids.shape, w.shape[-1]))

    def dims(ids, w):
        return {
            "rows": ids.numel(),
            "width": w.shape[-1],
            "attrs": {"format": dtype_name(w), "ids_format": dtype_name(ids)},
        }

    def work(d, a):
        elements = d["rows"] * d["width"]
        return _elementwise(elements, a["format"], reads=1, writes=1, flops=0) + Work(
            read_bytes=d["rows"] * item_bytes(a["ids_format"])
        )
