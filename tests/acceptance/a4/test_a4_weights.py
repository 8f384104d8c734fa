"""Checkpoints by their headers. Acceptance tests A4.11 and A4.12 of the five front doors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tensorcast as tc
from tensorcast.cli.main import cli
from tensorcast.errors import DeploymentError, ModelError
from tensorcast.models.weights import check_weights
from tests.acceptance.a4.models import (
    ALONE,
    CONFIG,
    SHORT,
    folder,
    header,
    llama_tensors,
    opt,
    write,
)

ROOT = Path(__file__).resolve().parents[3]


def checkpoint(config: dict, tensors: dict, name: str = "m") -> Path:
    folder(Path(name), config)
    header(Path(name) / "model.safetensors", tensors)
    return Path(name)


def test_a4_11_headers_fill_the_fused_products():
    tensors = llama_tensors(CONFIG)
    path = checkpoint(CONFIG, tensors)
    model = tc.build_model("m", custom=write("mine.py", ALONE))
    report = check_weights(model, path)
    assert str(report) == f"{len(tensors)} tensors → {model.parameters} parameters, 0 missing, 0 unexpected"
    assert report.fits and len(tensors) == 3 + 9 * 4


def test_a4_11_what_is_missing_left_over_or_of_another_shape_is_named():
    tensors = llama_tensors(CONFIG)
    del tensors["model.norm.weight"], tensors["model.layers.1.self_attn.k_proj.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = ("BF16", (688, 128))
    tensors["model.layers.9.mlp.up_proj.weight"] = ("BF16", (688, 256))
    path = checkpoint(CONFIG, tensors)
    report = check_weights(tc.build_model("m", custom=write("mine.py", ALONE)), path)
    assert {*report.missing} == {"model.norm.weight", "model.layers.1.self_attn.qkv_proj.weight"}
    assert {*report.unexpected} == {
        "model.layers.9.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight",
        "model.layers.1.self_attn.v_proj.weight",
    }  # fmt: skip
    (line,) = report.mismatched
    assert "model.layers.0.mlp.gate_up_proj.weight [1376, 256] does not take" in line
    assert "model.layers.0.mlp.up_proj.weight [688, 128]" in line and not report.fits


def test_a4_11_a_tied_head_needs_no_tensor_and_shards_are_read_by_their_index():
    config = {**CONFIG, "tie_word_embeddings": True}
    tensors = llama_tensors(config)
    del tensors["lm_head.weight"]
    path = checkpoint(config, {})
    (path / "model.safetensors").unlink()
    parts = dict(list(tensors.items())[:20]), dict(list(tensors.items())[20:])
    for number, part in enumerate(parts):
        header(path / f"part-{number}.safetensors", part)
    placed = {name: f"part-{number}.safetensors" for number, part in enumerate(parts) for name in part}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    header(path / "stray.safetensors", {"stray": ("BF16", (1,))})  # not in the index: no part of the checkpoint
    model = tc.build_model("m", custom=write("mine.py", ALONE))
    report = check_weights(model, path)
    assert report.fits and report.tensors == 38
    (path / "part-1.safetensors").unlink()
    with pytest.raises(ModelError, match=r"part-1\.safetensors: cannot be read"):
        check_weights(model, path)


def test_a4_11_a_models_own_load_weights_is_obeyed():
    tensors = {f"net.{n}".replace("self_attn", "att"): t for n, t in llama_tensors(CONFIG).items()}
    path = checkpoint(CONFIG, tensors)
    model = tc.build_model("m", custom=write("mine.py", ALONE))
    assert len(check_weights(model, path).unexpected) == len(tensors)
    renames = """
    def load_weights(self, weights):
        assert all(w.device.type == "meta" for w in weights.values())
        super().load_weights({n.removeprefix("net.").replace("att.", "self_attn."): w for n, w in weights.items()})

__model__ = MyModelForCausalLM
"""
    by_hand = """
    def load_weights(self, weights):
        import torch
        rest = {n.removeprefix("net."): w for n, w in weights.items() if ".att." not in n}
        for n, layer in enumerate(self.model.layers):
            at = f"net.model.layers.{n}.att."
            q, k, v = (weights[f"{at}{x}_proj.weight"] for x in "qkv")
            if n % 2:
                layer.self_attn.qkv_proj.load_weights([{"weight": w} for w in (q, k, v)])
            else:
                layer.self_attn.qkv_proj.weight.copy_(torch.cat((q, k, v)))
            layer.self_attn.o_proj.load_weights({"weight": weights[f"{at}o_proj.weight"]})
        super().load_weights(rest)

