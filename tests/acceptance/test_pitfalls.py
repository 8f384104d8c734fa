"""Wrong figures seen in other tools that have no closer home in the suite."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import tensorcast as tc


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path))


def test_attention_asked_of_torch_is_one_operator_and_counts_its_pairs():
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(100, 8 * 16)

        def forward(self, input_ids):
            q = self.embed(input_ids).unflatten(-1, (8, 16)).transpose(1, 2)
            k = torch.cat((q, q[:, :, :32]), dim=2)
            out = functional.scaled_dot_product_attention(q, k, k)
            assert out.shape == q.shape
            return out

    ops = tc.simulate(Net(), "h100", batch=2, input_len=64).phases["forward"].ops.set_index("op")
    assert ops.loc["attention", "matrix_flops"] == 4 * 2 * 8 * 64 * 96 * 16
    assert not {"aten::bmm", "aten::_softmax"} & {*ops.index}


LLAMA = {
    "embedding": 1, "rms_norm": 65, "linear": 129, "rotary": 32, "rotary_lookup": 1, "kv_append": 32, "attention": 32,
    "swiglu": 32, "residual_add": 64,
}  # fmt: skip
DEEPSEEK = {  # three dense layers and two with experts, on eight ranks
    "embedding": 1, "rms_norm": 21, "quantize": 25, "linear": 28, "rotary": 5, "rotary_lookup": 1, "kv_append": 5,
    "bmm": 10, "mla_attention": 5, "aten::cat": 5, "swiglu": 5, "moe_route": 2, "moe_experts": 2, "aten::add": 2,
    "residual_add": 10, "all_reduce": 11, "all_gather": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "pinned"),
    [({"model": "llama-3.1-8b"}, LLAMA), ({"model": "deepseek-v3", "tp": 8, "layers": 5}, DEEPSEEK)],
    ids=["llama", "deepseek"],
)
def test_the_operators_of_a_decode_step_are_pinned(asked, pinned):
    """What another version of a library decomposes or fuses in another way changes the answer: here it is seen."""
    ops = tc.simulate(hw="h200-sxm", input_len=64, output_len=2, phase="decode", **asked).phases["decode"].ops
    assert ops.groupby("op")["count"].sum().to_dict() == pinned


def test_views_are_not_in_the_table():
    ops = tc.simulate("qwen3-0.6b", "h100", input_len=64, output_len=2).phases["prefill"].ops
    assert not {op for op in ops["op"] if op.removeprefix("aten::") in ("view", "transpose", "t", "slice", "reshape")}
    assert (ops["time_s"] > 0).all()


def test_every_family_of_figures_says_where_it_comes_from():
    estimate = tc.simulate("qwen3-30b-a3b", "rtx-4090", input_len=64, output_len=2).to_dict()
    shown = " ".join(estimate["provenance"].values())
    assert set(estimate["provenance"]) <= {"calibrated", "inherited", "universal", "assumed"}
    for family in ("gemm", "attention_prefill", "attention_decode", "grouped_gemm", "norm"):
        assert family in shown


def test_the_dtype_is_the_configurations_and_is_shown():
    assert tc.simulate("qwen3-0.6b", "h100", input_len=64, output_len=2).to_dict()["quant"]["kv_cache"] == "bf16"
    asked = tc.simulate("qwen3-0.6b", "h100", input_len=64, output_len=2, dtype="fp32")
    assert asked.to_dict()["quant"]["kv_cache"] == "fp32"
    assert asked.memory["weights_bytes"] == 2 * tc.simulate("qwen3-0.6b", "h100", input_len=64).memory["weights_bytes"]


def test_tied_embeddings_are_counted_once_but_the_head_is_still_computed():
    estimate = tc.simulate("qwen3-0.6b", "h100", input_len=64, output_len=2)
    assert estimate.to_dict()["model"]["parameters"] == 596_049_920
    assert estimate.memory["weights_bytes"] == 2 * 596_049_920
    head = estimate.phases["decode"].ops.query("module == 'lm_head'").iloc[0]
    assert head["matrix_flops"] == 2 * 151_936 * 1024
    assert head["read_bytes"] >= 2 * 151_936 * 1024


def test_embeddings_read_only_their_rows():
    ops = tc.simulate("qwen3-0.6b", "h100", input_len=64, output_len=2).phases["prefill"].ops
    row = ops.query("op == 'embedding'").iloc[0]
    assert row["read_bytes"] == 64 * (1024 * 2 + 8)


def test_no_fit_is_a_verdict_with_plans_that_do():
    memory = tc.simulate("deepseek-v3", "ascend-910b", tp=8).memory
    assert memory["fits"] is False and memory["total_bytes"] > memory["capacity_bytes"]
    assert memory["max_batch"] == 0
    assert memory["suggestions"]
