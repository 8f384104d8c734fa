"""What is said of operators and of the figures that they are priced with."""

from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.cost.described import link_of
from tensorcast.cost.passes import hand_over
from tensorcast.hardware.load import hardware
from tensorcast.optable import Piece

WORK = {"layers": 4, "batch": 4, "input_len": 64, "output_len": 2}


def talking(**options) -> set[tuple]:
    phase = tc.simulate(**WORK, **options).phases["prefill"]
    return {(op["collective"], op["ranks"], op["tier"]) for op in phase["ops"] if "collective" in op}


@pytest.mark.parametrize(("tp", "tier"), [(2, "nvlink"), (8, "nvlink"), (16, "nvlink + ib")])
def test_collectives_name_the_tiers_that_their_ranks_are_spread_over(tp, tier) -> None:
    """A server has eight devices: sixteen ranks reach two of them."""
    found = talking(model="qwen3-32b", hw="h100-sxm", tp=tp)
    assert found == {("all_reduce", tp, tier), ("all_gather", tp, tier)}


def test_stages_a_server_apart_hand_over_between_servers() -> None:
    piece = Piece(((1, None), (1, None), (0, 0)), ((1, 1, 0),), ())
    row = hand_over(piece, hidden=4096, item="bf16", stride=8)
    assert link_of(row, hardware("h100-sxm")) == {"collective": "send_recv", "ranks": 2, "tier": "ib"}


def test_a_kernel_that_exchanges_and_computes_says_what_it_exchanges() -> None:
    found = talking(model="deepseek-v3", hw="h100-sxm", dp=4, ep=4)
    assert {(name, ranks) for name, ranks, _ in found} == {("dispatch", 4), ("combine", 4)}


def test_products_name_their_format_and_nothing_else_does() -> None:
    ops = tc.simulate(**WORK, model="qwen3-8b", hw="h100-sxm", quant="fp8").phases["decode"]["ops"]
    assert {op["math"] for op in ops if op["op"] == "linear"} == {"fp8", "bf16"}
    assert all(("math" in op) == (op["matrix_flops"] > 0) for op in ops)


def test_assumptions_name_kernels_links_and_fields_with_their_sources() -> None:
    found = {
        row["figure"]: row
        for row in tc.simulate(**WORK, model="qwen3-8b", hw="h100-sxm", tp=2).to_dict()["assumptions"]
    }
    gemm = next(row for name, row in found.items() if name.startswith("gemm (bf16"))
    assert gemm["kind"] == "calibrated" and 0 < gemm["error_percent"][0] <= gemm["error_percent"][1]
    assert found["all_reduce"]["kind"] == "calibrated" and found["all_reduce"]["source"]
    assert found["memory.bandwidth"]["kind"] in ("specified", "measured") and found["memory.bandwidth"]["source"]
    assert "send_recv" not in found
