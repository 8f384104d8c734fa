from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tensorcast as tc
from tensorcast.errors import InputError, ModelError
from tensorcast.models.build import build_blueprint, count_parameters
from tensorcast.models.reference import resolve_model

CONFIGS = Path(__file__).resolve().parents[2].parent / "shared" / "model_configs"
needs_configs = pytest.mark.skipif(not CONFIGS.is_dir(), reason="no published configurations beside the checkout")
TOY = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000,
    "tie_word_embeddings": True,
}  # fmt: skip


def build(tmp_path, config, **options):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return build_blueprint(resolve_model(str(tmp_path)), **options)


def test_tied_weights_count_once(tmp_path):
    blueprint = build(tmp_path, TOY)
    assert count_parameters(blueprint.module) == 138_112
    assert count_parameters(build(tmp_path, TOY | {"tie_word_embeddings": False}).module) == 138_112 + 64_000


def test_module_is_ready(tmp_path):
    blueprint = build(tmp_path, TOY)
    tensors = [*blueprint.module.parameters(), *blueprint.module.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert not blueprint.module.training and not any(p.requires_grad for p in blueprint.module.parameters())
    assert (blueprint.model_type, blueprint.architecture, blueprint.kind) == (
        "qwen3",
        "Qwen3ForCausalLM",
        "transformers",
    )


@pytest.mark.parametrize(
    "stated, asked, expected",
    [({}, None, "bfloat16"), ({"torch_dtype": "float16"}, None, "float16"), ({"dtype": "float32"}, None, "float32"),
     ({"dtype": "float32"}, "bf16", "bfloat16")],
)  # fmt: skip
def test_dtype(tmp_path, stated, asked, expected):
    blueprint = build(tmp_path, TOY | stated, dtype=asked)
    assert blueprint.dtype is getattr(torch, expected)
    assert {p.dtype for p in blueprint.module.parameters()} == {blueprint.dtype}


def test_dtype_that_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"dtype 'int8' .* use bfloat16, float16 or float32"):
        build(tmp_path, TOY, dtype="int8")


@needs_configs
def test_parameters_a_class_keeps_in_fp32():
    file = CONFIGS / "llm" / "deepseek-ai--DeepSeek-V4-Flash_config.json"
    module = build_blueprint(resolve_model(str(file))).module
    kept = {name.rpartition(".")[2] for name, p in module.named_parameters() if p.dtype is torch.float32}
    assert kept and len(kept) < 12


def test_two_builds_share_nothing(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TOY))
    source = resolve_model(str(tmp_path))
    before = json.dumps(source.config)
    first, second = build_blueprint(source), build_blueprint(source)
    assert first.config is not second.config
    assert json.dumps(source.config) == before


def test_composite_takes_the_published_class():
    assert type(build_blueprint(resolve_model("qwen3.5-27b")).module).__name__ == "Qwen3_5ForConditionalGeneration"


def test_kimi_k2_is_built_as_deepseek_v3():
    blueprint = build_blueprint(resolve_model("kimi-k2"))
    assert blueprint.model_type == "deepseek_v3"
    assert "built as deepseek_v3" in blueprint.notes[0]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "qwen33"}, "does not know model_type 'qwen33'; nearest: qwen3"),
        ({"model_type": "kimi_k3"}, "no model code for kimi_k3"),
        (
            {"model_type": "kimi_linear", "routed_expert_hidden_size": 32},
            "kimi_linear cannot hold this model: its class lacks latent experts .routed_expert_hidden_size 32.",
        ),
        ({"model_type": "kimi_linear", "hidden_act": "situ"}, "its class lacks the activation 'situ'"),
        ({"model_type": "minimax_m2", "shared_intermediate_size": 64}, "its class lacks a shared expert"),
        ({"model_type": "minimax_m2", "attn_type_list": [0, 1]}, "its class lacks linear attention"),
        ({"model_type": "mimo", "attention_bias": False}, "mimo cannot be built as qwen2: attention_bias is False"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "a.B"}}, "add --trust-remote-code"),
        (
            {"model_type": None, "architectures": ["Qwen33ForCausalLM"]},
            "no architecture 'Qwen33ForCausalLM'; nearest: Qwen3",
        ),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"layer_types": ["full_attention", "strange"]}, "refuses the configuration"),
    ],
)
def test_models_that_cannot_be_built(tmp_path, change, message):
    config = {key: value for key, value in (TOY | change).items() if value is not None}
    with pytest.raises(ModelError, match=message) as refused:
        build(tmp_path, config)
    assert "\n" not in str(refused.value)


def test_architecture_alone_is_enough(tmp_path):
    config = {key: value for key, value in TOY.items() if key != "model_type"}
    assert count_parameters(build(tmp_path, config).module) == 138_112


