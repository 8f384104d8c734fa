"""Profiles, pipelines and steps: a user's own structure and order of deployment (tests A0.1-A0.21, A0.27)."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

import tensorcast as tc
from tests.acceptance import foreign
from tests.verify.tiny import TINY

HW = "h100-sxm"
NINE = [
    "wrap_model", "maybe_enable_mtp", "maybe_reuse_layers", "patch_rotary_emb", "patch_attention", "patch_mla",
    "patch_moe", "quantize_model", "shard_model",
]  # fmt: skip
DEEPSEEK = "transformers.models.deepseek_v3.modeling_deepseek_v3"
SHARED = {"shared_experts": "shared_expert"}


@pytest.fixture(autouse=True)
def alone(own_folder):
    """Every test has a folder of its own."""


def folder(name: str, **changes) -> str:
    """A folder with the configuration of a tiny model, made in the current directory."""
    where = Path(name)
    where.mkdir(exist_ok=True)
    (where / "config.json").write_text(json.dumps(TINY[name] | changes))
    return f"./{name}"


def custom_file(text: str, name: str = "my.py") -> None:
    Path("custom_model").mkdir(exist_ok=True)
    (Path("custom_model") / name).write_text(text)


def profile(model_type: str, **fields) -> tc.ModelProfile:
    return tc.register_model_profile(tc.ModelProfile(model_type=model_type, **fields))


def toy_profile(**fields) -> tc.ModelProfile:
    known = {"moe_module_name": "ToyMoE", "moe_field_names_override": SHARED}
    return profile("toy_moe", **known | fields)


def calls(model, phase: str = "prefill", batch: int = 1, tokens: int = 64, past: int = 0) -> Counter:
    """Operator → how many times it runs, all layers together."""
    from tensorcast.trace.run import trace_step

    found = Counter()
    for call in trace_step(model, phase, batch, tokens, past).calls:
        found[call.op] += len(call.layers or [0])
    return found


def names(model) -> list[str]:
    return [step.name for step in model.steps]


# -- pipelines ---------------------------------------------------------------------------------------------------------

PIPELINE = """import tensorcast as tc

@tc.register_custom_model("{key}")
def deploy(model):
{body}
"""


def pipeline_file(key: str, *lines: str) -> None:
    custom_file(PIPELINE.format(key=key, body="\n".join(f"    {line}" for line in lines)))


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


def my_moe():
    from torch import nn

    class MyMoE(nn.Module):
        """The old block's parts, without its shared experts."""

        def __init__(self, old):
            super().__init__()
            self.gate, self.experts = old.gate, old.experts

        def forward(self, x):
            _, weights, chosen = self.gate(x)
            return self.experts(x.view(-1, x.shape[-1]), chosen, weights).view(x.shape)

    return MyMoE


def test_a0_11_every_moe_block_becomes_the_class_given():
    @tc.register_custom_model("deepseek_v3")
    def deploy(model):
        return tc.run_standard(model, replace={"patch_moe": lambda m: tc.patch_moe(m, moe_layer=my_moe())})

    model = tc.build_model("deepseek-v3", HW)
    assert len(model.modules_of("MyMoE")) == 58 and not model.modules_of("DeepseekV3MoE")
    step = next(s for s in model.steps if s.name == "patch_moe")
    assert step.matched == 58
    assert sum(old == "DeepseekV3MoE" and new.startswith("MyMoE") for _, old, new in step.changes) == 58
    assert model.parameters == 671_026_404_352 - 58 * 44_040_192  # without the shared experts
    ran = calls(model)
    assert ran["moe_experts"] == ran["moe_route"] == 58


def test_a0_11_attention_and_mla_can_be_replaced_too():
    from torch import nn

    class Whole(nn.Module):
        def __init__(self, old):
            super().__init__()
            self.o_proj = old.o_proj

        def forward(self, hidden_states, **options):
            return self.o_proj(hidden_states), None

    for name, kind, replaced in (
        ("llama", "LlamaAttention", lambda m: tc.patch_attention(m, attention=Whole)),
        ("deepseek_v3", "DeepseekV3Attention", lambda m: tc.patch_mla(m, mla=Whole)),
    ):
        step = "patch_attention" if name == "llama" else "patch_mla"
        tc.register_custom_model(name)(lambda m, s=step, r=replaced: tc.run_standard(m, replace={s: r}))
        model = tc.build_model(folder(name), HW)
        assert len(model.modules_of("Whole")) == 4 and not model.modules_of(kind)
        assert calls(model)["attention"] == 0
        assert not [slot for slot in model.slots.values() if "self_attn" in slot.path]
    with pytest.raises(tc.TransformationError, match="no mla modules to replace by Whole"):
        tc.register_custom_model("llama", replace=True)(lambda m: tc.patch_mla(m, mla=Whole))
        tc.build_model(folder("llama"), HW)


