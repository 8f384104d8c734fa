"""Matrix FLOPs of our traces beside torch's own counter on the untouched model: equal as whole numbers.

Both sides compute all (query, key) pairs here; what causal kernels leave out is checked in tests/ops/test_attention.py.
Where the stock code does not run what a machine runs, terms.py says what it multiplies instead.
"""

from __future__ import annotations

import pytest

from tensorcast.models.entries import all_entries
from tensorcast.models.reference import resolve_model
from tensorcast.trace.run import trace_step
from tests.later import later
from tests.verify import stock
from tests.verify.deployed import as_stock, deploy, matrix_flops
from tests.verify.terms import terms

# A past below every sliding window: stock caches drop what lies behind it, `all pairs` does not.
BATCH, TOKENS, PAST = 2, 192, 96
ENTRIES = sorted(all_entries(), key=lambda entry: entry.name)
FIRST = {entry.config["model_type"]: entry.name for entry in reversed(ENTRIES)}
"""One of every type in each run, its sisters at night."""
NAMES = later((entry.name for entry in ENTRIES), {entry.name for entry in ENTRIES} - set(FIRST.values()))
ALIKE = {"kimi_k2", "kimi_k25", "glm_moe_dsa", "qwen2", "qwen3", "qwen3_5", "mistral", "phi3", "glm4_moe", "qwen3_vl"}
"""Types whose layers another type has: by day their prompts alone."""
STEPS = later(
    (entry.name for entry in ENTRIES),
    {entry.name for entry in ENTRIES} - {name for kind, name in FIRST.items() if kind not in ALIKE},
)


def source_of(name: str):
    """The model with no more layers than show every kind it has."""
    return resolve_model(name, layers=stock.depth_with_every_kind(resolve_model(name)))


def deploy_all_pairs(source):
    return as_stock(lambda *kernels: deploy(source, *kernels))


@pytest.mark.parametrize("name", NAMES)
def test_prefill_counts_what_torch_counts(name):
    source = source_of(name)
    calls = trace_step(deploy_all_pairs(source), "prefill", BATCH, TOKENS, 0).calls
    module = stock.build(source)
    assert_equal(calls, module, stock.counted(module, BATCH, TOKENS))


@pytest.mark.parametrize("name", STEPS)
def test_decode_counts_what_torch_counts(name):
    source = source_of(name)
    model = deploy_all_pairs(source)
    calls = trace_step(model, "decode", BATCH, 1, PAST).calls
    module = stock.build(source)
    assert_equal(calls, module, stock.counted(module, BATCH, 1, PAST))


def assert_equal(calls, module, counts) -> None:
    apart = sum(terms(calls, module, counts).values())
    assert matrix_flops(calls) + apart == sum(counts["Global"].values()) > 0


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
    assert {stock.own_flops(counts, p, m) for p, m in indexers} == {every_pair * heads * (width + 1)}
    causal = 2 * BATCH * sum(past + i + 1 for i in range(tokens))
    found = [c for c in calls if c.op == "index_scores"]
    assert matrix_flops(found) == len(indexers) * causal * heads * width
