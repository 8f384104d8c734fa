"""Decode context parallelism: what every rank computes, reads, keeps and sends, against sums over single keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorcast as tc
from tensorcast.cost.pricing import price
from tensorcast.errors import TensorcastError
from tensorcast.hardware.load import hardware
from tensorcast.ops.attention import attended_pairs, visible_keys
from tensorcast.optable import Row

MLA = {"model": "deepseek-v3", "layers": 4, "hw": "h200-sxm", "tp": 8}
GQA = {"model": "llama-3.1-70b", "layers": 3, "hw": "h100-sxm", "tp": 16}


def estimate(**options) -> dict:
    return tc.simulate(**options).to_dict()


def decode(base, **options) -> dict:
    """One decode step at 8192 tokens in all."""
    return estimate(**base, phase="decode", input_len=8191, output_len=1, **options)


def rows(found: dict, phase: str, op: str) -> list[dict]:
    return [row for row in found["phases"][phase]["ops"] if row["op"] == op]


def one(found: dict, phase: str, op: str) -> dict:
    (row,) = rows(found, phase, op)
    return row


# -- the keys of a rank ------------------------------------------------------------------------------------------------


def keys_of(rank: int, query: int, shards: int, window: int, chunk: int) -> int:
    """Keys that a query at position `query` sees of those that a rank holds: counted one by one."""
    first = max(0, query - window + 1) if window else 0
    first = max(first, query // chunk * chunk) if chunk else first
    return sum(key % shards == rank for key in range(first, query + 1))


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
@pytest.mark.parametrize(("q", "kv"), [(1, 1), (1, 37), (4, 64), (5, 29)])
def test_the_pairs_of_the_fullest_rank_are_those_counted_one_by_one(shards, q, kv) -> None:
    pairs = [sum(keys_of(r, i, shards, 0, 0) for i in range(kv - q, kv)) for r in range(shards)]
    assert attended_pairs(q, kv, shards=shards) == max(pairs)
    assert sum(pairs) == attended_pairs(q, kv)
    assert visible_keys(q, kv, shards=shards) == max(sum(k % shards == r for k in range(kv)) for r in range(shards))


@pytest.mark.parametrize(("window", "chunk"), [(8, 0), (5, 0), (0, 8), (0, 5)])
def test_windows_and_chunks_are_dealt_out_too(window, chunk) -> None:
    for q, kv in ((1, 40), (3, 41), (2, 4)):
        fullest = sum(max(keys_of(r, i, 3, window, chunk) for r in range(3)) for i in range(kv - q, kv))
        assert attended_pairs(q, kv, True, window, chunk, shards=3) == fullest


def test_merged_parts_are_full_attention() -> None:
    """The formula of the module's docstring, with numbers: keys dealt out one by one, 3 ranks, 29 keys."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 16, dtype=torch.float64) for n in (1, 29, 29))
    with torch.device("cpu"):
        parts, sums = [], []
        for rank in range(3):
            scores = q @ k[:, :, rank::3].transpose(-1, -2) / 4
            sums.append(torch.logsumexp(scores, -1, keepdim=True))
            parts.append(torch.softmax(scores, -1) @ v[:, :, rank::3])
        whole = torch.logsumexp(torch.stack(sums), 0)
        merged = sum(torch.exp(s - whole) * part for s, part in zip(sums, parts, strict=True))
        assert torch.allclose(merged, torch.softmax(q @ k.transpose(-1, -2) / 4, -1) @ v)


def test_a_part_of_the_keys_costs_what_so_many_keys_cost() -> None:
    hw, sizes = hardware("h200-sxm"), {"b": 8, "q": 1, "heads": 64, "kv_heads": 1, "d": 576, "dv": 512}
    attrs = {
        "causal": True, "window": 0, "chunk": 0, "topk": 0, "kv_format": "bf16", "math": "bf16", "phase": "decode",
        "kernel": "", "out_format": "bf16",
    }  # fmt: skip
    for op in ("attention", "mla_attention"):
        few, part = (
            price(Row(op, "", 1, {}, attrs | more, ((), ())), {k: np.array([v]) for k, v in (sizes | kv).items()}, hw)
            for more, kv in (({}, {"kv": 2048}), ({"shards": 4}, {"kv": 8190}))
        )
        assert few[0] == part[0]
        assert few[1].seconds == part[1].seconds


