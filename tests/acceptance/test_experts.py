"""Experts over ranks: who sends what, and which kernels an engine runs."""

from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.hardware.load import hardware


def decode(**changes):
    return tc.simulate("qwen3-30b-a3b", "h100", batch=8, input_len=64, output_len=2, **changes).phases["decode"]


def test_ranks_that_hold_all_tokens_send_none_to_the_experts():
    alone, spread = decode(tp=4), decode(tp=4, ep=4)
    ops = set(spread.ops["op"])
    assert not ops & {"moe_dispatch", "moe_combine", "gather_slices"}
    assert spread["comm_bytes"] == pytest.approx(alone["comm_bytes"])
    assert spread["matrix_flops"] == pytest.approx(alone["matrix_flops"], rel=1e-9)


def test_groups_exchange_their_tokens():
    ops = set(decode(dp=4, ep=4).ops["op"])
    assert {"moe_dispatch", "moe_combine"} <= ops


def test_an_engine_runs_its_own_kernels():
    h100 = hardware("h100")
    vllm = h100.preferring(("vllm_triton", "nobody's"))
    assert vllm.coefficient("grouped_gemm", "bf16").kernel == "vllm_triton"
    assert h100.coefficient("grouped_gemm", "bf16").kernel != "vllm_triton"
    assert vllm.coefficient("gemm", "bf16") is h100.coefficient("gemm", "bf16")


@pytest.mark.parametrize(("machine", "narrow"), [("b200", True), ("h100", False)])
def test_engines_narrow_the_activations_of_mxfp4_where_the_machine_multiplies_them(machine, narrow):
    def precision(**options):
        e = tc.simulate("gpt-oss-20b", machine, input_len=64, output_len=2, **options)
        return str(e.to_dict()["quant"])

    assert ("mxfp8" in precision(engine="vllm")) is narrow
    assert "mxfp8" not in precision()
