"""Pipelines and steps: a user's own order of deployment (tests A0.1-A0.10, A0.27)."""

from __future__ import annotations

import contextlib
import json
import random
import re

import pytest

import tensorcast as tc
from tests.acceptance.deploying import (
    HW,
    NINE,
    PIPELINE,
    custom_file,
    folder,
    names,
    pipeline_file,
    profile,
)


@pytest.fixture(autouse=True)
def alone(own_folder):
    """Every test has a folder of its own."""


def test_a0_1_the_users_folder_is_found_and_forgotten(tensorcast, tmp_path):
    assert "custom_model" not in tensorcast("list", "pipelines").out
    (tmp_path / "custom_model").mkdir()
    text = PIPELINE.format(key="qwen3", body="    return model")
    (tmp_path / "custom_model" / "my.py").write_text(text)
    shown = tensorcast("list", "pipelines")
    assert shown.code == 0
    assert re.search(r"qwen3\s+custom_model/my\.py:3\b", shown.out)
    (tmp_path / "custom_model" / "my.py").unlink()
    (tmp_path / "custom_model").rmdir()
    assert "qwen3" not in tensorcast("list", "pipelines").out


def test_a0_2_a_pipeline_replaces_the_nine_steps():
    @tc.register_custom_model("llama")
    def two_steps(model):
        tc.wrap_model(model)
        tc.maybe_enable_mtp(model)

    assert names(tc.build_model(folder("llama"), HW)) == ["wrap_model", "maybe_enable_mtp"]
    with pytest.raises(tc.TransformationError, match="LlamaAttention has no attention kernel; the pipeline must run"):
        tc.simulate(folder("llama"), HW)


def test_a0_3_nine_steps_in_order_with_reasons():
    model = tc.build_model(folder("llama"), HW)
    assert names(model) == NINE
    steps = {step.name: step for step in model.steps}
    assert (steps["patch_moe"].status, steps["patch_moe"].reason) == ("skipped", "dense model: no MoE modules")
    assert {n for n, s in steps.items() if s.status == "skipped"} == {
        "maybe_enable_mtp", "patch_mla", "patch_moe", "quantize_model", "shard_model"
    }  # fmt: skip
    assert all(step.reason and step.seconds > 0 for step in model.steps)
    norm = next(change for change in steps["wrap_model"].changes if change[0] == "model.norm")
    assert norm[1] == "LlamaRMSNorm" and "rms_norm=" in norm[2], norm
    assert not steps["patch_moe"].changes


def test_a0_3_skip_replace_and_after():
    @tc.register_custom_model("llama")
    def some(model):
        noted = tc.step(lambda model: model.notes.append("own") or model)
        return tc.run_standard(model, skip={"patch_mla"}, after={"patch_moe": noted})

    model = tc.build_model(folder("llama"), HW)
    assert [n for n in names(model) if n in NINE] == [n for n in NINE if n != "patch_mla"]
    assert "own" in model.notes
    with pytest.raises(tc.TransformationError, match=r"unknown step 'patch_moa'.*patch_moe"):
        tc.run_standard(model, skip={"patch_moa"})


@pytest.mark.parametrize("seed", range(4))
def test_a0_4_exact_before_pattern_in_any_order(seed):
    keys = ["*", "deepseek_*", "deepseek_v3"]
    random.Random(seed).shuffle(keys)
    for key in keys:
        tc.register_custom_model(key, replace=True)(lambda model: model)
    assert tc.PIPELINES.match("deepseek_v3") == "deepseek_v3"
    assert tc.PIPELINES.match("deepseek_v32") == "deepseek_*"
    assert tc.PIPELINES.match("qwen3") == "*"