def test_a0_11_a_layer_with_a_list_of_experts_of_its_own():
    class FewerMoE(foreign.ToyMoE):
        def __init__(self, old):
            super().__init__(foreign.ToyConfig(num_local_experts=4))
            self.shared_expert = old.shared_expert

    def fewer(model):
        return tc.run_standard(model, replace={"patch_moe": lambda m: tc.patch_moe(m, moe_layer=FewerMoE)})

    tc.register_custom_model("toy_moe")(fewer)
    toy_profile(moe_gate_returns_raw_logits=True)
    model = tc.build_model(foreign.ToyConfig(), HW)
    stacked = model.module.get_submodule("model.layers.3.mlp.experts")
    assert tuple(stacked.down_proj.shape) == (4, foreign.HIDDEN, foreign.INTER)
    assert calls(model)["moe_experts"] == calls(model)["moe_route"] == foreign.LAYERS
    tc.register_custom_model("llama")(fewer)
    with pytest.raises(tc.TransformationError, match="no MoE blocks to replace by FewerMoE"):
        tc.build_model(folder("llama"), HW)


# -- profiles: mixture of experts --------------------------------------------------------------------------------------

A0_12 = """import tensorcast as tc
from tests.acceptance import foreign

tc.register_model_profile(tc.ModelProfile(
    model_type="toy_moe", moe_module_name="ToyMoE", moe_num_experts_key="num_local_experts",
    moe_gate_returns_raw_logits=True, moe_field_names_override={"shared_experts": "shared_expert"},
))
"""


def test_a0_12_a_users_profile_counts_on_the_first_build(tensorcast, tmp_path):
    (tmp_path / "custom_model").mkdir()
    (tmp_path / "custom_model" / "my_moe.py").write_text(A0_12)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text(json.dumps(foreign.ToyConfig().to_dict()))
    root = str(Path(__file__).parents[2])
    asked = ("simulate", "--model", "./toy", "--hw", HW, "--input-len", "64", "--output-len", "4", "--json", "-")
    done = tensorcast(*asked, PYTHONPATH=root)
    assert done.code == 0, done.err
    steps = {s["name"]: s for s in json.loads(done.out)["steps"]}
    assert (steps["patch_moe"]["status"], steps["patch_moe"]["matched"]) == ("applied", foreign.LAYERS)
    assert "profile 'toy_moe' from custom_model/my_moe.py" in done.out


@pytest.mark.parametrize("name", ["DeepseekV3MoE", f"{DEEPSEEK}.DeepseekV3MoE"])
def test_a0_13_class_names_bare_or_dotted(name):
    plain = tc.build_model(folder("deepseek_v3"), HW)
    tc.register_model_profile(tc.ModelProfile(model_type="deepseek_v3", moe_module_name=name), replace=True)
    named = tc.build_model(folder("deepseek_v3"), HW)
    assert [s.to_dict() for s in named.steps] == [s.to_dict() for s in plain.steps]
    assert calls(named) == calls(plain) and calls(named)["moe_experts"] == 3


@pytest.mark.parametrize("field", ["moe_module_name", "mla_module_name"])
def test_a0_13_a_class_that_is_not_there(field):
    tc.register_model_profile(tc.ModelProfile(model_type="deepseek_v3", **{field: "NoSuchMoE"}), replace=True)
    with pytest.raises(tc.TransformationError) as missing:
        tc.build_model(folder("deepseek_v3"), HW)
    assert str(missing.value).startswith("profile 'deepseek_v3': no module of class NoSuchMoE; classes seen: ")
    assert "DeepseekV3MoE" in str(missing.value)


