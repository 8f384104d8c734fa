"""Matrix FLOPs of our traces beside torch's own counter on the untouched model: equal as whole numbers.

Both sides compute all (query, key) pairs here; what causal kernels leave out is checked in tests/ops/test_attention.py.
Three things are taken out and counted apart because the stock code does not run what a machine runs: scans of linear
attention and state-space layers (test_scans.py), the scores of a sparse-attention indexer (below), and expert modules
that multiply every token with every expert, of which top_k do the work.
"""

from __future__ import annotations

import pytest

from tensorcast.layers.experts import experts_weights
from tensorcast.layers.moe import is_router
from tensorcast.models.entries import all_entries
from tensorcast.models.reference import resolve_model
from tensorcast.trace.run import trace_step
from tests.verify import stock
from tests.verify.deployed import ALL_PAIRS, deploy, has_slot, matrix_flops

APART = ("gated_delta_rule", "mamba2_scan", "index_scores")
# A past below every sliding window: stock caches drop what lies behind it, `all pairs` does not.
BATCH, TOKENS, PAST = 2, 192, 96
ENTRIES = sorted(all_entries(), key=lambda entry: entry.name)
NAMES = [entry.name for entry in ENTRIES]


def source_of(name: str):
    """The model with no more layers than show every kind it has."""
    return resolve_model(name, layers=stock.depth_with_every_kind(resolve_model(name)))


def deploy_all_pairs(source):
    """Ours with eager attention, and keys and values expanded where attention is latent, as the stock code does."""
    model = deploy(source, *ALL_PAIRS)
    return deploy(source, *ALL_PAIRS, "mla=expanded") if has_slot(model, "mla") else model


def expected(module, counts) -> int:
    """The counter's total without what the docstring above lists."""
    total = sum(counts["Global"].values())
    for path, part in module.named_modules():
        if stock.ROTARY.search(type(part).__name__):
            total -= sum(counts.get(path, {}).values())
        elif hasattr(part, "A_log") or hasattr(part, "index_topk"):
            total -= own_of(part, path, counts)
        elif stock.runs_every_expert(part):
            flops, experts = stock.own_flops(counts, path, part), experts_weights(part)[0].shape[0]
            parent = module.get_submodule(path.rpartition(".")[0])
            top_k = next(m.top_k for m in parent.children() if is_router(m))
            assert flops % experts == 0
            total -= flops - flops // experts * top_k
    return total


def own_of(part, path, counts) -> int:
    """What a scan layer or an indexer computes outside of its linears: convolutions are part of the scan."""
    linears = sum(
        sum(counts.get(f"{path}.{name}", {}).get(op, 0) for op in ("aten.mm", "aten.addmm"))
        for name, _ in part.named_children()
    )
    return sum(counts.get(path, {}).values()) - linears


@pytest.mark.parametrize("name", NAMES)
def test_prefill_counts_what_torch_counts(name):
    source = source_of(name)
    ours = trace_step(deploy_all_pairs(source), "prefill", BATCH, TOKENS, 0)
    module = stock.build(source)
    assert matrix_flops(ours.calls, APART) == expected(module, stock.counted(module, BATCH, TOKENS)) > 0


@pytest.mark.parametrize("name", NAMES)
def test_decode_counts_what_torch_counts(name):
    source = source_of(name)
    model = deploy_all_pairs(source)
    ours = trace_step(model, "decode", BATCH, 1, PAST)
    module = stock.build(source)
    assert matrix_flops(ours.calls, APART) == expected(module, stock.counted(module, BATCH, 1, PAST)) > 0


@pytest.mark.parametrize("name", ["deepseek-v3.2", "glm-5"])
@pytest.mark.parametrize("phase, tokens, past", [("prefill", TOKENS, 0), ("decode", 1, PAST)])
def test_indexer_computes_the_pairs_it_may_see(name, phase, tokens, past):
    """Stock: all pairs, and one more multiply-add a pair and head to weigh the heads. Ours: causal pairs without it."""
    source = source_of(name)
    calls = trace_step(deploy_all_pairs(source), phase, BATCH, tokens, past).calls
    module = stock.build(source)
    counts = stock.counted(module, BATCH, tokens, past)
    indexers = [(p, m) for p, m in module.named_modules() if hasattr(m, "index_topk") and hasattr(m, "wq_b")]
    assert indexers
    heads, width = source.config["index_n_heads"], source.config["index_head_dim"]
    every_pair = 2 * BATCH * tokens * (past + tokens)
    assert {own_of(m, p, counts) for p, m in indexers} == {every_pair * heads * (width + 1)}
    causal = 2 * BATCH * sum(past + i + 1 for i in range(tokens))
    found = [c for c in calls if c.op == "index_scores"]
    assert matrix_flops(found) == len(indexers) * causal * heads * width
