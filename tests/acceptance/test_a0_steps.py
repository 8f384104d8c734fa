"""Drafts, reuse, latents and quantisation by the standard steps (tests A0.17-A0.21)."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import tensorcast as tc
from tests.acceptance import foreign
from tests.acceptance.deploying import (
    HW,
    calls,
    folder,
    names,
    profile,
    toy_profile,
)


@pytest.fixture(autouse=True)
def alone(own_folder):
    """Every test has a folder of its own."""


def test_a0_17_one_draft_layer_and_one_more_head():
    plain, drafting = (
        tc.build_model("deepseek-v3", HW, quant="none"),
        tc.build_model("deepseek-v3", HW, quant="none", mtp=1),
    )
    assert drafting.weight_bytes - plain.weight_bytes == 2 * 11_610_067_968
    draft = drafting.module.get_submodule("mtp.0")
    assert sum(type(m).__name__ == "DeepseekV3RMSNorm" for m in draft.children()) == 3
    assert (draft.eh_proj.in_features, draft.eh_proj.out_features) == (14336, 7168)
    assert len(draft.blocks) == 1 and drafting.parameters == plain.parameters

    def heads(model):
        from tensorcast.trace.run import trace_step

        return [c.module for c in trace_step(model, "decode", 1, 1, 64).calls if c.module.endswith("lm_head")]

    assert len(heads(plain)) == 1 and len(heads(drafting)) == 2


def test_a0_17_no_drafts_and_impossible_ones(run):
    model = folder("deepseek_v3", num_nextn_predict_layers=1)
    zero, none = tc.build_model(model, HW, mtp=0), tc.build_model(model, HW)
    assert calls(zero, "decode", 1, 1, 8) == calls(none, "decode", 1, 1, 8)
    code, _, err = run("simulate", "--model", model, "--hw", HW, "--mtp", "-1")
    assert code == 2 and "-1" in err


def test_a0_17_profile_names_the_block_and_the_key():
    model = folder("deepseek_v3", draft_depth=1)
    tc.register_model_profile(
        tc.ModelProfile(model_type="deepseek_v3", mtp_layers_key="draft_depth", mtp_block_module_name="NoSuchLayer"),
        replace=True,
    )
    with pytest.raises(tc.TransformationError, match="no module of class NoSuchLayer"):
        tc.build_model(model, HW, mtp=1)
    named = tc.ModelProfile(
        model_type="deepseek_v3", mtp_layers_key="draft_depth", mtp_block_module_name="DeepseekV3DecoderLayer"
    )
    tc.register_model_profile(named, replace=True)
    assert len(tc.build_model(model, HW, mtp=1).drafts) == 1
    tc.register_model_profile(tc.ModelProfile(model_type="deepseek_v3", mtp_layers_key="draft_dept"), replace=True)
    with pytest.raises(tc.TransformationError, match=r"mtp_layers_key 'draft_dept'.*nearest: draft_depth"):
        tc.build_model(model, HW, mtp=1)


def test_a0_17_a_draft_block_unlike_the_last_layer_is_refused():
    toy_profile()
    config = foreign.ToyConfig(num_nextn_predict_layers=1)
    with pytest.raises(tc.TransformationError, match="fresh Qwen3DecoderLayer is not like the last layer"):
        tc.build_model(config, HW, mtp=1)


@pytest.mark.parametrize("name, groups", [("gemma3", 2), ("llama", 1), ("deepseek_v3", 2)])
def test_a0_18_reuse_changes_nothing(name, groups):
    from tensorcast.ops import operator_named
    from tensorcast.trace.run import trace_step

    def table(model):
        rows = Counter()
        for call in trace_step(model, "prefill", 1, 64, 0).calls:
            work = operator_named(call.op).work(call.dims, call.attrs)
            figures = (
                float(work.matrix_flops),
                float(work.vector_flops),
                float(work.read_bytes),
                float(work.write_bytes),
            )
            rows[call.op, figures] += len(call.layers or [0])
        return rows

    reused, whole = tc.build_model(folder(name), HW), tc.build_model(folder(name), HW, reuse=False)
    assert table(reused) == table(whole)
    layers = [tuple(c.layers) for c in trace_step(reused, "prefill", 1, 64, 0).calls if c.layers]
    assert len(set(layers)) == groups


def test_a0_18_the_command_gives_the_same_figures(run):
    asked = (
        "simulate",
        "--model",
        folder("gemma3"),
        "--hw",
        HW,
        "--input-len",
        "64",
        "--output-len",
        "4",
        "--json",
        "-",
    )
    reused, whole = (json.loads(run(*asked, *more)[1]) for more in ((), ("--no-reuse",)))
    for key in ("phases", "metrics", "memory"):
        assert reused[key] == whole[key]


def test_a0_19_latents_are_what_the_cache_keeps():
    model = tc.build_model("deepseek-v3", HW, quant="none")
    assert {cache.token_bytes for cache in model.facts.caches} == {(512 + 64) * 2}
    assert model.kv_bytes_per_token == 61 * 1152 == 70_272
    step = next(s for s in tc.build_model(folder("llama"), HW).steps if s.name == "patch_mla")
    assert (step.status, step.reason) == ("skipped", "no latent attention modules")


LATENT = {"num_heads": "heads", "o_proj": "dense"}


def test_a0_19_latent_attention_written_by_hand():
    profile("toy_latent", mla_module_name="ToyLatentAttention", mla_field_names_override=LATENT)
    model = tc.build_model(foreign.LatentConfig(), HW)
    assert model.kv_bytes_per_token == foreign.LAYERS * (24 + 8) * 2
    assert model.parameters == sum(p.numel() for p in foreign.LatentForCausalLM(foreign.LatentConfig()).parameters())
    prefill, decode = calls(model), calls(model, "decode", 1, 1, 64)
    assert prefill["attention"] == prefill["rotary"] == foreign.LAYERS and prefill["mla_attention"] == 0
    assert decode["mla_attention"] == foreign.LAYERS and decode["attention"] == 0
    cut = tc.build_model(foreign.LatentConfig(), HW, tp=2)
    attention = cut.module.get_submodule("model.layers.0.self_attn")
    assert (attention.q_b_proj.out_features, attention.dense.in_features) == (48, 32)
    assert calls(cut)["all_reduce"] == calls(model)["all_reduce"] + 2 * foreign.LAYERS + 1  # o, down, embedding


def test_a0_19_fields_of_a_latent_attention():
    profile("toy_latent", mla_module_name="ToyLatentAttention", mla_field_names_override={"o_proj": "dense"})
    with pytest.raises(tc.TransformationError, match=r"no 'num_heads' for num_heads.*'heads'} would name it"):
        tc.build_model(foreign.LatentConfig(), HW)
    missing = LATENT | {"q_a_layernorm": None}
    tc.register_model_profile(
        tc.ModelProfile(
            model_type="toy_latent", mla_module_name="ToyLatentAttention", mla_field_names_override=missing
        ),
        replace=True,
    )
    with pytest.raises(tc.TransformationError, match="neither q_proj nor all of q_a_proj, q_a_layernorm, q_b_proj"):
        tc.build_model(foreign.LatentConfig(), HW)


def test_a0_20_exclusions_go_by_segment():
    toy_profile(moe_gate_returns_raw_logits=True)
    model = tc.build_model(folder("deepseek_v3"), HW, quant="w8a8", exclude=["gate"])
    quantised = set(model.quantised)
    assert "model.layers.1.mlp.shared_experts.gate_proj" in quantised and "model.layers.0.mlp.gate_proj" in quantised
    assert not [path for path in quantised if path.endswith(".gate")]
    assert "lm_head" not in quantised
    without = tc.build_model(folder("deepseek_v3"), HW, quant="w8a8", exclude=["re:.*shared_experts.*"])
    assert quantised - set(without.quantised) == {path for path in quantised if "shared_experts" in path}


def test_a0_21_quantising_twice_is_quantising_once():
    once = tc.build_model(folder("llama"), HW, quant="w8a8")

    @tc.register_custom_model("llama")
    def twice(model):
        tc.run_standard(model, skip={"shard_model"})
        return tc.quantize_linear(tc.quantize_linear(model))

    model = tc.build_model(folder("llama"), HW, quant="w8a8")
    assert names(model)[-2:] == ["quantize_linear"] * 2 and not model.steps[-1].changes
    assert model.weight_bytes == once.weight_bytes and calls(model) == calls(once)
