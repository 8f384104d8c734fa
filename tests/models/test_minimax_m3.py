"""MiniMax-M3: an indexer picks blocks of keys; what is read, kept and scored, beside transformers' own code."""

from __future__ import annotations

import pytest
import torch

import tensorcast as tc
from tensorcast.models.build import build_blueprint
from tensorcast.models.reference import resolve_model
from tensorcast.ops import operator_named
from tensorcast.plan import ParallelPlan
from tensorcast.trace.run import trace_step
from tests.verify.deployed import deploy

BLOCK, BLOCKS, TOKENS = 16, 4, 300
CONFIG = {
    "model_type": "minimax_m3", "architectures": ["MiniMaxM3ForCausalLM"], "dtype": "float32", "hidden_size": 64,
    "intermediate_size": 32, "dense_intermediate_size": 48, "shared_intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16, "vocab_size": 320, "num_local_experts": 8,
    "num_experts_per_tok": 2, "rotary_dim": 8, "rope_theta": 5000000, "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6, "moe_layer_freq": [0, 1], "tie_word_embeddings": False,
    "sparse_attention_config": {
        "sparse_attention_freq": [0, 1], "sparse_block_size": BLOCK, "sparse_index_dim": 16,
        "sparse_num_index_heads": 4, "sparse_topk_blocks": BLOCKS, "sparse_local_block": 1,
    },
}  # fmt: skip


def rows(phase: str, tokens: int, past: int, op: str, **deployment) -> list:
    calls = trace_step(deploy(resolve_model(CONFIG), **deployment), phase, 2, tokens, past).calls
    return [c for c in calls if c.op == op]


def flops(call) -> float:
    return float(operator_named(call.op).work(call.dims, call.attrs).matrix_flops)


def picked_by_stock() -> int:
    """(query, key) pairs of one key head that transformers' own mask of a sparse layer lets through."""
    blueprint = build_blueprint(resolve_model(CONFIG), attn_implementation="eager")
    torch.manual_seed(0)
    module = type(blueprint.module)._from_config(blueprint.config, dtype=torch.float32, attn_implementation="eager")
    model = module.eval().model
    indexer, hidden = model.layers[1].self_attn.indexer, torch.randn(1, TOKENS, 64)
    positions = torch.arange(TOKENS)[None]
    with torch.no_grad():
        chosen = indexer(hidden, model.rotary_emb(hidden, positions), None, positions)
        mask = indexer.build_block_mask(chosen, None, TOKENS, hidden.dtype, hidden.device, positions)
    return int((mask == 0).sum()) // mask.shape[1]


def test_sparse_layers_read_the_blocks_that_were_picked():
    dense, sparse = rows("prefill", TOKENS, 0, "attention")
    assert (dense.attrs["topk"], sparse.attrs["topk"]) == (0, BLOCK * BLOCKS)
    pairs = [flops(c) / (2 * 8 * 2 * (16 + 16)) for c in (dense, sparse)]  # 2 sequences, 8 heads of 16
    assert pairs[0] == TOKENS * (TOKENS + 1) / 2
    assert 0 <= pairs[1] - picked_by_stock() <= TOKENS * (BLOCK - 1)


def test_every_key_is_scored_once_by_every_index_head():
    (scores,) = rows("prefill", TOKENS, 0, "block_scores")
    assert flops(scores) == 2 * 2 * 4 * 16 * TOKENS * (TOKENS + 1) / 2
    (step,) = rows("decode", 1, TOKENS, "block_scores")
    assert flops(step) == 2 * 2 * 4 * 16 * (TOKENS + 1)
    work = operator_named("block_scores").work(step.dims, step.attrs)
    assert work.workspace_bytes == 2 * 4 * 4 * 19  # a score for each of 19 blocks, of 4 heads of 2 sequences


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_keys_of_the_indexer_are_kept_beside_the_others(tp):
    facts = deploy(resolve_model(CONFIG), plan=ParallelPlan(tp=tp)).facts
    heads = max(1, 4 // tp)
    kept = {"kv": 2 * heads * 16 * 4, "index": 16 * 4}
    assert {c.kind: c.token_bytes for c in facts.caches} == kept
    assert sum(len(c.layers) for c in facts.caches if c.kind == "index") == 1


def test_tensor_parallel_ranks_share_everything_but_the_indexer():
    whole, half = ([flops(c) for c in rows("prefill", 64, 0, op, plan=ParallelPlan(tp=t))]
                   for op, t in (("attention", 1), ("attention", 2)))  # fmt: skip
    assert whole == [2 * n for n in half]
    assert [flops(c) for c in rows("prefill", 64, 0, "block_scores", plan=ParallelPlan(tp=2))] == [
        flops(c) for c in rows("prefill", 64, 0, "block_scores")
    ]


def test_it_answers():
    answer = tc.simulate(model=CONFIG, hw="h100-sxm", tp=2, input_len=500, output_len=50, dtype="bf16").to_dict()
    assert answer["uncosted_ops"] == [] and answer["metrics"]["tpot_s"] > 0
