"""What each alternative kernel changes, and what it must not: work, launches, and never faster than its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tensorcast as tc
from tensorcast.cost.composed import overlapped
from tensorcast.cost.pricing import coefficient_keys, price
from tensorcast.hardware.load import hardware
from tensorcast.kernels import KERNELS
from tensorcast.layers.attention import AttentionRule
from tensorcast.models.recipes import Step
from tensorcast.ops import operator_named
from tensorcast.optable import Row
from tensorcast.trace.context import Context, entered

MODEL, MOE = "qwen3-0.6b", "qwen3-30b-a3b"
H100 = hardware("h100")
WORK = ("matrix_flops", "read_bytes", "write_bytes", "comm_bytes")


def phases(model=MODEL, *kernels, hw="h100", **options):
    options = {"input_len": 2048, "output_len": 8} | options
    return tc.simulate(model, hw, kernel=list(kernels), cache=False, **options).to_dict()["phases"]


def ops_of(phase, *names):
    return [op for op in phase["ops"] if op["op"] in names]


def total(phase, name, *ops):
    return sum(op[name] for op in (ops_of(phase, *ops) if ops else phase["ops"]))


# -- operators made of others ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 4])
@pytest.mark.parametrize("device, links", [(3.0, 5.0), (5.0, 3.0), (2.0, 2.0), (4.0, 0.0)])
def test_overlap_is_no_faster_than_either_side_and_no_slower_than_both(device, links, pieces):
    seconds = overlapped(device, links, pieces)
    assert max(device, links) <= seconds <= device + links
    assert overlapped(device, links, 1) == device + links


def row_linear(name: str, m: int):
    formats = {"weight_format": "bf16", "act_format": "bf16", "math": "bf16", "scale_bytes": 0, "dequantize": False}
    attrs = {**formats, "scheme": "", "out_format": "bf16", "bias": False, "size": 8, "stride": 1}
    if name == "all_reduce":
        dims, attrs = {"elements": m * 4096}, {"size": 8, "stride": 1, "format": "bf16", "collective": "all_reduce"}
    else:
        dims = {"m": m, "n": 4096, "k": 1024}
    arrays = {key: np.array([float(value)]) for key, value in dims.items()}
    row = Row(name, "", 1, {key: (float(value),) for key, value in dims.items()}, attrs, ((), ()))
    return row, *price(row, arrays, H100)


@pytest.mark.parametrize("m", [1, 64, 127, 128, 300, 4096, 65536])
def test_a_summed_product_lies_between_its_longer_side_and_both_in_turn(m):
    (_, product, alone), (_, message, sent) = row_linear("linear", m), row_linear("all_reduce", m)
    row, work, time = row_linear("linear_all_reduce", m)
    assert max(alone.seconds, sent.seconds) <= time.seconds <= (alone.seconds + sent.seconds) * (1 + 1e-12)
    if m < 256:  # one piece: nothing to hide behind
        assert time.seconds == pytest.approx(alone.seconds + sent.seconds)
    for name in WORK:
        assert getattr(work, name) == pytest.approx(getattr(product, name) + getattr(message, name))
    assert time.launches == 1 and coefficient_keys(row) == [("gemm", "bf16", "")]


def test_fused_row_products_move_and_compute_the_same_in_fewer_launches():
    apart, fused = (phases(MODEL, f"row_linear={k}", tp=8) for k in ("eager", "fused"))
    for name in ("prefill", "decode"):
        for figure in WORK:
            assert fused[name][figure] == pytest.approx(apart[name][figure], rel=1e-12)
        assert not ops_of(apart[name], "linear_all_reduce") and ops_of(fused[name], "linear_all_reduce")
    assert fused["prefill"]["step_time_s"] < apart["prefill"]["step_time_s"]
    assert fused["decode"]["step_time_s"] == pytest.approx(apart["decode"]["step_time_s"], rel=1e-9)
    assert sum(op["count"] for op in ops_of(fused["prefill"], "linear_all_reduce")) == 2 * 28
    assert total(apart["prefill"], "count") - total(fused["prefill"], "count") == 2 * 28


def test_quantised_row_products_keep_their_formats():
    apart, fused = (phases(MODEL, f"row_linear={k}", tp=8, quant="fp8")["prefill"] for k in ("eager", "fused"))
    assert fused["read_bytes"] == pytest.approx(apart["read_bytes"], rel=1e-12)
    assert total(fused, "count", "quantize") == total(apart, "count", "quantize")


# -- experts -----------------------------------------------------------------------------------------------------------


def test_experts_one_by_one_compute_the_same_in_more_launches():
    grouped, loop, eager = (
        phases(MOE, f"moe_experts={k}", batch=8, output_len=2) for k in ("grouped", "loop", "eager")
    )
    for name in ("prefill", "decode"):
        flops = [p[name]["matrix_flops"] for p in (grouped, loop, eager)]
        assert flops == [pytest.approx(flops[0], rel=1e-12)] * 3
        seconds = [p[name]["step_time_s"] for p in (grouped, loop, eager)]
        assert seconds[0] < seconds[1] < seconds[2]
    assert loop["decode"]["read_bytes"] > 0.99 * grouped["decode"]["read_bytes"]  # every active expert's weights


def test_an_expert_alone_is_launched_by_the_host():
    """Decode, batch 1: 8 active experts of 128, three kernels each, permutation and sum; eagerly seven kernels each."""
    row = next(r for r in rows_of(MOE, "decode", "moe_experts=loop") if r.op == "moe_experts_loop")
    dims = {"tokens": np.array([1.0]), "hidden": np.array([2048.0]), "inter": np.array([768.0])}
    assert price(row, dims, H100)[1].launches == pytest.approx(8 * 3 + 2)
    row = next(r for r in rows_of(MOE, "decode", "moe_experts=eager") if r.op == "moe_experts_loop")
    assert price(row, dims, H100)[1].launches == pytest.approx(8 * 7)
    host = [phases(MOE, f"moe_experts={k}", runtime="eager")["decode"]["host_time_s"] for k in ("grouped", "loop")]
    assert host[1] - host[0] == pytest.approx(48 * (8 * 3 + 1) * H100.host_op_time_s, rel=1e-6)


def rows_of(model, phase, *kernels, **options):
    from tensorcast.answer import Answer
    from tensorcast.request import Request

    request = Request.of(model=model, hw="h100", kernel=list(kernels), input_len=256, output_len=4, **options)
    return Answer(request, cache=False).deployed.tables[phase].pieces[-1].rows


def test_quantised_experts_one_by_one_quantise_each_input():
    plain, loop = (phases(MOE, f"moe_experts={k}", quant="fp8") for k in ("grouped", "loop"))
    assert loop["decode"]["matrix_flops"] == pytest.approx(plain["decode"]["matrix_flops"], rel=1e-12)
    row = next(r for r in rows_of(MOE, "decode", "moe_experts=loop", quant="fp8") if r.op == "moe_experts_loop")
    parts = operator_named(row.op).parts({"tokens": 1.0, "hidden": 2048.0, "inter": 768.0}, row.attrs)
    assert [part.op for part in parts.device].count("quantize") == 2


def test_the_exchange_beside_the_products_keeps_all_work_and_both_bounds():
    plan = {"tp": 2, "dp": 4, "ep": 8, "batch": 16}
    apart, fused = (phases(MOE, f"moe_experts={k}", **plan)["prefill"] for k in ("grouped", "fused_all_to_all"))
    for figure in WORK:
        assert fused[figure] == pytest.approx(apart[figure], rel=1e-12)
    experts = total(apart, "time_s", "moe_experts")
    links = total(apart, "time_s", "moe_dispatch", "moe_combine")
    one = total(fused, "time_s", "moe_exchanged_experts")
    assert max(experts, links) < one < experts + links
    assert one == pytest.approx(max(experts, links) + min(experts, links) / 4, rel=1e-9)


def test_popular_experts_cost_more_in_the_fused_exchange_and_are_refused_one_by_one():
    plan = {"dp": 8, "ep": 8, "batch": 16, "cache": False}
    even, skewed = (
        tc.simulate(MOE, "h100", kernel="moe_experts=fused_all_to_all", moe_imbalance=skew, **plan)
        for skew in ("uniform", "power-law:1.2")
    )
    assert skewed.metrics["ttft_s"] > even.metrics["ttft_s"]
    with pytest.raises(tc.InputError, match="moe_experts=grouped"):
        tc.simulate(MOE, "h100", kernel="moe_experts=loop", moe_imbalance="power-law:1.2", **plan)


def test_a_fused_exchange_needs_tokens_that_travel():
    with pytest.raises(tc.KernelError, match="sends no tokens to other ranks with tp 8, ep 8, dp 1; use grouped"):
        phases(MOE, "moe_experts=fused_all_to_all", tp=8, ep=8)


# -- attention ---------------------------------------------------------------------------------------------------------


def test_a_paged_cache_is_read_in_whole_blocks_through_a_table():
    flash, paged = (phases(MODEL, f"attention={k}", input_len=1001, output_len=2) for k in ("flash", "paged"))
    assert paged["decode"]["matrix_flops"] == flash["decode"]["matrix_flops"]
    blocks, token = 63, 8 * 256 * 2  # ⌈1002 / 16⌉; 8 heads of 128, keys and values, 2 bytes
    more = 28 * ((blocks * 16 - 1002) * token + 4 * blocks)
    assert paged["decode"]["read_bytes"] - flash["decode"]["read_bytes"] == pytest.approx(more)
    assert paged["decode"]["step_time_s"] > flash["decode"]["step_time_s"]


def test_latents_are_not_read_by_the_attention_kernel_and_that_is_said():
    model = tc.build_model("deepseek-v3", kernels={"attention": "paged"}, layers=4)
    assert [n for n in model.notes if "attention=paged runs where latents are expanded" in n]
    plain = tc.build_model("deepseek-v3", kernels={"attention": "paged", "mla": "expanded"}, layers=4)
    assert not [n for n in plain.notes if "latents" in n]


def test_a_paged_cache_takes_whole_blocks_of_memory():
    def kv(kernel):
        e = tc.simulate(MODEL, "h100", kernel=[kernel], input_len=1001, output_len=2, batch=3, cache=False)
        return e.memory["kv_cache_bytes"]

    token = 28 * 8 * 256 * 2
    assert kv("attention=flash") == 3 * 1003 * token
    assert kv("attention=paged") == 3 * 1008 * token
    assert kv("attention=paged_128") == 3 * 1024 * token


RULES = {
    "causal": (24, 24, {}),
    "grouped heads, past": (5, 24, {}),
    "one query": (1, 24, {}),
    "window": (24, 24, {"window": 7}),
    "window, one query": (1, 24, {"window": 7}),
    "chunks": (24, 24, {"chunk": 8}),
    "no mask": (24, 24, {"causal": False}),
}


@pytest.mark.parametrize("s, kv, limits", RULES.values(), ids=RULES)
def test_eager_attention_gives_the_numbers_of_torch(s, kv, limits):
    generator = torch.Generator().manual_seed(3)
    q = torch.randn((2, 4, s, 16), generator=generator)
    k, v = (torch.randn((2, 2, kv, 16), generator=generator) for _ in range(2))
    rule = AttentionRule(0.25, *({"causal": True, "window": 0, "chunk": 0} | limits).values(), 0, "fp32", "fp32", "x")
    with entered(Context(Step("prefill", 1, 1, 0))):
        ours = KERNELS.resolve("attention", "standard", "eager")(q, k, v, rule)
    position, key = torch.arange(kv - s, kv)[:, None], torch.arange(kv)
    seen = (key <= position) | torch.tensor(not rule.causal)
    seen = seen & (position - key < (rule.window or kv + 1))
    seen = seen & (position // (rule.chunk or kv) == key // (rule.chunk or kv))
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.25, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-6, rtol=1e-5)


# -- norms -------------------------------------------------------------------------------------------------------------


def test_a_norm_that_quantises_saves_the_reading_of_its_result():
    apart, fused = (phases(MODEL, f"rms_norm={k}", quant="fp8") for k in ("fused_add", "fused_quantize"))
    for name, tokens in (("prefill", 2048), ("decode", 1)):
        inside = ops_of(fused[name], "quantize_inside")
        assert sum(op["count"] for op in inside) == 2 * 28  # before q, k, v and before gate, up
        assert apart[name]["read_bytes"] - fused[name]["read_bytes"] == 2 * 28 * tokens * 1024 * 2
        assert apart[name]["write_bytes"] == fused[name]["write_bytes"]
        assert fused[name]["step_time_s"] <= apart[name]["step_time_s"]
        assert total(apart[name], "count", "quantize") - total(fused[name], "count", "quantize") == 2 * 28


def test_a_norm_quantises_for_products_that_do():
    with pytest.raises(tc.KernelError, match="quantises no activations; use fused_add"):
        phases(MODEL, "rms_norm=fused_quantize")
    with pytest.raises(tc.KernelError, match="quantises no activations"):
        phases(MODEL, "rms_norm=fused_quantize", quant="w8a16")


def test_rotary_is_one_choice_a_model():
    both = ["rotary@model.visual.*=eager", "rotary@model.language_model.*=fused"]
    with pytest.raises(tc.KernelError, match=r"rotary kernels cannot differ within a model: eager at model\.visual"):
        tc.build_model("qwen3-vl-2b", kernel=both)
    tc.build_model("qwen3-vl-2b", kernel="rotary=eager")
