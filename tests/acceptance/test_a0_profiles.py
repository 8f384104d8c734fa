"""Profiles and replaced parts: what structure does not show (tests A0.11-A0.16)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tensorcast as tc
from tests.acceptance import foreign
from tests.acceptance.deploying import (
    DEEPSEEK,
    HW,
    NINE,
    SHARED,
    calls,
    folder,
    names,
    profile,
    toy_profile,
)
from tests.verify.tiny import TINY


@pytest.fixture(autouse=True)
def alone(own_folder):
    """Every test has a folder of its own."""


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
    asked = ("simulate", "--model", "./toy", "--hw", HW, "--input-len", "64", "--output-len", "4", "--json", "-")
    done = tensorcast(*asked)
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
        place = rf"profile 'llama': {hook} \(.*test_a0_profiles\.py:\d+\): KeyError"
        with pytest.raises(tc.TransformationError, match=place):
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
    assert code == 2 and "--seq-lens: llama mixes tokens of one row" in err and "deploying.py:" in err
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
