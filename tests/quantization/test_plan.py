import pytest

from tensorcast.errors import DeploymentError, UnknownNameError
from tensorcast.quantization.plan import QuantPlan, plan_from_request
from tensorcast.quantization.schemes import SCHEMES, QuantSpec

LAYER = {
    "self_attn.q_proj": "linear",
    "self_attn.k_proj": "linear",
    "self_attn.v_proj": "linear",
    "self_attn.o_proj": "linear",
    "mlp.gate": "router",
    "mlp.experts": "experts",
    "mlp.shared_experts.gate_proj": "linear",
    "mlp.shared_expert_gate": "linear",
}
PATHS = {
    "model.embed_tokens": "embedding",
    **{f"model.layers.{n}.{name}": kind for n in range(2) for name, kind in LAYER.items()},
    "lm_head": "lm_head",
}
FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
A100 = {"fp32", "bf16", "fp16", "int8"}.__contains__
H100 = {"fp32", "bf16", "fp16", "int8", "fp8"}.__contains__


def test_linears_and_experts_are_quantised_and_nothing_else():
    specs = plan_from_request("w8a8").resolve(PATHS)
    assert set(specs.values()) == {SCHEMES["w8a8"]}
    left = {"model.embed_tokens", "lm_head"}
    left |= {f"model.layers.{n}.mlp.{gate}" for n in range(2) for gate in ("gate", "shared_expert_gate")}
    assert set(PATHS) - set(specs) == left


def test_lm_head_on_request():
    assert "lm_head" in plan_from_request("w8a8", quant_lm_head=True).resolve(PATHS)


def test_exclude_by_segment_and_regex():
    specs = plan_from_request("w8a8", exclude=["q_proj", "re:.*shared_experts.*"]).resolve(PATHS)
    assert {path.split(".", 3)[3] for path in specs} == {
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.experts",
    }


def test_exclude_gate_leaves_gate_proj_quantised():
    specs = plan_from_request("w8a8", exclude=["gate"]).resolve(PATHS)
    assert "model.layers.0.mlp.shared_experts.gate_proj" in specs


def test_an_exclude_that_matches_nothing_is_an_error_with_near_names():
    with pytest.raises(DeploymentError, match=r"--exclude 'q_porj' matches no module; nearest: q_proj"):
        plan_from_request("w8a8", exclude=["q_porj"]).resolve(PATHS)
    with pytest.raises(DeploymentError, match="nothing is quantised"):
        plan_from_request("none", exclude=["gate"])


def table(names):
    return {
        "quantization_config": {
            "quant_method": "modelopt",
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {n: {"quant_algo": "FP8"} for n in names},
        }
    }


def test_a_table_of_layers_decides_even_for_lm_head():
    names = [
        "model.language_model.layers.0.self_attn.q_proj",
        "lm_head",
        *(
            f"model.language_model.layers.1.mlp.experts.{n}.{p}"
            for n in range(4)
            for p in ("gate_proj", "up_proj", "down_proj")
        ),
    ]
    specs = plan_from_request("auto", {**table(names), "num_experts": 4}).resolve(PATHS)
    assert set(specs) == {"model.layers.0.self_attn.q_proj", "lm_head", "model.layers.1.mlp.experts"}


def test_a_table_that_matches_nothing_is_an_error():
    with pytest.raises(DeploymentError, match=r"matches no module: it has h.0.attn.c_fc, the model has"):
        plan_from_request("auto", table(["h.0.attn.c_fc"])).resolve(PATHS)


def test_a_table_entry_missing_from_a_layer_that_is_there_is_an_error():
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_b_proj"]
    with pytest.raises(DeploymentError, match=r"q_b_proj, which the model has not; nearest: layers.0.self_attn.q_proj"):
        plan_from_request("auto", table(names)).resolve(PATHS)
    plan_from_request("auto", table([names[0], "model.layers.7.self_attn.q_b_proj"])).resolve(PATHS)


