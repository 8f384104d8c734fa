"""The quantisation that published checkpoints state, against the modules that transformers builds for them."""

import json
from pathlib import Path

import pytest

from tensorcast.quantization.checkpoint import read_checkpoint
from tensorcast.quantization.plan import plan_from_request

CONFIGS = Path(__file__).resolve().parents[2].parent / "shared" / "model_configs" / "llm"
pytestmark = pytest.mark.skipif(not CONFIGS.is_dir(), reason="no published configurations beside the checkout")
ROUTERS = ("gate", "router")


def load(name):
    side = CONFIGS / f"{name}_hf_quant_config.json"
    return (
        json.loads((CONFIGS / f"{name}_config.json").read_text()),
        json.loads(side.read_text()) if side.exists() else None,
    )


def build(config):
    """The model on the meta device; no code from the hub, no weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = json.loads(json.dumps(config))
    for part in (config, *(v for v in config.values() if isinstance(v, dict))):
        part.pop("auto_map", None)
    made = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
    cls = getattr(transformers, config["architectures"][0], None)
    with torch.device("meta"):
        if cls is None:
            return transformers.AutoModelForImageTextToText.from_config(made, dtype=torch.bfloat16)
        return cls._from_config(made, dtype=torch.bfloat16)


def kinds_and_sizes(model):
    from torch import nn

    kinds, sizes = {}, {}
    for path, module in model.named_modules():
        last = path.rpartition(".")[2]
        if last in ROUTERS:
            kind = "router"
        elif last == "lm_head":
            kind = "lm_head"
        elif last == "experts":
            kind = "experts"
        elif isinstance(module, nn.Linear):
            kind = "linear"
        else:
            continue
        kinds[path], sizes[path] = kind, sum(p.numel() for n, p in module.named_parameters() if "bias" not in n)
    return kinds, sizes


def test_every_quantised_configuration_is_read():
    names = sorted(
        path.name.removesuffix("_config.json") for path in CONFIGS.glob("*_config.json") if "hf_quant" not in path.name
    )
    read = {name: read_checkpoint(*load(name)) for name in names}
    stated = {n for n in names if "quant_method" in (CONFIGS / f"{n}_config.json").read_text()}
    sided = {path.name.removesuffix("_hf_quant_config.json") for path in CONFIGS.glob("*_hf_quant_config.json")}
    assert {name for name, quant in read.items() if quant} == stated | sided


# Weight parameters by scheme, and the names of the linear modules left in 16 bit.
PUBLISHED = {
    "deepseek-ai--DeepSeek-V3": ({"fp8-block": 669_065_609_216}, {"gate", "lm_head"}),
    "Qwen--Qwen3-30B-A3B-FP8": ({"fp8-block": 29_896_998_912}, {"gate", "lm_head"}),
    "Qwen--Qwen3-32B-FP8-Static-PerTensor": ({"w:fp8 a:fp8 static": 31_205_621_760}, {"lm_head"}),
    "openai--gpt-oss-20b": (
        {"mxfp4": 24 * 32 * 3 * 2880 * 2880},
        {"q_proj", "k_proj", "v_proj", "o_proj", "router", "lm_head"},
    ),
    "nvidia--DeepSeek-V3.1-NVFP4": (
        {"nvfp4": 664_816_058_368},
        {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "gate", "lm_head"},
    ),
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4": (
        {"nvfp4": 30_491_811_840},
        {"in_proj", "out_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate", "lm_head"},
    ),
    "nvidia--DeepSeek-V4-Flash-NVFP4": (
        {"fp8-block": 5_857_345_536, "nvfp4": 43 * 256 * 3 * 4096 * 2048},
        {"gate", "gate_proj", "kv_proj", "weights_proj", "lm_head"},
    ),
    "nvidia--Qwen3.6-35B-A3B-NVFP4": (
        {
            "w:nvfp4 a:bf16": 40 * 257 * 3 * 2048 * 512 + 248_320 * 2048,  # experts, the shared one, lm_head
            "w:fp8 a:fp8 static": 30 * 2048 * (8192 + 4096 + 4096) + 10 * 2048 * (8192 + 512 + 512 + 4096),
        },
        {"in_proj_a", "in_proj_b", "gate", "shared_expert_gate", "qkv", "proj", "linear_fc1", "linear_fc2"},
    ),
    "zai-org--GLM-5-FP8": ({"fp8-block": 741_873_549_312}, {"gate", "lm_head", "weights_proj"}),
    "nvidia--Llama-3.1-70B-Instruct-FP8": ({"w:fp8 a:fp8 static": 68_451_041_280}, {"lm_head"}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_published_checkpoint_quantises(name):
    config, side = load(name)
    kinds, sizes = kinds_and_sizes(build(config))
    specs = plan_from_request("auto", config, side).resolve(kinds)
    by_scheme: dict[str, int] = {}
    for path, spec in specs.items():
        by_scheme[spec.label] = by_scheme.get(spec.label, 0) + sizes[path]
    expected, left = PUBLISHED[name]
    assert by_scheme == expected
    assert {path.rpartition(".")[2] for path in kinds if path not in specs} == left


def test_kimi_k25_has_its_experts_in_int4_and_nothing_else():
    config, side = load("moonshotai--Kimi-K2.5")
    kinds, sizes = kinds_and_sizes(build(config))
    specs = plan_from_request("auto", config, side).resolve(kinds)
    assert {path.rpartition(".")[2] for path in specs} == {"experts"}
    assert sum(sizes[path] for path in specs) == 60 * 384 * 3 * 7168 * 2048
    assert {spec.weight_bytes(4096, 7168) for spec in specs.values()} == {4096 * 7168 // 2 + 4096 * 224 * 2}
