"""FLOPs of the chunked scans beside torch's counter on transformers' own chunked code, for whole chunks.

Two differences, both exact:
- the gated delta rule solves a triangular system with a routine that the counter does not know; ours counts the solve
  as a product with the inverse, 2·C²·(dk + dv) a chunk and value head;
- transformers' Mamba-2 carries states from chunk to chunk by one product over all pairs of chunks (and the initial
  state), 2·(n + 1)²·state·dv a head for n chunks; ours passes the state on, as kernels do.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.ops import operator_named


def counted(function, *args, **kwargs) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        function(*args, **kwargs)
    return counter.get_total_flops()


def tensors(*shapes):
    return [torch.empty(shape, device="meta") for shape in shapes]


@pytest.mark.parametrize("model_type", ["qwen3_next", "qwen3_5", "qwen3_5_moe"])
@pytest.mark.parametrize("batch, chunks, key_heads, value_heads, dk, dv", [(1, 1, 2, 2, 16, 16), (3, 5, 2, 6, 24, 40)])
def test_gated_delta_rule(model_type, batch, chunks, key_heads, value_heads, dk, dv):
    code = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    size, tokens = 64, 64 * chunks
    q, k, v, g, beta = tensors(
        (batch, tokens, key_heads, dk), (batch, tokens, key_heads, dk), (batch, tokens, value_heads, dv),
        (batch, tokens, value_heads), (batch, tokens, value_heads),
    )  # fmt: skip
    theirs = counted(code.torch_chunk_gated_delta_rule, q, k, v, g, beta, chunk_size=size)
    op = operator_named("gated_delta_rule")
    dims, attrs = op.describe((q, k, v, g, size, False, "fp32", "fp32"), {})
    solve = batch * chunks * value_heads * 2 * size * size * (dk + dv)
    assert op.work(dims, attrs).matrix_flops == theirs + solve
    assert theirs > 0


@pytest.mark.parametrize("batch, chunks, heads, groups, dv, state", [(1, 1, 2, 1, 16, 16), (3, 5, 4, 2, 24, 40)])
def test_mamba2(batch, chunks, heads, groups, dv, state):
    code = importlib.import_module("transformers.models.nemotron_h.modeling_nemotron_h")
    size, tokens = 32, 32 * chunks
    x, dt, a, b, c = tensors(
        (batch, tokens, heads, dv), (batch, tokens, heads), (heads,), (batch, tokens, groups, state),
        (batch, tokens, groups, state),
    )  # fmt: skip
    theirs = counted(code.mamba2_chunk_scan, x, dt, a, b, c, chunk_size=size, return_final_states=True)
    op = operator_named("mamba2_scan")
    dims, attrs = op.describe((x, b, c, dt, state, size, False, "fp32", "fp32"), {})
    carried = batch * heads * 2 * (chunks + 1) ** 2 * state * dv
    assert op.work(dims, attrs).matrix_flops == theirs - carried
    assert theirs > carried > 0
