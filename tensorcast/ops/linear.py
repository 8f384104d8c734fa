"""Matrix products with weights, and the kernel that quantises their input."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from tensorcast.formats import format_named
from tensorcast.ops.base import Part, Parts, Work, dtype_name, item_bytes, operator, pieces


def _stored(rows, columns, fmt: str):
    """Bytes of [rows, columns] in a format, with the scales of its blocks where it has any."""
    f, values = format_named(fmt), rows * columns * item_bytes(fmt)
    return values + rows * -(-columns // f.scale_block) * f.scale_bits / 8 if f.block_scaled else values


@operator(
    "linear(Tensor x, Tensor w, Tensor? bias, str weight_format, str act_format, str math, int scale_bytes,"
    " bool dequantize, str scheme) -> Tensor",
    family="gemm",
)
class Linear:
    """y[m, n] = x[m, k] · w[n, k]ᵀ + bias[n]; `scale_bytes` are the weight's scales and zero points;
    `dequantize`: the weight is expanded on its way into the product, one vector operation an element."""

    def meta(x, w, bias, weight_format, act_format, math, scale_bytes, dequantize, scheme):
        if x.shape[-1] != w.shape[1]:
            raise RuntimeError(f"a product of {tuple(x.shape)} with a weight of {tuple(w.shape)}")
        return x.new_empty((*x.shape[:-1], w.shape[0]))

    def dims(x, w, bias, weight_format, act_format, math, scale_bytes, dequantize, scheme):
        k = x.shape[-1]
        return {
            "m": x.numel() // k if k else 0,
            "n": w.shape[0],
            "k": k,
            "attrs": {"out_format": dtype_name(x), "bias": bias is not None},
        }

    def work(d, a):
        m, n, k = d["m"], d["n"], d["k"]
        out = item_bytes(a["out_format"])
        weights = n * k * item_bytes(a["weight_format"]) + a["scale_bytes"] + n * out * a["bias"]
        return Work(
            matrix_flops=2 * m * n * k,
            vector_flops=m * n * a["bias"] + n * k * a["dequantize"],
            read_bytes=_stored(m, k, a["act_format"]) + weights,
            write_bytes=m * n * out,
        )


@operator("bmm(Tensor x, Tensor y, str y_format, str math) -> Tensor", family="bmm")
class BatchedMatmul:
    """z[b, m, n] = x[b, m, k] · y[b, k, n]."""

    def meta(x, y, y_format, math):
        return x.new_empty((x.shape[0], x.shape[1], y.shape[2]))

    def dims(x, y, y_format, math):
        b, m, k = x.shape
        return {"b": b, "m": m, "n": y.shape[2], "k": k, "attrs": {"x_format": dtype_name(x)}}

    def work(d, a):
        b, m, n, k = d["b"], d["m"], d["n"], d["k"]
        x, y = item_bytes(a["x_format"]), item_bytes(a["y_format"])
        return Work(matrix_flops=2 * b * m * n * k, read_bytes=b * (m * k * x + k * n * y), write_bytes=b * m * n * x)


@operator(
    "linear_all_reduce(Tensor x, Tensor w, Tensor? bias, str weight_format, str act_format, str math, int scale_bytes,"
    " bool dequantize, str scheme, int size, int stride) -> Tensor",
    family="composed",
)
class LinearAllReduce:
    """linear, its partial sums added up over `size` ranks: pieces of rows travel while the next are multiplied."""

    def meta(x, w, *_):
        return x.new_empty((*x.shape[:-1], w.shape[0]))

    def dims(x, w, bias, weight_format, act_format, math, scale_bytes, dequantize, scheme, **_):
        return Linear.dims(x, w, bias, weight_format, act_format, math, scale_bytes, dequantize, scheme)

    def parts(d, a):
        m, n = d["m"], d["n"]
        ring = {"size": a["size"], "stride": a["stride"], "format": a["out_format"], "collective": "all_reduce"}
        return Parts((Part("linear", d, a),), (Part("all_reduce", {"elements": m * n}, ring),), pieces(m))


@operator(
    "quantize(Tensor x, str to_format, int group, bool dynamic, str math, str scheme) -> Tensor", family="quantize"
)
class Quantize:
    """Quantisation of activations: scale and round. `dynamic`: after the absolute maximum, with one fp32 scale written
    per `group` elements of a row (0 = one per row); formats with block scales write those instead. `math` and `scheme`
    name the product it is for."""

    def meta(x, to_format, group, dynamic, math, scheme):
        return x.new_empty(x.shape)

    def dims(x, to_format, group, dynamic, math, scheme):
        return {"rows": prod(x.shape[:-1]), "columns": x.shape[-1], "attrs": {"in_format": dtype_name(x)}}

    def work(d, a):
        elements = d["rows"] * d["columns"]
        scales = d["rows"] if not a["group"] else d["rows"] * np.ceil(d["columns"] / a["group"])
        scale_bytes = 4 * scales if a["dynamic"] and not format_named(a["to_format"]).block_scaled else 0
        return Work(
            vector_flops=(3 if a["dynamic"] else 2) * elements,
            read_bytes=elements * item_bytes(a["in_format"]),
            write_bytes=_stored(d["rows"], d["columns"], a["to_format"]) + scale_bytes,
        )


@operator(
    "quantize_inside(Tensor x, str to_format, int group, bool dynamic, str math, str scheme) -> Tensor", family="inside"
)
class QuantizeInside:
    """quantize done by the kernel that makes `x`, which holds it already: it only writes the quantised copy."""

    meta = Quantize.meta

    def dims(x, to_format, group, dynamic, math, scheme):
        dims = Quantize.dims(x, to_format, group, dynamic, math, scheme)
        return {**dims, "attrs": {**dims["attrs"], "format": dtype_name(x)}}

    def work(d, a):
        return replace(Quantize.work(d, a), read_bytes=0)