# -- a step ------------------------------------------------------------------------------------------------------------


def test_latents_of_a_decode_step_are_shared_by_four() -> None:
    alone, shared = decode(MLA, batch=8), decode(MLA, batch=8, dcp=4)
    before, after = (one(found, "decode", "mla_attention") for found in (alone, shared))
    assert before["matrix_flops"] == 4 * 2 * 8 * 16 * 8192 * (576 + 512)  # 4 layers, 8 sequences, 16 heads a rank
    assert after["matrix_flops"] == before["matrix_flops"]  # 64 heads over a quarter of the keys
    queries = 4 * 8 * 16 * 576 * 2
    assert before["read_bytes"] - queries == 4 * 8 * 8192 * 576 * 2
    assert after["read_bytes"] - 4 * queries == (before["read_bytes"] - queries) / 4
    assert shared["memory"]["kv_cache_bytes"] == alone["memory"]["kv_cache_bytes"] / 4 == 4 * 8 * 2048 * 576 * 2
    assert shared["hardware"]["devices"] == alone["hardware"]["devices"] == 8
    assert shared["plan"] == alone["plan"] | {"dcp": 4}


def test_the_messages_of_a_decode_step() -> None:
    found = decode(MLA, batch=8, dcp=4)
    queries, sums = [row for row in rows(found, "decode", "all_gather") if row["module"].endswith("self_attn")]
    sent = 3 / 4
    assert queries["comm_bytes"] == 4 * sent * 8 * 64 * 576 * 2  # absorbed query and rotated part, one message
    assert sums["comm_bytes"] == 4 * sent * 4 * 8 * 64 * 4  # of each of the four ranks, fp32
    assert one(found, "decode", "reduce_scatter")["comm_bytes"] == 4 * sent * 8 * 64 * 512 * 2
    rescaled = one(found, "decode", "rescale_partials")
    assert rescaled["read_bytes"] == 4 * (8 * 64 * 512 * 2 + 4 * 8 * 64 * 4)
    assert rescaled["write_bytes"] == 4 * 8 * 64 * 512 * 2


def test_grouped_heads_share_where_a_kv_head_has_copies() -> None:
    alone, shared = decode(GQA, batch=4), decode(GQA, batch=4, dcp=2)
    before, after = (one(found, "decode", "attention") for found in (alone, shared))
    assert before["matrix_flops"] == after["matrix_flops"] == 3 * 4 * 4 * 4 * 8192 * 128  # 4 of 64 heads a rank
    assert before["read_bytes"] == 3 * 4 * (8192 * 2 * 128 + 4 * 128) * 2
    assert after["read_bytes"] == 3 * 4 * (4096 * 2 * 128 + 8 * 128) * 2
    assert one(shared, "decode", "reduce_scatter")["comm_bytes"] == 3 / 2 * 4 * 8 * 128 * 2
    assert shared["memory"]["kv_cache_bytes"] * 2 == alone["memory"]["kv_cache_bytes"]
    rest = {"attention", "all_gather", "reduce_scatter", "rescale_partials", "kv_append"}
    ops = [found["phases"]["decode"]["ops"] for found in (alone, shared)]
    same = [[(r["op"], r["time_s"]) for r in found if r["op"] not in rest] for found in ops]
    assert same[0] == same[1]  # nothing else of the step changes


def test_tokens_that_do_not_divide_are_the_fullest_ranks() -> None:
    found = estimate(**GQA, phase="decode", input_len=1000, output_len=1, batch=1, dcp=2)  # 1001 keys
    assert one(found, "decode", "attention")["matrix_flops"] == 3 * 4 * 8 * 501 * 128
    assert found["memory"]["kv_cache_bytes"] == 3 * 501 * 2 * 128 * 2


def test_blocks_of_the_cache_are_whole_on_every_rank() -> None:
    found = estimate(**GQA, phase="decode", input_len=1000, output_len=1, dcp=2, kernel="attention=paged")
    assert found["memory"]["kv_cache_bytes"] == 3 * 512 * 2 * 128 * 2  # 501 tokens take 32 blocks of 16
    row = one(found, "decode", "paged_attention")
    assert row["read_bytes"] == 3 * (512 * 2 * 128 * 2 + 4 * 32 + 8 * 128 * 2)