def test_a0_14_names_of_parts():
    toy_profile(moe_field_names_override=None)
    with pytest.raises(tc.TransformationError, match=r"no 'shared_experts' for shared_experts.*'shared_expert'} would"):
        tc.build_model(foreign.ToyConfig(), HW)
    tc.register_model_profile(
        tc.ModelProfile(model_type="toy_moe", moe_module_name="ToyMoE", moe_field_names_override=SHARED), replace=True
    )
    assert tc.build_model(foreign.ToyConfig(), HW).steps[6].matched == foreign.LAYERS
    with pytest.raises(ValueError, match="unknown field 'shard_experts'; nearest: shared_experts"):
        tc.ModelProfile(model_type="toy_moe", moe_module_name="ToyMoE", moe_field_names_override={"shard_experts": "x"})


def test_a0_14_a_list_of_experts_needs_a_profile():
    with pytest.raises(
        tc.TransformationError,
        match=r"model.layers.0.mlp: a list of equal experts .* in ToyMoE; register",
    ):
        tc.build_model(foreign.ToyConfig(), HW)


def test_a0_14_a_part_that_nobody_names_is_an_error():
    toy_profile(moe_field_names_override={"shared_experts": None, "shared_experts_gate": None})
    with pytest.raises(tc.TransformationError, match=r"model.layers.0.mlp .ToyMoE. has other parts: shared_expert;"):
        tc.build_model(foreign.ToyConfig(), HW)


def test_a0_14_a_list_of_experts_is_conserved_cut_and_quantised():
    toy_profile(moe_gate_returns_raw_logits=True)
    config = foreign.ToyConfig()
    model = tc.build_model(config, HW)
    expert = 3 * foreign.HIDDEN * foreign.INTER
    whole = sum(p.numel() for p in foreign.ToyForCausalLM(config).parameters())
    assert model.parameters == whole
    idle = foreign.LAYERS * (foreign.EXPERTS - foreign.TOP_K) * expert
    assert model.active_parameters == whole - idle
    assert model.weight_bytes == 2 * whole
    cut = tc.build_model(config, HW, tp=2, ep=2, quant="w8a8")
    experts = cut.module.get_submodule("model.layers.0.mlp.experts")
    assert tuple(experts.gate_up_proj.shape) == (foreign.EXPERTS // 2, 2 * foreign.INTER, foreign.HIDDEN)
    assert cut.quantised["model.layers.0.mlp.experts"].label == "w8a8"
    assert "model.layers.0.mlp.gate" not in cut.quantised  # a router is never quantised
    assert calls(cut)["moe_experts"] == foreign.LAYERS
    once = len(tc.build_model(config, HW, reuse=False).stacks[0].layers)
    assert once == foreign.LAYERS


def test_a0_14_experts_cost_what_transformers_own_form_costs():
    """The same sizes as a list of modules and as stacked parameters: one and the same operator."""
    from tensorcast.ops import operator_named
    from tensorcast.trace.run import trace_step

    toy_profile(moe_gate_returns_raw_logits=True)
    sizes = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48, mlp_only_layers=[], dtype="bfloat16")
    stacked, listed = tc.build_model(folder("qwen3_moe", **sizes), HW), tc.build_model(foreign.ToyConfig(), HW)

    def flops(model):
        found = [c for c in trace_step(model, "prefill", 1, 64, 0).calls if c.op == "moe_experts"]
        return [(c.dims, float(operator_named(c.op).work(c.dims, c.attrs).matrix_flops)) for c in found]

    assert flops(listed) == flops(stacked)
    assert flops(listed)[0][1] == 2 * 64 * 2 * 3 * 64 * 48


@pytest.mark.parametrize("key", ["text_config.num_experts", ["text_config", "num_experts"]])
def test_a0_15_key_of_the_expert_count_by_path(key):
    assert tc.ModelProfile(model_type="x", moe_num_experts_key=key).moe_num_experts_key == (
        "text_config",
        "num_experts",
    )


@pytest.mark.parametrize(
    "key, message",
    [
        ("num_local_expert", "the configuration has no 'num_local_expert'; nearest: num_local_experts"),
        ("text_config.num_experts", "the configuration has no 'text_config'"),
        ("num_experts_per_tok", "'num_experts_per_tok' is 2, but model.layers.0.mlp has 8 experts"),
    ],
)
def test_a0_15_the_expert_count_is_checked(key, message):
    toy_profile(moe_num_experts_key=key)
    with pytest.raises(tc.TransformationError, match=re.escape(message)):
        tc.build_model(foreign.ToyConfig(), HW)