__model__ = MyModelForCausalLM
"""
    for number, override in enumerate((renames, by_hand)):
        custom = write(f"own{number}.py", ALONE.replace("__model__ = MyModelForCausalLM\n", override))
        report = check_weights(tc.build_model("m", custom=custom), path)
        assert report.fits, report
    custom = write(
        "own2.py", ALONE.replace("__model__ = MyModelForCausalLM\n", renames.replace("removeprefix", "nope"))
    )
    with pytest.raises(ModelError, match=r"MyModelForCausalLM\.load_weights: AttributeError"):
        check_weights(tc.build_model("m", custom=custom), path)


def test_a4_11_called_by_hand_load_weights_raises():
    model = tc.build_model(folder(Path("m"), CONFIG), custom=write("mine.py", ALONE)).module
    whole = {name: torch.empty_like(p, device="meta") for name, p in model.named_parameters()}
    model.load_weights(whole)
    with pytest.raises(ModelError, match=r"model\.norm\.weight is missing"):
        model.load_weights({n: t for n, t in whole.items() if n != "model.norm.weight"})
    with pytest.raises(ModelError, match=r"\[320, 256\] does not take"):
        model.model.layers[0].self_attn.qkv_proj.load_weights({"weight": torch.empty(4, 256, device="meta")})


def test_a4_11_the_example_maps_the_published_names():
    name = opt("opt", num_hidden_layers=2)
    h, f = 768, 3072
    tensors = {"model.decoder.embed_tokens.weight": (50272, h), "model.decoder.embed_positions.weight": (2050, h)}
    for n in (*range(2), None):
        layer = f"model.decoder.layers.{n}" if n is not None else "model.decoder"
        for part in ("final_layer_norm", *(("self_attn_layer_norm",) if n is not None else ())):
            tensors |= {f"{layer}.{part}.weight": (h,), f"{layer}.{part}.bias": (h,)}
        if n is None:
            continue
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors |= {f"{layer}.self_attn.{part}.weight": (h, h), f"{layer}.self_attn.{part}.bias": (h,)}
        tensors |= {f"{layer}.fc1.weight": (f, h), f"{layer}.fc1.bias": (f,)}
        tensors |= {f"{layer}.fc2.weight": (h, f), f"{layer}.fc2.bias": (h,)}
    header(Path(name) / "model.safetensors", {n: ("F16", s) for n, s in tensors.items()})
    for model in (tc.build_model(name), tc.build_model(name, custom=str(ROOT / "custom_model" / "opt_example"))):
        report = check_weights(model, Path(name))
        assert report.fits, (report, report.missing, report.unexpected)


def test_a4_11_transformers_models_are_checked_under_their_published_names():
    path = checkpoint(CONFIG, llama_tensors(CONFIG))
    assert check_weights(tc.build_model("m"), path).fits
    tensors = llama_tensors(CONFIG) | {"model.norm.weight": ("BF16", (255,))}
    header(path / "model.safetensors", tensors)
    (line,) = check_weights(tc.build_model("m"), path).mismatched
    assert "model.norm.weight [256] does not take model.norm.weight [255]" in line


EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True}


def moe_tensors(dtype: str = "BF16") -> dict:
    """The Llama's tensors with four experts in place of its feed-forward, as Qwen3-MoE checkpoints name them."""
    tensors = {n: t for n, t in llama_tensors(CONFIG, dtype).items() if ".mlp." not in n}
    for layer in (f"model.layers.{n}" for n in range(4)):
        tensors[f"{layer}.mlp.gate.weight"] = ("BF16", (4, 256))
        for expert in (f"{layer}.mlp.experts.{n}" for n in range(4)):
            tensors |= {f"{expert}.{name}.weight": (dtype, (64, 256)) for name in ("gate_proj", "up_proj")}
            tensors[f"{expert}.down_proj.weight"] = (dtype, (256, 64))
    return tensors


PACKED_MOE = ALONE.replace(
    "tc.nn.GatedMLP(config.hidden_size, config.intermediate_size)", "tc.nn.MoE(4, 2, config.hidden_size, 64)"
)
STOCK_MOE = CONFIG | EXPERTS | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
STOCK_MOE |= {"mlp_only_layers": [], "decoder_sparse_step": 1}
HEAD_NORMS = {f"model.layers.{n}.self_attn.{x}_norm.weight": ("BF16", (8,)) for n in range(4) for x in "qk"}


