"""Sequence parallelism: what a rank adds up, normalises and sends, by hand, and what cannot be divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorcast as tc
from tensorcast.cost.passes import Pipeline, rows_of
from tensorcast.cost.pricing import price
from tensorcast.errors import TensorcastError
from tensorcast.hardware.load import hardware
from tensorcast.optable import Piece
from tensorcast.trace.spread import Spread

LLAMA = {"model": "llama-3.1-8b", "layers": 3, "hw": "h100-sxm", "tp": 4}
HIDDEN = 4096


def estimate(**options) -> dict:
    return tc.simulate(**options).to_dict()


def prefill(base=LLAMA, **options) -> dict:
    return estimate(**{**base, "phase": "prefill", "batch": 4, "input_len": 1024, **options})


def rows(found: dict, op: str, phase: str = "prefill") -> list[dict]:
    return [row for row in found["phases"][phase]["ops"] if row["op"] == op]


def total(found: dict, op: str, name: str, phase: str = "prefill") -> float:
    return sum(row[name] for row in rows(found, op, phase))


# -- bytes and FLOP ----------------------------------------------------------------------------------------------------


def test_a_sum_becomes_two_halves_that_send_as_much() -> None:
    """7 sums of 4 x 1024 tokens: behind the embedding, three attentions and three feed-forwards."""
    alone, spread = prefill(), prefill(sequence_parallel=True)
    message = 4 * 1024 * HIDDEN * 2
    assert total(alone, "all_reduce", "comm_bytes") == 7 * 2 * 3 / 4 * message
    assert total(spread, "reduce_scatter_tokens", "comm_bytes") == 7 * 3 / 4 * message
    assert total(spread, "all_gather_tokens", "comm_bytes") == 7 * 3 / 4 * message  # before six products and the head
    assert not rows(spread, "all_reduce")
    assert alone["phases"]["prefill"]["comm_bytes"] == spread["phases"]["prefill"]["comm_bytes"]
    assert spread["plan"] == alone["plan"] | {"sequence_parallel": True}
    assert spread["hardware"]["devices"] == 4


def test_norms_and_sums_are_divided_and_products_are_not() -> None:
    alone, spread = prefill(), prefill(sequence_parallel=True)
    weights = 7 * HIDDEN * 2  # of seven norms, which every rank reads
    for op, whole in (("rms_norm", weights), ("residual_add", 0)):
        before, after = (total(found, op, "read_bytes") - whole for found in (alone, spread))
        assert after == before / 4 > 0
        assert total(spread, op, "vector_flops") == total(alone, op, "vector_flops") / 4
        assert total(spread, op, "time_s") < total(alone, op, "time_s") / 2
    assert total(alone, "rms_norm", "vector_flops") == 7 * 4 * 4096 * HIDDEN
    assert spread["phases"]["prefill"]["matrix_flops"] == alone["phases"]["prefill"]["matrix_flops"]
    for op in ("linear", "attention", "swiglu", "rotary"):
        assert total(spread, op, "time_s") == total(alone, op, "time_s")
    assert spread["metrics"]["ttft_s"] < alone["metrics"]["ttft_s"]


def test_what_is_alive_between_the_products_is_divided() -> None:
    """Where the most is in use, in the feed-forward, the residual [tokens, hidden] is a quarter."""
    alone, spread = (prefill(sequence_parallel=on)["memory"] for on in (False, True))
    message = 4 * 1024 * HIDDEN * 2
    assert alone["activation_peak_bytes"] - spread["activation_peak_bytes"] >= 3 / 4 * message
    same = {"weights_bytes", "kv_cache_bytes", "workspace_bytes"}
    assert {k: alone[k] for k in same} == {k: spread[k] for k in same}


def test_tokens_that_do_not_divide_are_padded() -> None:
    """3 x 1001 = 3003 tokens on 4 ranks: 751 each."""
    spread = prefill(batch=3, input_len=1001, sequence_parallel=True)
    assert total(spread, "reduce_scatter_tokens", "comm_bytes") == 7 * 3 * 751 * HIDDEN * 2
    assert total(spread, "all_gather_tokens", "comm_bytes") == 7 * 3 * 751 * HIDDEN * 2
    assert total(spread, "rms_norm", "vector_flops") == 7 * 4 * 751 * HIDDEN
    assert total(spread, "residual_add", "write_bytes") == 6 * 751 * HIDDEN * 2
    assert not any("polynomial" in line for line in spread["warnings"])


@pytest.mark.parametrize(("batch", "own"), [(1, 1), (3, 1), (5, 2)])
def test_a_decode_step_of_few_tokens_takes_one_a_rank(batch, own) -> None:
    spread = estimate(**LLAMA, phase="decode", batch=batch, input_len=512, output_len=1, sequence_parallel=True)
    assert total(spread, "reduce_scatter_tokens", "comm_bytes", "decode") == 7 * 3 * own * HIDDEN * 2
    assert total(spread, "rms_norm", "vector_flops", "decode") == 7 * 4 * own * HIDDEN


def test_a_part_of_the_message_is_passed_on_between_stages() -> None:
    piece = Piece(((1, None), (2, None), (0, 0)), ((0, 0, 0), (1, 1, 0)), ())
    basis, hw = piece.basis(3, 1001, 0), hardware("h100-sxm")
    for spread, tokens in ((1, 3003), (4, 751)):
        (row,) = rows_of(piece, Pipeline(2, stride=4, spread=spread), HIDDEN, "bf16")
        work, _ = price(row, {name: np.asarray(c) @ basis for name, c in row.dims.items()}, hw)
        assert work.comm_bytes == tokens * HIDDEN * 2


def test_prompts_of_several_lengths_count_together() -> None:
    spread = estimate(**LLAMA, phase="prefill", seq_lens=(100, 301), sequence_parallel=True)
    assert total(spread, "reduce_scatter_tokens", "comm_bytes") == 7 * 3 * 101 * HIDDEN * 2  # 401 tokens


# -- kinds of models ---------------------------------------------------------------------------------------------------


def test_sums_of_experts_on_the_same_ranks() -> None:
    """One sum behind routed and shared experts; the router and the experts read all tokens."""
    base = {"model": "deepseek-v3", "layers": 5, "hw": "h200-sxm", "tp": 8, "ep": 8}
    alone, spread = prefill(base), prefill(base, sequence_parallel=True)
    message = 4 * 1024 * 7168 * 2
    assert total(spread, "reduce_scatter_tokens", "comm_bytes") == 11 * 7 / 8 * message
    assert alone["phases"]["prefill"]["comm_bytes"] == spread["phases"]["prefill"]["comm_bytes"]
    for op in ("moe_experts", "linear", "moe_route"):
        assert total(spread, op, "matrix_flops") == total(alone, op, "matrix_flops")
    adds = [total(found, "aten::add", "write_bytes") for found in (alone, spread)]  # before the sum: partial results
    assert adds[0] == adds[1] == 2 * message


def test_tokens_that_travel_to_their_experts_come_back_spread() -> None:
    """Four groups of ranks: each rank sends its part of the tokens, whose results the others then need no longer."""
    base = {"model": "deepseek-v3", "layers": 5, "hw": "h200-sxm", "tp": 2, "dp": 4, "ep": 8}
    alone, spread = prefill(base), prefill(base, sequence_parallel=True)
    message = 1024 * 7168 * 2  # of a group's one sequence
    assert total(alone, "gather_slices", "comm_bytes") == 2 * message / 2
    assert not rows(spread, "gather_slices")
    for op in ("moe_dispatch", "moe_combine", "moe_experts"):
        assert total(spread, op, "time_s") == total(alone, op, "time_s")
    adds = [total(found, "aten::add", "write_bytes") for found in (alone, spread)]  # routed and shared results
    assert adds[1] == adds[0] / 2
    assert total(spread, "reduce_scatter_tokens", "comm_bytes") == 11 / 2 * message


def test_norms_behind_a_sum_run_on_own_tokens() -> None:
    """Gemma normalises what attention gives before it adds it to the residual."""
    base = {"model": "gemma-3-1b", "layers": 6, "hw": "h100-sxm", "tp": 2}
    alone, spread = prefill(base), prefill(base, sequence_parallel=True)

    def flops(name: str) -> list[float]:
        norms = [[r for r in rows(found, "rms_norm") if r["module"].endswith(name)] for found in (alone, spread)]
        return [sum(r["vector_flops"] for r in found) for found in norms]

    for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
        before, after = flops(f"{name}_layernorm")
        assert after == before / 2 > 0
    before, after = flops("q_norm")
    assert before == after  # all tokens, half of the heads


def test_scans_read_all_tokens() -> None:
    base = {"model": "qwen3-next-80b-a3b", "layers": 4, "hw": "h200-sxm", "tp": 2}
    alone, spread = prefill(base), prefill(base, sequence_parallel=True)
    assert alone["phases"]["prefill"]["comm_bytes"] == spread["phases"]["prefill"]["comm_bytes"]
    assert alone["phases"]["prefill"]["matrix_flops"] == spread["phases"]["prefill"]["matrix_flops"]


def test_draft_layers_and_shared_caches_go_along() -> None:
    base = {"model": "deepseek-v3", "layers": 4, "hw": "h200-sxm", "tp": 8, "dcp": 8, "sequence_parallel": True}
    work = {"phase": "decode", "mtp": 1, "batch": 5, "input_len": 1000, "output_len": 2}
    first, every = (estimate(**base, **work, reuse=reuse) for reuse in (True, False))
    assert first["metrics"] == every["metrics"] and first["memory"] == every["memory"]
    assert not rows(first, "all_reduce", "decode")


# -- what cannot be divided --------------------------------------------------------------------------------------------


def test_an_operator_that_mixes_tokens_is_found() -> None:
    """The shapes alone do not say it: a sum along the tokens, and one along the width, have results of one shape."""
    x = torch.empty(2, 6, 6, device="meta")
    for name, args, mixes in (
        ("cumsum", (x, 1), True),
        ("mean", (x, [1], True), True),
        ("mean", (x, [-1], True), False),
        ("add", (x, x), False),
        ("roll", (x, [1], [1]), True),
        ("index_select", (x, 1, x), True),
        ("cat", ([x, x], 2), False),
        ("cat", ([x, x], 1), True),
        ("native_layer_norm", (x, [6]), False),
        ("native_layer_norm", (x, [6, 6]), True),
        ("transpose", (x, 1, 2), True),
    ):
        spread = Spread(4)
        spread.put(x, 12)
        if not mixes:
            assert spread.follow(name, args, [x], [torch.empty_like(x)], "layer") == 12
            continue
        with pytest.raises(TensorcastError, match=f"{name} of layer reads tokens that lie on several ranks"):
            spread.follow(name, args, [x], [torch.empty_like(x)], "layer")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**LLAMA, "tp": 1}, "divides tokens among the tensor-parallel ranks: it needs --tp 2 or more"),
        ({**LLAMA, "sequence_parallel": "yes"}, "--sequence-parallel 'yes': true or false"),
        ({**LLAMA, "phase": "train", "batch": 2}, "--sequence-parallel is not modelled for --phase train"),
        ({**LLAMA, "kernel": "row_linear=fused"}, "leaves a part of every sum on each rank (--sequence-parallel); use"),
        ({**LLAMA, "model": "deepseek-v4-flash"}, "reads tokens that lie on several ranks; leave it out"),
        ({"model": "flux.1-dev", "hw": "h100-sxm", "tp": 2}, "--sequence-parallel does not go with flux.1-dev"),
    ],
)
def test_what_cannot_be_divided_is_said_in_one_line(options, said) -> None:
    with pytest.raises(TensorcastError) as caught:
        estimate(**{"sequence_parallel": True, **options})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_both_flags_of_the_command_line(run, plain_folder) -> None:
    asked = ("simulate", "-m", "deepseek-v3", "--layers", "4", "--hw", "h200-sxm", "--tp", "8", "-q", "--json", "-")
    code, out, _ = run(*asked, "--decode-context-parallel-size", "4", "--sequence-parallel")
    assert code == 0 and '"dcp": 4' in out and '"sequence_parallel": true' in out
    code, _, said = run(*asked, "--dcp", "3")
    assert code == 2 and "--dcp 3 must divide --tp 8; values that do: 1, 2, 4, 8" in said
