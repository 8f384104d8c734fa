"""Pairs, keys, FLOPs and bytes of attention beside counting them one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorcast.ops import operator_named
from tensorcast.ops.attention import attended_pairs, visible_keys

sizes = st.integers(1, 60)
limits = st.integers(0, 40)


def seen_by(query: int, causal: bool, kv: int, window: int, chunk: int) -> list[int]:
    """Positions of the keys that the query at position `query` of `kv` may see."""
    keys = range(query + 1) if causal else range(kv)
    if window:
        keys = [k for k in keys if abs(query - k) < window]
    if causal and chunk:
        keys = [k for k in keys if k // chunk == query // chunk]
    return list(keys)


@given(q=sizes, past=st.integers(0, 60), causal=st.booleans(), window=limits, chunk=limits, topk=limits)
def test_pairs_are_those_a_loop_counts(q, past, causal, window, chunk, topk):
    kv = q + past
    rows = [len(seen_by(i, causal, kv, window, chunk)) for i in range(past, kv)]
    if causal and topk:
        rows = [min(n, topk) for n in rows]
    assert attended_pairs(q, kv, causal, window, chunk, topk) == sum(rows)


@given(q=sizes, past=st.integers(0, 60), causal=st.booleans(), window=limits, chunk=limits)
def test_visible_keys_are_those_some_query_sees(q, past, causal, window, chunk):
    kv = q + past
    seen = {k for i in range(past, kv) for k in seen_by(i, causal, kv, window, chunk)}
    assert visible_keys(q, kv, causal, window, chunk) == len(seen)


@given(q=sizes, past=st.integers(0, 60), topk=st.integers(1, 40))
def test_top_k_never_reads_more_than_is_there_or_was_chosen(q, past, topk):
    keys = visible_keys(q, q + past, True, 0, 0, topk)
    assert keys <= min(q + past, q * topk)
    assert keys * q >= attended_pairs(q, q + past, True, 0, 0, topk)


@given(q=sizes, first=st.integers(0, 40), window=limits, chunk=limits, topk=limits)
def test_a_prefill_in_chunks_computes_the_pairs_of_the_whole(q, first, window, chunk, topk):
    rule = (True, window, chunk, topk)
    whole = attended_pairs(first + q, first + q, *rule)
    assert whole == (attended_pairs(first, first, *rule) if first else 0) + attended_pairs(q, first + q, *rule)


def test_arrays_give_what_single_sizes_give():
    q, kv = np.array([1, 7, 64]), np.array([100, 9, 64])
    for rule in [(True, 0, 0, 0), (True, 16, 0, 0), (True, 0, 24, 0), (True, 16, 24, 8), (False, 0, 0, 0)]:
        for count in (attended_pairs, visible_keys):
            assert list(count(q, kv, *rule)) == [count(a, b, *rule) for a, b in zip(q, kv, strict=True)]


ATTRS = {
    "causal": True, "window": 0, "chunk": 0, "topk": 0, "kv_format": "bf16", "math": "bf16", "phase": "prefill",
    "kernel": "flash", "out_format": "bf16",
}  # fmt: skip


@pytest.mark.parametrize(
    "rule, pairs, keys",
    [
        ({}, 10 * 6 + 6 * 7 // 2, 16),
        ({"window": 4}, 6 * 4, 9),
        ({"causal": False}, 6 * 16, 16),
        ({"topk": 3}, 6 * 3, 16),
    ],
)
def test_flash_attention_counts_its_pairs(rule, pairs, keys):
    """6 new tokens behind 10 cached: 2 sequences, 8 heads of 32 (values 24), 2 KV heads."""
    sizes = {"b": 2, "q": 6, "kv": 16, "heads": 8, "kv_heads": 2, "d": 32, "dv": 24}
    work = operator_named("attention").work(sizes, ATTRS | rule)
    assert work.matrix_flops == 2 * pairs * (32 + 24) * 8 * 2
    assert work.read_bytes == 2 * 2 * (6 * 8 * 32 + keys * 2 * (32 + 24))
    assert work.write_bytes == 2 * 2 * 6 * 8 * 24


def test_a_quantised_cache_is_read_in_its_format():
    sizes = {"b": 1, "q": 1, "kv": 1000, "heads": 8, "kv_heads": 2, "d": 64, "dv": 64}
    attention = operator_named("attention")
    wide, narrow = (attention.work(sizes, ATTRS | {"kv_format": f}) for f in ("bf16", "fp8"))
    assert wide.read_bytes - narrow.read_bytes == 1000 * 2 * 128
    assert wide.matrix_flops == narrow.matrix_flops


def test_latent_attention_reads_one_latent_for_all_heads():
    sizes = {"b": 3, "q": 1, "kv": 500, "heads": 16, "kv_heads": 1, "d": 576, "dv": 512}
    work = operator_named("mla_attention").work(sizes, ATTRS)
    assert work.matrix_flops == 2 * 3 * 16 * 500 * (576 + 512)
    assert work.read_bytes == 2 * (3 * 500 * 576 + 3 * 16 * 576)  # the values are part of the keys
    assert work.write_bytes == 2 * 3 * 16 * 512