def test_a0_16_raw_logits_get_one_selection_a_layer():
    toy_profile(moe_gate_returns_raw_logits=True)
    ran = calls(tc.build_model(foreign.ToyConfig(), HW))
    assert ran["moe_route"] == foreign.LAYERS
    assert not [op for op in ran if "softmax" in op or "topk" in op]


def test_a0_16_without_it_only_what_the_gate_itself_runs():
    toy_profile()
    model = tc.build_model(foreign.ToyConfig(), HW)
    ran = calls(model)
    assert ran["moe_route"] == 0 and not [op for op in ran if "softmax" in op or "topk" in op]
    assert any("nothing picks the experts" in note for note in model.notes)
    profile("gated_moe", moe_module_name="GatedMoE", moe_field_names_override=SHARED)
    ran = calls(tc.build_model(foreign.GatedConfig(), HW))
    assert ran["moe_route"] == 0
    assert sum(n for op, n in ran.items() if "softmax" in op) == foreign.LAYERS
    assert sum(n for op, n in ran.items() if "topk" in op) == foreign.LAYERS


def test_a0_16_a_class_that_says_what_one_expert_is():
    from torch import nn

    class Expert(nn.Module):
        def __init__(self, experts, index):
            super().__init__()
            old = experts[index]
            self.gate_up, self.down = nn.Linear(64, 2 * 24, bias=False), nn.Linear(24, 64, bias=False)
            assert old is experts[index]

    toy_profile(custom_expert_module_type=Expert)
    model = tc.build_model(foreign.ToyConfig(), HW)
    assert tuple(model.module.get_submodule("model.layers.0.mlp.experts").gate_up_proj.shape) == (8, 48, 64)
    whole = sum(p.numel() for p in foreign.ToyForCausalLM(foreign.ToyConfig()).parameters())
    assert model.parameters == whole - foreign.LAYERS * 8 * 3 * 64 * 24


# -- profiles: everything else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model_type": ""}, "model_type must be a non-empty string"),
        ({"moe_module_name": 3}, "moe_module_name must be a non-empty string, not 3"),
        ({"config_patch": "x"}, "config_patch must be callable"),
        ({"packed": "no"}, "packed must be True or False"),
        ({"tp_plan": {"*.q": "colwise"}}, "style 'colwise' of '\\*.q' in tp_plan; one of column"),
        ({"tp_plan": ["*.q"]}, "tp_plan must be a mapping"),
        ({"kernels": {"attention": 1}}, "'attention' must be a non-empty string"),
        ({"custom_expert_module_type": 5, "moe_module_name": "X"}, "must be a class, not 5"),
        ({"visual": {"vision_path": "v"}}, "visual must be a VisualConfig"),
        ({"moe_num_experts_key": []}, "moe_num_experts_key must be a dotted path"),
        ({"moe_gate_returns_raw_logits": True}, "moe_gate_returns_raw_logits without moe_module_name"),
        (
            {"mla_module_name": "X", "mla_field_names_override": {"q_prj": "y"}},
            "unknown field 'q_prj'; nearest: q_p",
        ),
        ({"mla_module_name": "X", "mla_field_names_override": {"q_proj": None, "q_a_proj": None}}, "q_proj, or all of"),
    ],
)
def test_profiles_are_checked_when_they_are_registered(fields, message):
    with pytest.raises(tc.InputError, match=message):
        tc.ModelProfile(**{"model_type": "mine"} | fields)


def test_registering_something_else_is_refused():
    with pytest.raises(tc.InputError, match="register_model_profile takes a ModelProfile"):
        tc.register_model_profile({"model_type": "x"})
    with pytest.raises(tc.InputError, match="needs the model type"):
        tc.register_custom_model(lambda model: model)


def test_config_patch_runs_before_the_module_is_built():
    def shallow(config):
        config.num_hidden_layers = 2
        config.layer_types = None

    profile("lla*", config_patch=shallow)  # a pattern
    model = tc.build_model(folder("llama"), HW)
    assert len(model.main_stack.layers) == 2
    assert any("config_patch" in note for note in model.blueprint.notes)