def test_a0_5_most_specific_pattern_or_an_error():
    for key in ("deepseek_v?", "deepseek_v*", "a*c", "ab*"):
        tc.register_custom_model(key, replace=True)(lambda model: model)
    assert tc.PIPELINES.match("deepseek_v3") == "deepseek_v?"
    with pytest.raises(tc.AmbiguousMatchError) as ambiguous:
        tc.PIPELINES.match("abc")
    assert all(part in str(ambiguous.value) for part in ("'a*c'", "'ab*'", "test_a0.py:"))


def test_a0_6_twice_is_an_error_unless_replaced(run):
    tc.register_custom_model("bailing_moe")(lambda model: model)
    with pytest.raises(ValueError, match=r"registered twice: at .*test_a0\.py:\d+ and at .*test_a0\.py:\d+"):
        tc.register_custom_model("bailing_moe")(lambda model: model)
    second = tc.register_custom_model("bailing_moe", replace=True)(lambda model: model)
    assert tc.PIPELINES.get("bailing_moe") is second
    code, out, _ = run("list", "pipelines", "--json")
    row = next(r for r in json.loads(out) if r["model_type"] == "bailing_moe")
    assert code == 0 and "test_a0.py:" in row["replaces"]


def test_a0_7_spellings_meet_and_near_names_are_said(run):
    profile(
        "deepseek_v3",
        model_family="deepseek",
    )
    for name in ("deepseek-v3", "DeepSeek_V3", "deepseek_v3"):
        assert tc.get_model_profile(name).model_family == "deepseek"
    code, _, err = run("simulate", "--model", "deepseek-v9", "--hw", "ascend-910b")
    assert code == 2 and err.count("\n") == 1
    assert "unknown model 'deepseek-v9'" in err and "deepseek-v3" in err and "tensorcast list models" in err


# A pipeline with attention before rotary, and a replacement of its own.


def own_order(decorate):
    @tc.register_custom_model("llama", replace=True)
    def deploy(model):
        tc.wrap_model(model)
        tc.patch_attention(model)
        tc.patch_rotary_emb(model)
        decorate(custom_module_replacement)(model)
        return model

    return tc.build_model(folder("llama"), HW)


def custom_module_replacement(model):
    from torch import nn

    for path, _ in model.modules_of("LlamaMLP"):
        model.replace_module(path, nn.Linear(64, 64, bias=False))


def test_a0_8_any_order_and_own_steps_are_named():
    model = own_order(tc.step)
    assert names(model) == ["wrap_model", "patch_attention", "patch_rotary_emb", "custom_module_replacement"]
    own = model.steps[-1]
    change = next(change for change in own.changes if change[0] == "model.layers.3.mlp")
    assert own.status == "applied" and change[1].startswith("LlamaMLP") and change[2] == "Linear"
    layer = 2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 64 * 64  # norms, q and o, k and v, and one product for the MLP's three
    assert model.parameters == 2 * 320 * 64 + 64 + 4 * layer


def test_a0_8_a_function_that_is_no_step_is_seen_by_what_it_changes():
    model = own_order(lambda function: function)
    assert names(model) == ["wrap_model", "patch_attention", "patch_rotary_emb", "custom"]
    assert model.steps[-1].matched == len(model.steps[-1].changes) == 20  # each MLP, its 3 products and activation


def test_a0_9_an_unmet_demand_is_an_error_and_can_be_waived(run):
    asked = ("simulate", "--model", folder("llama"), "--hw", HW, "--tp", "2", "--input-len", "32", "--output-len", "2")
    steps = ("tc.wrap_model(model)", "tc.patch_rotary_emb(model)", "tc.patch_attention(model)")
    pipeline_file("llama", *steps)
    code, _, err = run(*asked)
    assert code == 2 and err.count("\n") == 1
    assert "the pipeline for 'llama' (custom_model/my.py:3) did not run shard_model but --tp 2 was asked" in err


