"""torch's own operators, described well enough to cost: everything a model does outside the fused operators.

Rows named `aten::…` come from here. Views and allocations cost nothing. A pointwise operator costs a fixed number of
FLOP an element and reads and writes every tensor once. What is in none of the tables is costed by its bytes and listed
in `uncosted_ops`.
"""

from __future__ import annotations

from math import prod

from tensorcast.ops.base import OPERATORS, Operator, Work, dtype_name, item_bytes

VIEWS = frozenset(
    """view _unsafe_view reshape t transpose permute unsqueeze squeeze expand slice select split split_with_sizes chunk
    unbind alias detach view_as as_strided narrow unfold _reshape_alias lift_fresh movedim swapaxes diagonal
    view_as_complex view_as_real _local_scalar_dense""".split()
)
"""The last one reads a number that the host has; one on the meta device has no value."""
CREATION = frozenset(
    """empty empty_like new_empty empty_strided new_empty_strided zeros zeros_like ones ones_like full full_like
    new_zeros new_ones new_full arange scalar_tensor eye tril_indices linspace""".split()
)
_POINTWISE_FLOPS = {
    1: """add sub rsub mul div neg abs maximum minimum clamp clamp_min clamp_max relu where masked_fill eq ne lt le gt
    ge logical_not logical_and logical_or bitwise_and bitwise_not bitwise_or sign floor ceil round floor_divide
    remainder lerp addcmul fill scatter scatter_add index_add index_put masked_scatter square xor bitwise_xor any all
    isin isinf isnan logical_xor threshold tril triu scatter_reduce""",
    4: """exp log sqrt rsqrt reciprocal sin cos pow sigmoid tanh hardtanh hardsigmoid hardswish log1p exp2 erf acos
    polar""",
    8: """silu gelu softplus mish elu leaky_relu glu upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_trilinear3d grid_sampler_2d bucketize""",
    32: "upsample_bicubic2d _upsample_bicubic2d_aa",
}
_MOVES = """copy _to_copy clone cat stack constant_pad_nd pad repeat repeat_interleave index index_select gather roll
flip embedding contiguous to im2col col2im pixel_shuffle pixel_unshuffle replication_pad1d
replication_pad2d replication_pad3d reflection_pad1d reflection_pad2d reflection_pad3d diag_embed
upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d""".split()
_REDUCTIONS = """sum mean amax amin max min argmax argmin prod cumsum cumprod logsumexp var std norm linalg_vector_norm
topk sort avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d max_pool2d_with_indices""".split()
_SOFTMAX = """_softmax _log_softmax softmax log_softmax native_layer_norm native_group_norm native_batch_norm
_fused_rms_norm _weight_norm_interface rms_norm""".split()


def _tensors(values):
    for value in values:
        if hasattr(value, "dtype"):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def distinct_bytes(tensor):
    """Bytes of a tensor without its broadcast dimensions (stride 0), which are read once."""
    elements = prod(n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or n <= 1)
    return int(elements * item_bytes(dtype_name(tensor)))


def _traffic(flops_per_element: int):
    def dims(inputs, outputs):
        return {
            "elements": max((t.numel() for t in outputs), default=0),
            "read": sum(distinct_bytes(t) for t in inputs),
            "write": sum(distinct_bytes(t) for t in outputs),
        }

    def work(d, a):
        return Work(vector_flops=flops_per_element * d["elements"], read_bytes=d["read"], write_bytes=d["write"])

    return dims, work


def _reduce_dims(inputs, outputs):
    return {
        "elements": max((t.numel() for t in inputs), default=0),
        "read": sum(distinct_bytes(t) for t in inputs),
        "write": sum(distinct_bytes(t) for t in outputs),
    }


def _reduce_work(flops):
    return lambda d, a: Work(vector_flops=flops * d["elements"], read_bytes=d["read"], write_bytes=d["write"])