def test_a_hook_that_raises_is_one_line_with_its_place():
    def broken(anything):
        raise KeyError("hidden")

    for hook in ("config_patch", "vl_patch_method"):
        tc.register_model_profile(tc.ModelProfile(model_type="llama", **{hook: broken}), replace=True)
        with pytest.raises(tc.TransformationError, match=rf"profile 'llama': {hook} \(.*test_a0\.py:\d+\): KeyError"):
            tc.build_model(folder("llama"), HW)


def test_vl_patch_method_runs_inside_wrap_model():
    from torch import nn

    def patch(model):
        model.replace_module("model.layers.0.mlp", nn.Linear(64, 64, bias=False))

    profile("llama", vl_patch_method=patch)
    model = tc.build_model(folder("llama"), HW)
    assert ("model.layers.0.mlp", "LlamaMLP", "Linear, linear_forward") in model.steps[0].changes


def test_layers_path_is_found_or_said():
    profile("llama", layers_path="model.layers")
    assert tc.build_model(folder("llama"), HW).main_stack.path == "model.layers"
    for path, message in (("model.layer", "nearest: model.layers"), ("model.norm", "not a list of layers")):
        tc.register_model_profile(tc.ModelProfile(model_type="llama", layers_path=path), replace=True)
        with pytest.raises(tc.TransformationError, match=message):
            tc.build_model(folder("llama"), HW)


def test_tp_plan_patterns_must_name_something():
    profile("llama", tp_plan={"*.mlp.gate_prj": "replicated"})
    with pytest.raises(tc.TransformationError, match=r"tp_plan '\*\.mlp\.gate_prj' matches no module"):
        tc.build_model(folder("llama"), HW, tp=2)


def test_visual_paths_keep_a_tower_whole_or_cut_it():
    text = {k: v for k, v in TINY["llama"].items() if k not in ("architectures", "dtype")}
    vision = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    config = {
        "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "text_config": text,
        "vision_config": vision, "image_token_index": 5, "vision_feature_layer": -1, "dtype": "bfloat16",
        "tie_word_embeddings": False, "vision_feature_select_strategy": "default", "image_seq_length": 4,
    }  # fmt: skip
    Path("llava").mkdir()
    (Path("llava") / "config.json").write_text(json.dumps(config))
    tower = "model.vision_tower"

    def width(visual):
        tc.register_model_profile(tc.ModelProfile(model_type="llava", visual=visual), replace=True)
        model = tc.build_model("./llava", HW, tp=2)
        return next(m.out_features for path, m in model.modules() if path.startswith(tower) and path.endswith(".fc1"))

    assert width(tc.VisualConfig(vision_path=tower, language_path="model.language_model")) == 64
    assert width(tc.VisualConfig(vision_path=tower, mlp_plan={"*.fc1": "column", "*.fc2": "row"})) == 32
    with pytest.raises(tc.TransformationError, match=r"vision_path 'model.tower' is no module"):
        width(tc.VisualConfig(vision_path="model.tower"))


def test_packed_false_refuses_ragged_lengths(run):
    profile("llama", packed=False)
    asked = ("simulate", "--model", folder("llama"), "--hw", HW, "--output-len", "2")
    code, _, err = run(*asked, "--seq-lens", "16,32")
    assert code == 2 and "--seq-lens: llama mixes tokens of one row" in err and "test_a0.py:" in err
    assert run(*asked, "--batch", "2", "--input-len", "32")[0] == 0


def test_the_worked_example():
    path = Path(__file__).parents[2] / "custom_model" / "bailing_like.py"
    model = tc.build_model(foreign.BailingConfig(), HW, custom=str(path), tp=2, ep=2, quant="w8a8")
    assert names(model) == [*NINE[:7], "require_shared_experts", *NINE[7:]]
    ran = calls(model)
    assert ran["moe_experts"] == ran["moe_route"] == ran["attention"] == ran["rotary"] == foreign.LAYERS
    assert len(model.modules_of("SeparateAttention")) == foreign.LAYERS
    whole = tc.build_model(foreign.BailingConfig(), HW, custom=str(path))
    assert whole.parameters == sum(p.numel() for p in foreign.BailingForCausalLM(foreign.BailingConfig()).parameters())
    assert any(note.startswith("pipeline 'bailing_like*' from") for note in model.notes)


# -- drafts, reuse, latents, quantisation ------------------------------------------------------------------------------


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
