"""Tracing one of several equal layers gives the figures of tracing them all."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from torch import nn

from tensorcast.estimate import simulate
from tensorcast.layers.state import state_of
from tensorcast.models.entries import all_entries
from tensorcast.models.reference import resolve_model
from tensorcast.quantization.schemes import scheme_named
from tensorcast.trace.run import trace_step
from tests.later import later
from tests.verify.deployed import deploy, peak_bytes
from tests.verify.stock import depth_with_every_kind
from tests.verify.tiny import tiny

ONE_OF_A_FAMILY = {
    entry.config["model_type"]: entry.name for entry in sorted(all_entries(), key=lambda e: e.name, reverse=True)
}
MTP = {"deepseek_v3", "glm4_moe"}
ALIKE = {
    "kimi_k2", "kimi_k25", "glm_moe_dsa", "qwen3_5", "qwen3_5_moe", "glm4v", "qwen3_vl", "glm4_moe", "minimax_m2",
    "deepseek_v2", "gemma3", "phi3", "qwen2", "qwen3", "mistral", "mixtral",
}  # fmt: skip
"""Families whose layers another family has."""


def figures(model, **options):
    """Everything the estimate says but the report of the reuse step itself and the command that asks for it."""
    out = simulate(model=model, hw="h200-sxm", cache=False, **options).to_dict()
    return {**out, "command": None, "steps": [step for step in out["steps"] if step["name"] != "maybe_reuse_layers"]}


@pytest.mark.parametrize("model_type", later(sorted(ONE_OF_A_FAMILY), ALIKE))
def test_reuse_changes_no_figure(model_type):
    name = ONE_OF_A_FAMILY[model_type]
    layers = max(depth_with_every_kind(resolve_model(name)) + 3, 5)
    work = {
        "batch": 3, "input_len": 700, "output_len": 5, "tp": 2, "quant": "none", "layers": layers,
        "mtp": int(model_type in MTP),
    }  # fmt: skip
    assert figures(name, **work) == figures(name, **work, reuse=False)


def test_quantised_and_expert_parallel_layers():
    work = {"batch": 5, "input_len": 300, "output_len": 3, "tp": 4, "ep": 4, "layers": 6, "prefix_len": 60}
    assert figures("deepseek-v3", **work) == figures("deepseek-v3", **work, reuse=False)


def layers_run(model, phase="prefill") -> list[list[int]]:
    """Groups of layers that one representative stands for."""
    calls = trace_step(model, phase, 2, 64 if phase == "prefill" else 1, 0 if phase == "prefill" else 64).calls
    return sorted({tuple(call.layers) for call in calls if call.layers})


def test_windowed_and_full_layers_are_two_groups():
    model = deploy(resolve_model("gemma-3-1b", layers=12))
    assert layers_run(model) == [(0, 1, 2, 3, 4, 6, 7, 8, 9, 10), (5, 11)]
    calls = [c for c in trace_step(model, "prefill", 2, 64, 0).calls if c.op == "attention"]
    assert {tuple(c.layers): c.attrs["window"] for c in calls} == {(0, 1, 2, 3, 4, 6, 7, 8, 9, 10): 512, (5, 11): 0}


def test_a_layer_of_another_width_is_not_merged(tmp_path):
    from tensorcast.layers.attention import INTERFACE, register_interface
    from tensorcast.models.build import build_blueprint
    from tensorcast.transformer_model import Deployment, TransformerModel

    register_interface()
    blueprint = build_blueprint(tiny("llama", tmp_path), attn_implementation=INTERFACE)
    mlp = blueprint.module.model.layers[2].mlp
    for name in ("gate_proj", "up_proj"):
        setattr(mlp, name, nn.Linear(64, 4096, bias=False, device="meta"))
    mlp.down_proj = nn.Linear(4096, 64, bias=False, device="meta")
    model = TransformerModel(blueprint, Deployment())
    assert layers_run(model) == [(0, 1, 3), (2,)]
    products = [c for c in trace_step(model, "prefill", 2, 64, 0).calls if c.op == "linear" and "down_proj" in c.module]
    assert {tuple(c.layers): c.dims["k"] for c in products} == {(0, 1, 3): 96, (2,): 4096}


def test_a_layer_with_another_attribute_is_not_merged(tmp_path):
    model = deploy(tiny("llama", tmp_path))
    model.module.model.layers[1].self_attn.scaling = 0.5
    assert layers_run(model) == [(0, 2, 3), (1,)]


def test_a_layer_with_another_kernel_is_not_merged(tmp_path):
    model = deploy(tiny("llama", tmp_path), "rms_norm@model.layers.1.*=eager")
    assert {op for op, groups in _groups_by_op(model).items() if (1,) in groups} >= {"aten::rsqrt"}
    assert _groups_by_op(model)["rms_norm"] == {(0, 2, 3), ()}


def test_a_layer_in_another_format_is_not_merged(tmp_path):
    model = deploy(tiny("llama", tmp_path))
    state_of(model.module.model.layers[1].mlp.down_proj).quant = scheme_named("w8a16", "fp32")
    calls = [c for c in trace_step(model, "prefill", 2, 64, 0).calls if "down_proj" in c.module and c.op == "linear"]
    assert {tuple(c.layers): c.attrs["weight_format"] for c in calls} == {(0, 2, 3): "fp32", (1,): "int8"}


def _groups_by_op(model):
    out = defaultdict(set)
    for call in trace_step(model, "prefill", 2, 64, 0).calls:
        out[call.op].add(tuple(call.layers or ()))
    return out


def test_what_no_layer_stands_for_is_traced_once_each(tmp_path):
    source = tiny("llama", tmp_path)
    once, all_of_them = deploy(source), deploy(source, reuse=False)
    short, long = (trace_step(m, "prefill", 2, 64, 0) for m in (once, all_of_them))
    assert len(short.calls) < len(long.calls)
    counted = Counter({c.op: 0 for c in short.calls})
    for call in short.calls:
        counted[call.op] += len(call.layers or [0])
    assert counted == Counter(call.op for call in long.calls)
    assert peak_bytes(short) == peak_bytes(long)


def test_a_list_of_all_layer_numbers_tells_no_layers_apart():
    """Llama 4 Scout names every layer in `moe_layers`; every fourth one has no window and no rotary embedding."""
    model = deploy(resolve_model("llama-4-scout", layers=8))
    assert layers_run(model) == [(0, 1, 2, 4, 5, 6), (3, 7)]


@pytest.mark.parametrize("layers", [3, 5])
def test_a_deeper_vision_tower_is_not_the_decoder(layers):
    """The tower has 27 layers; caches belong to the layers of text."""
    shallow, deep = (figures("qwen3-vl-8b", layers=n, output_len=2)["memory"] for n in (layers, 2 * layers))
    assert deep["kv_cache_bytes"] == 2 * shallow["kv_cache_bytes"]
