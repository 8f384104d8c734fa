from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tensorcast.errors import InputError, ModelError, UnknownNameError
from tensorcast.models import entries
from tensorcast.models.overrides import parse_override
from tensorcast.models.reference import resolve_model

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "tie_word_embeddings": True,
}  # fmt: skip


def write(folder, config, name="config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / name


@pytest.mark.parametrize(
    "ref", ["deepseek-v3", "DeepSeek_V3", "deepseek v3", "deepseek-ai/DeepSeek-V3", "deepseek-v3-671b"]
)
def test_names_aliases_and_hub_ids_mean_the_catalogue(ref):
    source = resolve_model(ref)
    assert (source.name, source.origin) == ("deepseek-v3", "catalogue")
    assert source.expected_parameters == 671_026_404_352


def test_exact_name_parses_one_file(monkeypatch):
    parsed = []
    read = entries.read_entry
    monkeypatch.setattr(entries, "read_entry", lambda path: parsed.append(path.name) or read(path))
    resolve_model("qwen3-8b")
    assert parsed == ["qwen3-8b.yaml"]


def test_resolving_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from tensorcast.models.reference import resolve_model; resolve_model('deepseek-v3', layers=4);"
        "resolve_model('qwen3-8b', overrides={'hidden_size': 2048}); from tensorcast.models.entries import list_models;"
        "list_models(); print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_name_has_near_ones():
    with pytest.raises(UnknownNameError, match=r"'deepsek-v3'; nearest: deepseek-v3.*tensorcast list models"):
        resolve_model("deepsek-v3")


def test_folder_with_side_file(tmp_path):
    write(tmp_path / "toy", LLAMA | {"auto_map": {"AutoConfig": "x.Y"}, "transformers_version": "4.1"})
    write(tmp_path / "toy", {"quantization": {"quant_algo": "FP8"}}, "hf_quant_config.json")
    source = resolve_model(str(tmp_path / "toy"))
    assert source.config == LLAMA
    assert source.quant_side == {"quantization": {"quant_algo": "FP8"}}
    assert (source.name, source.folder, source.has_remote_code) == ("toy", tmp_path / "toy", True)


def test_config_file_with_prefixed_side_file(tmp_path):
    path = write(tmp_path, LLAMA, "org--toy_config.json")
    write(tmp_path, {"quantization": {}}, "org--toy_hf_quant_config.json")
    source = resolve_model(str(path))
    assert (source.name, source.quant_side) == ("org--toy", {"quantization": {}})


def test_auto_map_is_stripped_from_nested_parts(tmp_path):
    write(tmp_path, {"model_type": "llava", "text_config": LLAMA | {"auto_map": {}}})
    assert "auto_map" not in resolve_model(str(tmp_path)).config["text_config"]


def test_catalogue_name_wins_over_a_folder_without_separator(tmp_path, monkeypatch):
    write(tmp_path / "qwen3-8b", LLAMA)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("qwen3-8b").origin == "catalogue"
    assert "write ./qwen3-8b" in resolve_model("qwen3-8b").notes[-1]
    assert resolve_model("./qwen3-8b").config == LLAMA


def test_local_folder_wins_over_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "Qwen").mkdir()
    write(tmp_path / "Qwen" / "Qwen3-8B", LLAMA)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("Qwen/Qwen3-8B").config == LLAMA


def test_overrides_and_their_errors():
    source = resolve_model("qwen3-8b", overrides={"num_hidden_layers": 4})
    assert source.config["num_hidden_layers"] == 4
    assert source.expected_parameters is None
    with pytest.raises(
        InputError, match=r"unknown configuration key 'num_hiden_layers' of qwen3-8b; nearest: num_hidden"
    ):
        resolve_model("qwen3-8b", overrides={"num_hiden_layers": 4})
    with pytest.raises(InputError, match=r"nearest: text_config.num_hidden_layers"):
        resolve_model("qwen3-vl-8b", overrides={"num_hidden_layers": 4})
    with pytest.raises(ModelError, match=r"with the changes asked for: num_attention_heads is 0"):
        resolve_model("qwen3-8b", overrides={"num_attention_heads": 0})


def test_a_field_of_the_config_class_may_be_set_though_the_file_leaves_it_out(tmp_path):
    write(tmp_path, LLAMA)
    assert resolve_model(str(tmp_path), overrides={"mlp_bias": True}).config["mlp_bias"] is True


def test_nested_override_leaves_the_original_alone():
    changed = resolve_model("deepseek-v3", overrides={"rope_parameters.factor": 2}).config
    assert changed["rope_parameters"]["factor"] == 2
    assert resolve_model("deepseek-v3").config["rope_parameters"]["factor"] == 40


@pytest.mark.parametrize(
    "text, expected",
    [("a.b=3", ("a.b", 3)), ("tie=true", ("tie", True)), ("x=[1, 2]", ("x", [1, 2])), ("act=silu", ("act", "silu"))],
)
def test_override_text(text, expected):
    assert parse_override(text) == expected
    with pytest.raises(InputError, match=r"write KEY=VALUE"):
        parse_override("novalue")


def test_layers_cuts_every_per_layer_list():
    config = resolve_model("gpt-oss-20b", layers=3).config
    assert (config["num_hidden_layers"], len(config["layer_types"])) == (3, 3)
    config = resolve_model("nemotron-3-nano-30b-a3b", layers=6).config
    assert (config["num_hidden_layers"], config["hybrid_override_pattern"]) == (6, "MEMEM*")
    assert resolve_model("qwen3-vl-8b", layers=2).config["text_config"]["num_hidden_layers"] == 2
    with pytest.raises(InputError, match=r"layers=62: deepseek-v3 has 61 layers; give 1 to 61"):
        resolve_model("deepseek-v3", layers=62)
    with pytest.raises(InputError, match=r"positive whole number"):
        resolve_model("deepseek-v3", layers=0)


def test_digest_follows_the_model_and_nothing_else(tmp_path):
    write(tmp_path / "a", LLAMA)
    write(tmp_path / "b", dict(reversed(LLAMA.items())) | {"transformers_version": "9"})
    a, b = resolve_model(str(tmp_path / "a")), resolve_model(str(tmp_path / "b"))
    assert a.digest == b.digest != resolve_model(str(tmp_path / "a"), layers=1).digest
    write(tmp_path / "b", {"quantization": {}}, "hf_quant_config.json")
    assert resolve_model(str(tmp_path / "b")).digest != a.digest


def test_revision_goes_with_the_hub_only():
    with pytest.raises(InputError, match=r"revision 'main' goes with a hub id only"):
        resolve_model("qwen3-8b", revision="main")