def test_a_prefill_reads_what_others_keep() -> None:
    """2048 tokens in chunks of 512: the 512, 1024 and 1536 tokens before a chunk are gathered."""
    work = {"phase": "chunked", "input_len": 2048, "chunk": 512, "batch": 2}
    alone, shared = estimate(**GQA, **work), estimate(**GQA, **work, dcp=2)
    gathered = one(shared, "chunked", "gather_keys")
    assert gathered["comm_bytes"] == 3 * 2 * (512 + 1024 + 1536) * 2 * 128 * 2 / 2
    for name in ("matrix_flops", "time_s"):
        total = [sum(row[name] for row in rows(f, "chunked", "attention")) for f in (alone, shared)]
        assert total[0] == total[1]  # every rank attends all keys with its own heads
    written = [sum(row["write_bytes"] for row in rows(f, "chunked", "kv_append")) for f in (alone, shared)]
    assert written[1] == written[0] / 2 == 3 * 2 * 1024 * 2 * 128 * 2
    assert not any("polynomial" in line for line in shared["warnings"])


def test_a_first_prefill_sends_nothing_more() -> None:
    alone, shared = (estimate(**MLA, phase="prefill", input_len=512, dcp=dcp) for dcp in (1, 8))
    ops = [found["phases"]["prefill"]["ops"] for found in (alone, shared)]
    sent = [{r["op"]: r["comm_bytes"] for r in found if r["comm_bytes"]} for found in ops]
    assert sent[0] == sent[1]


def test_draft_tokens_see_their_own_keys() -> None:
    """Two tokens at the end of 8192: 8191 and 8192 keys, of which the fullest of 8 ranks has 1024 each."""
    found = estimate(**MLA, phase="decode", input_len=8190, output_len=1, mtp=1, dcp=8, batch=1)
    main = rows(found, "decode", "mla_attention")[0]
    assert main["matrix_flops"] == 4 * 2 * 128 * (1024 + 1024) * (576 + 512)


def test_reused_layers_and_traced_ones_agree() -> None:
    first, every = (decode(MLA, batch=3, dcp=2, reuse=reuse) for reuse in (True, False))
    assert first["metrics"] == every["metrics"] and first["memory"] == every["memory"]


def test_a_hybrid_shares_the_cache_of_its_attention_only() -> None:
    base = {"model": "qwen3-next-80b-a3b", "layers": 4, "hw": "h200-sxm", "tp": 8, "phase": "decode"}
    alone, shared = (estimate(**base, input_len=8191, output_len=1, dcp=dcp) for dcp in (1, 4))
    keys = 8192 * 2 * 256 * 2  # one attention layer, one KV head a rank
    assert alone["memory"]["kv_cache_bytes"] - shared["memory"]["kv_cache_bytes"] == keys - keys // 4


# -- what cannot be shared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**GQA, "dcp": 3}, "--dcp 3 must divide --tp 16; values that do: 1, 2, 4, 8, 16"),
        ({**GQA, "dcp": 4}, "has 8 KV heads, each on 2 of 16 ranks; values that work: 1, 2"),
        ({**GQA, "tp": 8, "dcp": 2}, "values that work: 1; with more than 8 tensor-parallel ranks, several share a"),
        ({**GQA, "dcp": 0}, "--dcp 0: a whole number, 1 to"),
        ({**GQA, "dcp": 2, "kernel": "attention=eager"}, "--dcp 2: attention=eager reads all keys; choose --kernel"),
        ({**MLA, "dcp": 2, "kernel": "mla=expanded"}, "does not attend its cache as it is kept"),
        ({**MLA, "model": "deepseek-v3.2", "dcp": 2}, "--dcp 2: ranks cannot share the cache of kind index"),
        ({**MLA, "model": "nemotron-3-nano-30b-a3b", "layers": 1, "dcp": 2}, "has no KV cache to share; leave it out"),
        ({**GQA, "dcp": 2, "phase": "train", "batch": 2}, "--dcp is about inference"),
        ({"model": "flux.1-dev", "hw": "h100-sxm", "tp": 2, "dcp": 2}, "--dcp does not go with flux.1-dev"),
    ],
)
def test_what_cannot_be_shared_is_said_in_one_line(options, said) -> None:
    with pytest.raises(TensorcastError) as caught:
        estimate(**options)
    assert said in str(caught.value) and "\n" not in str(caught.value)
