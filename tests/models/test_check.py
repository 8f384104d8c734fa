"""Every way a configuration can be broken is one line: the file, the field, the value, what would work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tensorcast.errors import ModelError
from tensorcast.models.check import check_config, read_json
from tensorcast.models.reference import resolve_model

GOOD = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 1000,
    "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "layer_types": ["full_attention"] * 2,
}  # fmt: skip
CONFIGS = Path(__file__).resolve().parents[2].parent / "shared" / "model_configs"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("  \n", "the file is empty"),
        ('{"model_type": "llama", "hidden', "cut short"),
        ('{"model_type": "llama"', "cut short"),
        ("hidden_size = 64", "not JSON.*line 1"),
        ("<html>", "HTML page"),
        ("version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        ("[1, 2]", "JSON list, not an object"),
        ("{}", "configuration is empty"),
        ("\ufeff\x00", "not JSON"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"config.json|{tmp_path.name}") as refused:
        resolve_model(str(tmp_path))
    refused.match(message)
    assert "\n" not in str(refused.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ModelError, match=r"no config.json"):
        resolve_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"no such file"):
        resolve_model(str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_bytes(b"\x80\x81\xff")
    with pytest.raises(ModelError, match=r"not a text file"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_hidden_layers": "61"}, "num_hidden_layers is '61' .string.; .* write 61 without quotes"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True .boolean."),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a positive whole number"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": 64.5}, "hidden_size is 64.5"),
        ({"vocab_size": [1000, "x"]}, "vocab_size is 'x'"),
        ({"intermediate_size": {}}, "intermediate_size is {} .object."),
        (
            {"num_key_value_heads": 7},
            "num_attention_heads 16 is not a multiple of num_key_value_heads 7; .* 1, 2, 4, 8, 16",
        ),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok 9 is more than num_experts 8"),
        ({"num_experts": -1}, "num_experts is -1; it must be a whole number, zero or more"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries but num_hidden_layers is 2"),
        ({"layer_types": "full"}, "layer_types is a string; it must be a list"),
        ({"head_dim": None, "hidden_size": 65}, "hidden_size 65 is not a multiple of num_attention_heads 16"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"num_hidden_layers": None, "layer_types": None}, "num_hidden_layers is missing"),
        ({"num_attention_heads": None}, "num_attention_heads is missing"),
        ({"model_type": None, "architectures": None}, "neither model_type nor architectures"),
        ({"model_type": 3}, "model_type is 3"),
        ({"architectures": "X"}, "architectures is 'X'; it must be a list"),
        ({"text_config": []}, "text_config is \\[\\]; it must be an object"),
        ({"text_config": {"num_hidden_layers": "2"}}, "text_config.num_hidden_layers is '2'"),
    ],
)
def test_broken_fields(change, message):
    with pytest.raises(ModelError, match=f"^toy/config.json: {message}") as refused:
        check_config(GOOD | change, "toy/config.json")
    assert "\n" not in str(refused.value)


def test_a_good_configuration_passes():
    check_config(GOOD, "toy")


def test_diffusers_folders_are_told_apart(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the pipeline has no config.json; looked for .*transformer/config.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    assert resolve_model(str(tmp_path)).phases == ("denoise",)
    with pytest.raises(ModelError, match=r"the pipeline FluxPipeline, not one of its modules"):
        check_config({"_class_name": "FluxPipeline"}, "x")


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="no folder of published configurations beside the checkout")
def test_every_published_configuration_passes():
    files = [path for path in CONFIGS.glob("llm*/**/*config.json") if "hf_quant" not in path.name]
    assert len(files) > 50
    for path in files:
        check_config(json.loads(path.read_text()), path.name)