REMOTE = {
    "configuration_rem.py": """
from transformers import PretrainedConfig
class RemConfig(PretrainedConfig):
    model_type = "rem"
    hidden_size: int = 16
    vocab_size: int = 320
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    tie_word_embeddings: bool = True
""",
    "modeling_rem.py": """
from torch import nn
from transformers import PreTrainedModel
from .configuration_rem import RemConfig
class RemForCausalLM(PreTrainedModel):
    config_class = RemConfig
    base_model_prefix = "model"
    _tied_weights_keys = TIED
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mid = nn.Linear(config.hidden_size, 12, bias=False)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
    def get_input_embeddings(self): return self.embed
    def get_output_embeddings(self): return self.lm_head
""",
    "config.json": json.dumps(
        {
            "model_type": "rem",
            "architectures": ["RemForCausalLM"],
            "hidden_size": 16,
            "vocab_size": 320,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "tie_word_embeddings": True,
            "auto_map": {
                "AutoConfig": "configuration_rem.RemConfig",
                "AutoModelForCausalLM": "modeling_rem.RemForCausalLM",
            },
        }
    ),
}


def remote_folder(folder, tied):
    folder.mkdir()
    for name, text in REMOTE.items():
        (folder / name).write_text(text.replace("TIED", tied))
    return resolve_model(str(folder))


def test_remote_code_runs_only_when_trusted(tmp_path):
    source = remote_folder(tmp_path / "rem_dict", '{"lm_head.weight": "embed.weight"}')
    with pytest.raises(ModelError, match=r"add --trust-remote-code"):
        build_blueprint(source)
    assert count_parameters(build_blueprint(source, trust_remote_code=True).module) == 320 * 16 + 16 * 12


def test_version_4_tied_keys_are_explained(tmp_path):
    source = remote_folder(tmp_path / "rem_list", '["lm_head.weight"]')
    with pytest.raises(ModelError, match=r"uses a list; transformers >= 5 needs {'lm_head.weight': '<source>'}"):
        build_blueprint(source, trust_remote_code=True)


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    """As Python raises it, two errors deep; whatever of transformers is imported first."""

    def broken(name):
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as fault:
            raise ImportError("Could not import module 'PreTrainedModel'") from fault

    monkeypatch.setattr("tensorcast.models.library.import_module", broken)
    with pytest.raises(ModelError, match="torchvision does not match the installed torch; uninstall it or install"):
        tc.simulate("qwen3-0.6b", "h100-sxm", layers=1, cache=False)
    with pytest.raises(ModelError, match="torchvision does not match"):
        build_blueprint(resolve_model("qwen3-0.6b", layers=1))


def test_nothing_is_asked_and_nothing_printed(tmp_path):
    code = (
        "from tensorcast.models.build import build_blueprint; from tensorcast.models.reference import resolve_model;"
        "build_blueprint(resolve_model('llama-4-scout', layers=2))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_configs
@pytest.mark.parametrize(
    "file, parameters",
    [
        ("llm/nvidia--Llama-3_3-Nemotron-Super-49B-v1_config.json", 49_867_145_216),
        ("llm/sgl-project--DeepSeek-V4-Flash-FP8_config.json", 284_332_230_231),
        ("llm/deepseek-ai--DeepSeek-V4-Flash_config.json", 284_332_230_231),
        ("llm/MiniMaxAI--MiniMax-M3_config.json", 426_174_565_632),
        ("llm/XiaomiMiMo--MiMo-7B-Base_config.json", 7_622_619_136),
        ("llm/nvidia--Nemotron-H-56B-Base-8K_config.json", 56_324_350_464),
        ("llm/nvidia--Kimi-K2.6-NVFP4_config.json", 1_026_879_353_328),
    ],
)
def test_published_files_with_fixups(file, parameters):
    assert count_parameters(build_blueprint(resolve_model(str(CONFIGS / file))).module) == parameters


@needs_configs
def test_published_folders_count_as_transformers_counts():
    from transformers import AutoConfig, AutoModelForCausalLM

    for folder in sorted((CONFIGS / "llm_dirs").iterdir()):
        blueprint = build_blueprint(resolve_model(str(folder)))
        with torch.device("meta"):
            theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**blueprint.source.config))
        assert count_parameters(blueprint.module) == count_parameters(theirs), folder.name
        assert type(blueprint.module) is type(theirs)


def test_nemotron_nas_runs_with_left_out_parts(tmp_path):
    attention = {"no_op": False, "n_heads_in_group": 2}
    blocks = [
        {"attention": attention, "ffn": {"no_op": False, "ffn_mult": 6.0}},
        {"attention": {"no_op": True, "n_heads_in_group": None}, "ffn": {"no_op": False, "ffn_mult": 12.0}},
        {"attention": attention, "ffn": {"no_op": True, "ffn_mult": None}},
    ]
    config = TOY | {"model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"], "num_hidden_layers": 3}
    blueprint = build(tmp_path, config | {"block_configs": blocks, "attention_bias": False, "mlp_bias": False})
    attention_size, norm = 64 * 64 * 2 + 64 * 32 * 2, 64
    first, second, third = attention_size + 2 * norm + 3 * 64 * 256, norm + 3 * 64 * 512, attention_size + norm
    assert count_parameters(blueprint.module) == 64_000 + first + second + third + norm
    bad = [blocks[0] | {"attention": attention | {"replace_with_linear": True}}, *blocks[1:]]
    with pytest.raises(ModelError, match=r"block_configs\[0\]: replace_with_linear is not supported"):
        build(tmp_path, config | {"block_configs": bad})