def test_a0_9_a_waived_demand_is_a_printed_note(run):
    asked = ("simulate", "--model", folder("llama"), "--hw", HW, "--tp", "2", "--input-len", "32", "--output-len", "2")
    steps = ("tc.wrap_model(model)", "tc.patch_rotary_emb(model)", "tc.patch_attention(model)")
    pipeline_file("llama", *steps, "model.waive('shard_model', 'cut by hand')")
    code, out, err = run(*asked, "--json", "-")
    assert code == 0, err
    assert "shard_model waived: cut by hand" in " ".join(json.loads(out)["warnings"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quant": "w8a8"}, "did not run quantize_model but --quant"),
        ({"kernel": "swiglu=fused"}, "no swiglu slot"),
        ({"kernel": "attention@*.layers.9.*=flash"}, "attention"),
    ],
)
def test_a0_9_demands_for_formats_and_kernels(options, message):
    @tc.register_custom_model("llama")
    def attention_only(model):
        tc.patch_attention(model)

    with pytest.raises(tc.TensorcastError, match=message):
        tc.build_model(folder("llama"), HW, **options)


def test_a0_9_drafts_are_a_demand_and_a_kernel_can_be_waived():
    @tc.register_custom_model("deepseek_v3")
    def attention_only(model):
        model.waive("swiglu", "this family's feed-forward is its own")
        tc.patch_attention(model)

    config = folder("deepseek_v3", num_nextn_predict_layers=1)
    with pytest.raises(tc.DeploymentError, match="did not run maybe_enable_mtp but --mtp 1 was asked"):
        tc.build_model(config, HW, mtp=1)
    model = tc.build_model(config, HW, kernel="swiglu=fused")
    assert "kernel swiglu=fused waived: this family's feed-forward is its own" in model.notes
    with pytest.raises(tc.TransformationError, match=r"waive 'shard_modle'.*shard_model"):
        model.waive("shard_modle", "")


def test_a0_10_steps_return_the_model_or_nothing():
    for result in (lambda m: m, lambda m: None):
        tc.register_custom_model("llama", replace=True)(lambda m, result=result: result(m))
        assert names(tc.build_model(folder("llama"), HW)) == []

    @tc.step
    def wrong_step(model):
        return 7

    tc.register_custom_model("llama", replace=True)(wrong_step)
    with pytest.raises(tc.TransformationError, match="step wrong_step returned int; it must return the model or None"):
        tc.build_model(folder("llama"), HW)
    tc.register_custom_model("llama", replace=True)(lambda m: "done")
    with pytest.raises(tc.TransformationError, match=r"the pipeline for 'llama' \(.*\) returned str"):
        tc.build_model(folder("llama"), HW)


def test_a0_10_an_exception_of_a_pipeline_is_one_line_with_its_place(run):
    pipeline_file("llama", "tc.wrap_model(model)", "model.no_such_thing()")
    lengths = ("--input-len", "32", "--output-len", "2")
    code, _, err = run("simulate", "--model", folder("llama"), "--hw", HW, *lengths)
    assert code == 2 and err.count("\n") == 1
    assert "custom_model/my.py:6" in err and "no_such_thing" in err


# -- steps with arguments ----------------------------------------------------------------------------------------------


def test_a0_27_a_broken_file_is_loud_and_can_be_left_out(run):
    custom_file("import tensorcast as tc\n\ndef broken(:\n", "bad.py")
    asked = ("simulate", "--model", folder("llama"), "--hw", HW, "--input-len", "32", "--output-len", "2")
    code, _, err = run(*asked)
    assert code == 2 and err.count("\n") == 1
    assert "custom_model/bad.py:3" in err and "--no-custom-dir" in err
    assert run(*asked, "--no-custom-dir")[0] == 0


def test_default_dtype_is_restored_when_a_step_raises():
    import torch

    tc.register_custom_model("llama")(lambda model: 1 / 0)
    before = torch.get_default_dtype()
    with contextlib.suppress(tc.TransformationError):
        tc.build_model(folder("llama"), HW)
    assert torch.get_default_dtype() is before