def _gather_dims(inputs, outputs):
    """Gathers read what they return, and the indices; not the whole source."""
    write = sum(distinct_bytes(t) for t in outputs)
    indices = sum(distinct_bytes(t) for t in inputs if dtype_name(t) in ("int64", "int32"))
    return {"elements": sum(t.numel() for t in outputs), "read": write + indices, "write": write}


def _matmul_dims(inputs, outputs):
    x, y = inputs[-2:]
    if x.dim() == 2:
        (m, k), n, b = x.shape, y.shape[1], 1
    else:
        (b, m, k), n = x.shape, y.shape[2]
    formats = {"x_format": dtype_name(x), "y_format": dtype_name(y), "math": dtype_name(x)}
    return {"b": b, "m": m, "n": n, "k": k, "attrs": formats}


def _matmul_work(d, a):
    return OPERATORS.get("bmm").work(d, a)


def _conv_dims(call):
    """A convolution is the product of [output positions, k] and [k, output channels].

    A transposed one is that of [input positions, channels] and [channels, output channels · kernel].
    """
    (x, w), (y, *_), transposed, groups = call.inputs[:2], call.outputs, call.args[6], call.args[8]
    if transposed:
        sizes = {"m": x.numel() // w.shape[0], "n": prod(w.shape[1:]) * groups, "k": w.shape[0] // groups}
    else:
        sizes = {"m": y.numel() // w.shape[0], "n": w.shape[0], "k": prod(w.shape[1:])}
    return {
        **sizes,
        "read": distinct_bytes(x) + distinct_bytes(w),
        "write": distinct_bytes(y),
        "attrs": {"math": dtype_name(x), "x_format": dtype_name(x), "y_format": dtype_name(w)},
    }


def _conv_work(d, a):
    return Work(matrix_flops=2 * d["m"] * d["n"] * d["k"], read_bytes=d["read"], write_bytes=d["write"])


def _register(names, family, dims, work, summary):
    for name in names:
        key = f"aten::{name}"
        OPERATORS.register(key, Operator(key, f"{key}(…)", family, None, _of_call(dims), work, summary))


def _of_call(dims):
    return lambda call: dims(call.inputs, call.outputs)


_register(VIEWS, "none", lambda i, o: {}, lambda d, a: Work(), "view: no cost")
_register(CREATION, "none", lambda i, o: {}, lambda d, a: Work(), "allocation: no cost")
for _flops, _names in _POINTWISE_FLOPS.items():
    _register(_names.split(), "elementwise", *_traffic(_flops), f"pointwise, {_flops} FLOP an element")
_GATHERS = ("index", "index_select", "gather", "embedding", "_embedding_bag_forward_only")
_register([n for n in _MOVES if n not in _GATHERS], "copy", *_traffic(0), "data movement")
_register(_GATHERS, "gather", _gather_dims, _reduce_work(0), "gather of rows")
_register(_REDUCTIONS, "elementwise", _reduce_dims, _reduce_work(1), "reduction, 1 FLOP an input element")
_register(_SOFTMAX, "softmax", _reduce_dims, _reduce_work(8), "softmax or norm, 8 FLOP an element")
_register(["mm", "bmm", "addmm", "baddbmm"], "bmm", _matmul_dims, _matmul_work, "matrix product without kernel fusion")
OPERATORS.register(
    "aten::convolution",
    Operator(
        "aten::convolution",
        "aten::convolution(…)",
        "gemm",
        None,
        _conv_dims,
        _conv_work,
        "convolution as its multiply-adds",
    ),
)

_undescribed_dims, _undescribed_work = _traffic(0)
UNDESCRIBED = Operator(
    "",
    "",
    "elementwise",
    None,
    _of_call(_undescribed_dims),
    _undescribed_work,
    "an operator nobody described: costed by its bytes, listed as uncosted",
)


def foreign_operator(name: str) -> tuple[Operator, bool]:
    """The description of operator `namespace::name` of torch (without overload), in-place forms too.

    False when nobody has one.
    """
    for candidate in (name, name.removesuffix("_")):
        found = OPERATORS.find(candidate)
        if found is not None:
            return found, True
    return UNDESCRIBED, False