def test_fused_projections_take_the_format_of_their_parts():
    paths = {"model.layers.0.self_attn.qkv_proj": "linear"}
    names = [f"model.layers.0.self_attn.{p}_proj" for p in "qkv"]
    assert len(plan_from_request("auto", table(names)).resolve(paths)) == 1
    with pytest.raises(DeploymentError, match="one fused module"):
        plan_from_request("auto", table(names[:2])).resolve(paths)


def test_draft_layers_follow_the_checkpoints_list():
    paths = {**PATHS, "mtp.0.block.self_attn.q_proj": "linear", "mtp.0.eh_proj": "linear"}
    config = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": ["model.layers.2*"]}}
    assert not any(path.startswith("mtp") for path in plan_from_request("auto", config).resolve(paths))
    assert "mtp.0.block.self_attn.q_proj" in plan_from_request("auto", FP8).resolve(paths)


def test_auto_follows_the_checkpoint_where_the_machine_can():
    plan = plan_from_request("auto", FP8, machine_formats=H100)
    assert plan.schemes == ("fp8-block",)
    assert plan.source == "checkpoint quantization_config (fp8)"
    assert plan.notes == ()


def test_auto_falls_back_visibly():
    plan = plan_from_request("auto", FP8, machine_formats=A100)
    assert not plan.quantises and plan.resolve(PATHS) == {}
    assert plan.notes == (
        "this machine does not compute fp8: layers the checkpoint has as fp8-block are simulated "
        "with bf16 weights; nearest format it runs: --quant w8a8",
    )


def test_weight_only_formats_need_no_native_support():
    config = {"quantization_config": {"quant_method": "mxfp4"}}
    specs = plan_from_request("auto", config, machine_formats=A100).resolve(PATHS)
    assert {(spec.weight, spec.math) for spec in specs.values()} == {("mxfp4", "bf16")}
    assert set(specs) == {"model.layers.0.mlp.experts", "model.layers.1.mlp.experts"}


def test_a_format_asked_by_name_is_never_replaced():
    with pytest.raises(DeploymentError, match=r"--quant fp8: this machine does not compute fp8; nearest: w8a8; it"):
        plan_from_request("fp8", machine_formats=A100)
    with pytest.raises(DeploymentError, match=r"--attention-quant fp8: this machine does not compute fp8; it has"):
        plan_from_request("none", attention_quant="fp8", machine_formats=A100)
    with pytest.raises(UnknownNameError, match="nearest: w8a8"):
        plan_from_request("w8a88")


def test_kv_cache_format():
    config = {"quantization_config": {**FP8["quantization_config"], "kv_cache_quant_algo": "FP8"}}
    assert plan_from_request("auto", config).kv_cache == "fp8"
    assert plan_from_request("auto", config, kv_cache_dtype="bfloat16").kv_cache == "bf16"
    assert plan_from_request("w8a8", config).kv_cache == "bf16", "only auto reads the checkpoint"
    assert plan_from_request("none", dtype="float16").kv_cache == "fp16"
    assert plan_from_request("none", kv_cache_dtype="fp8", machine_formats=A100).kv_cache == "fp8", "storage only"
    with pytest.raises(DeploymentError, match="a KV cache in nvfp4 is not simulated; one of fp32, bf16"):
        plan_from_request("none", kv_cache_dtype="nvfp4")


def test_towers_beside_a_quantised_language_model_stay():
    plan = QuantPlan(rules=(("*", QuantSpec("int8")),), language_only=True)
    paths = {"model.language_model.layers.0.mlp.up_proj": "linear", "model.visual.blocks.0.mlp.fc1": "linear"}
    assert set(plan.resolve(paths)) == {"model.language_model.layers.0.mlp.up_proj"}


def test_a_plan_that_matches_no_module_is_an_error():
    with pytest.raises(DeploymentError, match="matches none of the 1 modules"):
        plan_from_request("auto", {"quantization_config": {"quant_method": "mxfp4"}}).resolve({"a.b": "linear"})
