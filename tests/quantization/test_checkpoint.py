import pytest

from tensorcast.errors import DeploymentError
from tensorcast.quantization.checkpoint import read_checkpoint
from tensorcast.quantization.schemes import SCHEMES, QuantSpec


def read(side=None, **body):
    return read_checkpoint({"quantization_config": body} if body else {}, side)


def spec(**body):
    (rule,) = read(**body).rules
    return rule[1]


def test_no_quantisation():
    assert read_checkpoint({}) is None
    assert read_checkpoint({"quantization_config": None}, None) is None


def test_fp8():
    assert spec(quant_method="fp8", weight_block_size=[128, 128], fmt="float8_e4m3fn") == SCHEMES["fp8-block"]
    assert spec(quant_method="fp8", activation_scheme="dynamic") == SCHEMES["fp8"]
    assert not spec(quant_method="fp8", activation_scheme="static").dynamic
    assert read(quant_method="fp8", modules_to_not_convert=["gate"]).skip == ("gate",)
    assert spec(weight_block_size=[128, 128]) == SCHEMES["fp8-block"], "a file without quant_method"


def test_fp4_experts_of_deepseek_v4():
    config = {"expert_dtype": "fp4", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert read_checkpoint(config).rules == (
        ("kind:experts", QuantSpec("mxfp4", "fp8", activation_group=128)),
        ("*", SCHEMES["fp8-block"]),
    )


def arguments(bits, kind="int", **other):
    return {"num_bits": bits, "type": kind, **other}


@pytest.mark.parametrize(
    "weights, activations, expected",
    [
        (arguments(8, strategy="channel"), arguments(8, dynamic=True, strategy="token"), SCHEMES["w8a8"]),
        (arguments(8, strategy="channel"), arguments(8, dynamic=False, strategy="tensor"), SCHEMES["w8a8-static"]),
        (arguments(8, strategy="channel"), None, SCHEMES["w8a16"]),
        (arguments(4, strategy="group", group_size=128), None, SCHEMES["w4a16"]),
        (arguments(4, strategy="group", group_size=128), arguments(8, dynamic=True), SCHEMES["w4a8"]),
        (arguments(8, "float", strategy="tensor"), arguments(8, "float", dynamic=True), SCHEMES["fp8"]),
        (
            arguments(8, "float", strategy="block", block_structure=[128, 128]),
            arguments(8, "float", dynamic=True, strategy="group", group_size=128),
            SCHEMES["fp8-block"],
        ),
        (arguments(4, "float", strategy="group", group_size=32), None, SCHEMES["mxfp4"]),
        (
            arguments(4, "float", strategy="tensor_group", group_size=16),
            arguments(4, "float", dynamic="local", group_size=16),
            SCHEMES["nvfp4"],
        ),
    ],
)
def test_compressed_tensors(weights, activations, expected):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    assert spec(quant_method="compressed-tensors", config_groups={"group_0": group}) == expected


def test_compressed_tensors_inside_the_language_model_governs_only_that():
    group = {"targets": ["Linear"], "weights": arguments(4, strategy="group", group_size=32)}
    body = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "ignore": ["re:.*self_attn.*"],
        "kv_cache_scheme": arguments(8, "float"),
    }
    quant = read_checkpoint({"text_config": {"quantization_config": body}})
    assert quant.language_only and quant.kv_cache == "fp8" and quant.skip == ("re:.*self_attn.*",)


@pytest.mark.parametrize(
    "algorithm, expected",
    [
        ("NVFP4", SCHEMES["nvfp4"]),
        ("W4A16_NVFP4", QuantSpec("nvfp4", "bf16")),
        ("MXFP8", QuantSpec("mxfp8", "mxfp8")),
        ("FP8", QuantSpec("fp8", "fp8", dynamic=False, weight_per_tensor=True)),
    ],
)
def test_modelopt(algorithm, expected):
    assert spec(quant_method="modelopt", quant_algo=algorithm, ignore=["lm_head"]) == expected


def test_the_side_file_speaks_where_the_config_is_silent():
    side = {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    alone = read_checkpoint({}, side)
    assert (alone.source, alone.kv_cache, alone.skip) == ("hf_quant_config.json (modelopt)", "fp8", ("lm_head",))
    both = read(side, quant_method="modelopt", quant_algo="FP8", ignore=["lm_head"])
    assert both.rules[0][1].weight == "fp8" and both.kv_cache == "fp8"
    assert both.notes == ("KV-cache format fp8 from hf_quant_config.json",)


def test_a_modelopt_file_without_exclusions_says_so():
    assert "lists no excluded modules" in read(quant_method="modelopt", quant_algo="FP8").notes[0]


def test_gptq_and_awq():
    assert spec(quant_method="gptq", bits=4, group_size=128, sym=True).weight_bytes(4096, 14336) == 30277632
    assert spec(quant_method="gptq", bits=8, group_size=-1).weight_group == 0
    assert spec(quant_method="awq", bits=4, group_size=128, zero_point=True).weight_zero_point
    assert read(quant_method="gptq", dynamic={"-:.*down_proj": {}}).skip == ("re:.*down_proj",)


@pytest.mark.parametrize(
    "body, message",
    [
        ({"quant_method": "aqlm"}, r"unknown quant_method 'aqlm'; we read fp8, .*awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes splits activations"),
        ({"format": "x"}, "names no quant_method and has only format"),
        ({"quant_method": "modelopt", "quant_algo": "NVPF4"}, "unknown quant_algo 'NVPF4'; nearest: NVFP4"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "does not say which layer"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 32}, "groups of 16 by definition, not 32"),
        ({"quant_method": "gptq", "bits": 3}, "3 bits is not simulated"),
        ({"quant_method": "gptq", "dynamic": {"+:x": {"bits": 8}}}, "override '\\+:x' is not read"),
        ({"quant_method": "fp8", "modules_to_not_convert": "gate"}, "must be a list"),
        ({"quant_method": "fp8", "activation_scheme": "often"}, "unknown activation_scheme"),
        ({"quant_method": "compressed-tensors"}, "no config_groups"),
    ],
)
def test_what_cannot_be_honoured_is_named(body, message):
    with pytest.raises(DeploymentError, match=message):
        read(**body)


def test_single_experts_cannot_have_their_own_format():
    config = {
        "num_experts": 8,
        "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.experts.3"]},
    }
    with pytest.raises(DeploymentError, match=r"names 1 of 8 experts of layers.0.mlp.experts"):
        read_checkpoint(config)
