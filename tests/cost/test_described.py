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


def test_a_kernel_with_two_collectives_names_both() -> None:
    found = talking(model="deepseek-v3", hw="h100-sxm", dp=4, ep=4, kernel=["moe_experts=fused_all_to_all"])
    assert {(name, ranks) for name, ranks, _ in found} == {("dispatch + combine", 4)}


def test_a_backward_pass_says_what_it_sends() -> None:
    """Every operator that sends bytes names its collective: that of the forward pass, or its conjugate."""
    found = tc.simulate(
        model="deepseek-v3", hw="h100-sxm", tp=2, dp=2, ep=4, layers=4, batch=2, input_len=64, quant="none",
        phase="train", kernel=["row_linear=fused"],
    ).to_dict()  # fmt: skip
    sent = {op["op"]: op.get("collective") for op in found["phases"]["train"]["ops"] if op["comm_bytes"]}
    assert sent["linear_all_reduce_backward"] == sent["all_reduce_backward"] == "all_reduce"
    assert (sent["moe_dispatch_backward"], sent["moe_combine_backward"]) == ("combine", "dispatch")
    assert None not in sent.values()
    stream = {op["op"]: op["stream"] for kind in found["phases"]["train"]["timeline"]["kinds"] for op in kind["ops"]}
    assert stream["all_reduce_backward"] == "communication"
    assert stream["linear_all_reduce_backward"] == "compute, communication"


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


def test_assumptions_of_training_name_what_the_copies_tell_each_other() -> None:
    small = {"layers": 2, "input_len": 64, "batch": 2, "phase": "train", "dp": 2}
    found = tc.simulate(model="qwen3-0.6b", hw="h100-sxm", zero=3, **small).to_dict()
    named = {row["figure"] for row in found["assumptions"]}
    assert {op["collective"] for op in found["phases"]["train"]["ops"] if "collective" in op} <= named
    assert "all_gather" in named
    whole = tc.simulate(model="qwen3-0.6b", hw="h100-sxm", **small).to_dict()["assumptions"]
    assert "all_gather" not in {row["figure"] for row in whole}
