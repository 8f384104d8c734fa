"""Work of operators beside sums written out by hand, and every operator's parts beside its schema."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from tensorcast.ops import OPERATORS, list_ops, operator_named
from tensorcast.ops.aten import foreign_operator
from tensorcast.ops.base import OpCall
from tensorcast.ops.moe import active_experts
from tensorcast.trace.library import call


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device="meta")


def work(name, *args):
    op = operator_named(name)
    dims, attrs = op.describe(args, {})
    return op.work(dims, attrs)


def ours():
    list_ops()
    return [e.value for e in OPERATORS.entries() if e.value.meta is not None]


@pytest.mark.parametrize("op", ours(), ids=lambda op: op.name)
def test_schema_and_functions_name_the_same_arguments(op):
    schema = getattr(torch.ops.tensorcast, op.name).default._schema
    names = [argument.name for argument in schema.arguments]
    parameters = inspect.signature(op.meta).parameters.values()
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    takes_rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert named == names[: len(named)] and (takes_rest or len(named) == len(names))
    assert op.summary and op.family != "none"


def test_linear():
    """[2, 3, 64] by [32, 64], bf16, with bias."""
    found = work("linear", meta(2, 3, 64), meta(32, 64), meta(32), "bf16", "bf16", "bf16", 0, False, "")
    assert found.matrix_flops == 2 * 6 * 32 * 64
    assert found.vector_flops == 6 * 32
    assert found.read_bytes == 2 * (6 * 64 + 32 * 64 + 32)
    assert found.write_bytes == 2 * 6 * 32


def test_quantised_linear_reads_narrow_weights_and_their_scales():
    args = (meta(6, 64), meta(32, 64), None)
    int8 = work("linear", *args, "int8", "int8", "int8", 32 * 4, False, "w8a8")
    int4 = work("linear", *args, "int4", "bf16", "bf16", 32 * 2, True, "w4a16")
    assert int8.read_bytes == 6 * 64 + 32 * 64 + 32 * 4
    assert int4.read_bytes == 2 * 6 * 64 + 32 * 64 // 2 + 32 * 2
    assert int4.vector_flops == 32 * 64  # each weight is expanded once
    assert int8.write_bytes == int4.write_bytes == 2 * 6 * 32
    assert int8.matrix_flops == int4.matrix_flops == 2 * 6 * 32 * 64


def test_an_embedding_reads_its_rows_only():
    small, large = (work("embedding", meta(2, 5, dtype=torch.long), meta(rows, 64)) for rows in (100, 100_000))
    assert small == large
    assert small.read_bytes == 10 * 64 * 2 + 10 * 8
    assert small.write_bytes == 10 * 64 * 2


@pytest.mark.parametrize(
    "name, tensors, read, write",
    [
        ("rms_norm", [meta(6, 64), meta(64), False], 6 * 64 + 64, 6 * 64),
        ("swiglu", [meta(6, 64), meta(6, 64)], 2 * 6 * 64, 6 * 64),
        ("gated_rms_norm", [meta(6, 64), meta(6, 64), meta(64)], 2 * 6 * 64 + 64, 6 * 64),
    ],
)
def test_fused_kernels_touch_every_element_once(name, tensors, read, write):
    found = work(name, *tensors)
    assert (found.read_bytes, found.write_bytes) == (2 * read, 2 * write)
    assert found.matrix_flops == 0


def test_active_experts_are_those_a_simulation_of_routing_finds():
    rng = np.random.default_rng(0)
    tokens, top_k, experts = 20, 4, 32
    seen = [len({e for _ in range(tokens) for e in rng.choice(experts, top_k, replace=False)}) for _ in range(2000)]
    assert active_experts(tokens, top_k, experts, 1, 1) == pytest.approx(np.mean(seen), rel=0.005)
    assert active_experts(1, top_k, experts, 1, 1) == pytest.approx(top_k)
    assert active_experts(10**6, top_k, experts, 1, 4) == pytest.approx(experts / 4)


def test_experts_compute_every_routed_pair_once():
    x, w13, w2 = meta(10, 64), meta(8, 96, 64), meta(8, 64, 48)
    rest = ("bf16", "bf16", "bf16", 0.0, False, "")
    alone = work("moe_experts", x, w13, w2, 2, 8, True, *rest, 1, 1)
    assert alone.matrix_flops == 2 * 10 * 2 * (96 * 64 + 64 * 48)
    shared = work("moe_experts", x, meta(2, 96, 64), meta(2, 64, 48), 2, 8, True, *rest, 1, 4)
    assert shared.matrix_flops * 4 == alone.matrix_flops


def test_a_broadcast_input_is_read_once():
    op, known = foreign_operator("aten::add")
    inputs, result = (meta(4, 8, 64), meta(1, 1, 64).expand(4, 8, 64)), meta(4, 8, 64)
    dims = op.dims(OpCall(inputs, {}, result, inputs, (result,)))
    assert known and dims["read"] == 2 * (4 * 8 * 64 + 64)


def test_in_place_forms_are_known_and_strangers_are_not():
    assert foreign_operator("aten::add_")[0] is foreign_operator("aten::add")[0]
    assert not foreign_operator("aten::fft_fft2")[1]
    assert not foreign_operator("mylib::add")[1]  # the name is torch's, the operator is not


def test_results_have_the_shapes_of_the_real_operators():
    x, w = torch.randn(2, 3, 64), torch.randn(32, 64)
    shape = call.linear(x.to("meta"), w.to("meta"), None, "fp32", "fp32", "fp32", 0, False, "").shape
    assert shape == torch.nn.functional.linear(x, w).shape
    q, k, v = torch.randn(2, 8, 5, 32), torch.randn(2, 2, 9, 32), torch.randn(2, 2, 9, 24)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).shape
    rule = (True, 0, 0, 0, "fp32", "fp32", "prefill", "flash")
    assert call.attention(*(t.to("meta") for t in (q, k, v)), *rule).shape == expected