@pytest.mark.parametrize("packed", [True, False])
def test_a4_11_experts_are_stacked_from_one_tensor_each(packed):
    custom = write("moe.py", PACKED_MOE) if packed else None
    tensors = moe_tensors() | ({} if packed else HEAD_NORMS)
    path = checkpoint(CONFIG if packed else STOCK_MOE, tensors)
    model = tc.build_model("m", custom=custom)
    assert check_weights(model, path).fits
    tensors["model.layers.2.mlp.experts.3.up_proj.weight"] = ("BF16", (64, 255))
    header(path / "model.safetensors", tensors)
    report = check_weights(model, path)
    (line,) = report.mismatched
    assert line.startswith("model.layers.2.mlp.experts.gate_up_proj [4, 128, 256] does not take ")
    assert "model.layers.2.mlp.experts.3.up_proj.weight [64, 255]" in line
    assert not report.missing and not report.unexpected


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0not json", b"\xff" * 64, b"\2\0\0\0\0\0\0\0[]"])
def test_a4_11_a_broken_file_is_named(content):
    path = checkpoint(CONFIG, {})
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"m/model\.safetensors: not a safetensors file"):
        tc.build_model("m")


def fp8(config: dict, scale) -> dict:
    tensors = llama_tensors(config, "F8_E4M3")
    return tensors | {n + scale[0]: ("F32", scale[1](s)) for n, (d, s) in tensors.items() if d == "F8_E4M3"}


BLOCKS = ("_scale_inv", lambda s: (-(-s[0] // 128), -(-s[1] // 128)))


@pytest.mark.parametrize("scale", [BLOCKS, ("_scale", lambda s: ()), ("_scale", lambda s: (s[0], 1))])
@pytest.mark.parametrize("custom", [None, "mine.py"])
def test_a4_12_fp8_tensors_are_fp8_without_a_flag(scale, custom):
    checkpoint(CONFIG, fp8(CONFIG, scale))
    write("mine.py", ALONE)
    wide = tc.build_model("m", custom=custom, quant="none")
    model = tc.build_model("m", custom=custom)
    assert model.quant.source == "checkpoint tensors, 28 weights stored as F8_E4M3"
    linears = [p for p, m in model.module.named_modules() if isinstance(m, torch.nn.Linear) and p != "lm_head"]
    assert {*model.quantised} == {*linears}
    assert {spec.weight for spec in model.quantised.values()} == {"fp8"}
    assert {spec.activation for spec in model.quantised.values()} == {"fp8"}
    figures = tc.simulate("m", hw="h100", custom=custom, input_len=64, output_len=2)
    assert figures.to_dict()["quant"]["source"] == model.quant.source
    bf16 = tc.simulate("m", hw="h100", custom=custom, input_len=64, output_len=2, quant="none").memory["weights_bytes"]
    stored = sum(p.numel() for path, p in wide.module.named_parameters() if path.removesuffix(".weight") in linears)
    saved = bf16 - figures.memory["weights_bytes"]
    assert 0.97 * stored < saved <= stored  # one byte a weight, less the scales


def test_a4_12_experts_and_the_report_line(capsys):
    checkpoint(STOCK_MOE, moe_tensors("F8_E4M3") | HEAD_NORMS)
    model = tc.build_model("m")
    assert model.quantised["model.layers.0.mlp.experts"].weight == "fp8"
    assert not any(path.endswith(".gate") or path == "lm_head" for path in model.quantised)
    cli.run(["simulate", "--model", "./m", "--hw", "h100", *SHORT], "tensorcast")
    assert "checkpoint tensors, 64 weights stored as F8_E4M3" in " ".join(capsys.readouterr().out.split())


def test_a4_12_fp8_without_scales_is_widened_and_a_stated_scheme_wins():
    checkpoint(CONFIG, llama_tensors(CONFIG, "F8_E4M3"))
    assert {s.activation for s in tc.build_model("m").quantised.values()} == {"bf16"}
    assert {s.weight for s in tc.build_model("m", quant="w8a8").quantised.values()} == {"int8"}


def test_a4_12_what_the_tensors_do_not_explain_is_an_error():
    tensors = llama_tensors(CONFIG) | {"model.layers.0.mlp.up_proj.weight": ("I8", (688, 256))}
    checkpoint(CONFIG, tensors)
    with pytest.raises(
        DeploymentError, match=r"model\.safetensors stores model\.layers\.0\.mlp\.up_proj\.weight as I8"
    ):
        tc.build_model("m")
    tc.build_model("m", quant="none")
