"""Products and kept activations of a training step beside real forward and backward passes on CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.models.build import build_blueprint
from tensorcast.models.reference import resolve_model
from tensorcast.ops import operator_named
from tensorcast.trace.run import trace_step
from tensorcast.trace.table import build_table
from tensorcast.training.passes import train_table
from tests.verify.deployed import deploy
from tests.verify.tiny import tiny

BATCH, TOKENS = 2, 24
POINT = (BATCH, TOKENS, 0)


def real(source, attention: str) -> torch.nn.Module:
    """transformers' own model with random weights, in training mode."""
    found = build_blueprint(source, attn_implementation=attention).module
    torch.manual_seed(0)
    module = type(found)(found.config)
    module.set_attn_implementation(attention)
    module.set_experts_implementation("eager")
    return module.train()


def loss_of(module: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(BATCH * TOKENS).reshape(BATCH, TOKENS) * 7 % 300
    return module(input_ids=ids, labels=ids, use_cache=False).loss


def table_of(model, checkpoint: str = "none"):
    """The table of a micro-batch."""
    return train_table(build_table("train", lambda at: trace_step(model, "train", *at), POINT), checkpoint)


def products(model, checkpoint: str = "none") -> dict[str, float]:
    """Matrix FLOP by part of the step."""
    piece = table_of(model, checkpoint).piece_for(*POINT)
    basis, out = piece.basis(*POINT), {}
    for row in piece.rows:
        dims = {name: (np.asarray(c) @ basis)[0] for name, c in row.dims.items()}
        flops = float(operator_named(row.op).work(dims, row.attrs).matrix_flops) * row.count
        out[row.attrs["part"]] = out.get(row.attrs["part"], 0.0) + flops
    return out


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_products_of_both_passes_are_those_torch_counts(name, tmp_path):
    source = tiny(name, tmp_path)
    module = real(source, "eager")
    with FlopCounterMode(display=False) as forward:
        loss = loss_of(module)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    ours = products(deploy(source, "attention=eager"))
    assert ours == {"forward": forward.get_total_flops(), "backward": backward.get_total_flops()}
    assert ours["backward"] == 2 * ours["forward"] > 0


def test_checkpointed_layers_run_once_more(tmp_path):
    """Every product but the head's; torch's own checkpointing leaves out the last ones of a layer, which no gradient
    reads, so that it counts less."""
    source = tiny("llama", tmp_path)
    model = deploy(source, "attention=eager")
    ours, head = products(model, "full"), 2 * BATCH * TOKENS * 64 * 320
    assert ours["recompute"] == ours["forward"] - head
    module = real(source, "eager")
    module.gradient_checkpointing_enable({"use_reentrant": True})
    with FlopCounterMode(display=False) as backward:
        loss_of(module).backward()
    assert ours["forward"] + ours["recompute"] + ours["backward"] == backward.get_total_flops()


def test_fused_attention_has_five_products_backwards(tmp_path):
    """Over the pairs a causal kernel computes: 2.5 times the forward pass where keys and values are equally wide."""
    from tests.verify.deployed import matrix_flops

    model = deploy(tiny("llama", tmp_path))
    layers, heads, width, pairs = 4, 4, 16, TOKENS * (TOKENS + 1) / 2
    products_of = 2 * BATCH * heads * pairs * width * layers  # one product
    calls = trace_step(model, "train", *POINT).calls
    rest = matrix_flops(calls, without=["attention"])
    assert matrix_flops(calls) - rest == 2 * products_of
    assert products(model)["backward"] - 2 * rest == 5 * products_of


def kept(model) -> float:
    """Bytes that all layers keep."""
    calls = trace_step(model, "train", *POINT).calls
    return sum(call.dims.get("kept", 0) * len(call.layers or [0]) for call in calls)


def saved(module: torch.nn.Module) -> int:
    """Bytes that autograd keeps, each storage once, parameters and buffers left out."""
    known = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    found: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in known:
            found.setdefault(key, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(module)
    del loss
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


HIDDEN, INTER, FP32 = BATCH * TOKENS * 64 * 4, BATCH * TOKENS * 96 * 4, 4
TABLES = 2 * TOKENS * 16 * FP32  # cosines and sines, which are there for all layers
LABELS = 2 * BATCH * TOKENS * 8 + 4  # tokens, those that follow, and how many they are


def test_kept_activations_of_a_dense_model(tmp_path):
    """To the byte, with what separate kernels keep beyond fused ones: a normalised copy a norm, silu(gate) a layer."""
    source, layers = tiny("llama", tmp_path), 4
    queries_and_keys = BATCH * TOKENS * (4 + 2) * 16 * FP32  # before rotation: in one storage with the values here
    separate = (2 * layers + 1) * HIDDEN + layers * (INTER - queries_and_keys)
    assert kept(deploy(source)) + separate + TABLES + LABELS == saved(real(source, "sdpa"))


def test_kept_activations_of_experts(tmp_path):
    """To the byte: transformers' loop over experts keeps silu(gate) and the summands of the tokens too; of every pair
    its two numbers (8 bytes each), its weight once more and 4 bytes more of its expert's number; of every token the sum
    its weights are divided by."""
    source, layers, sparse = tiny("qwen3_moe", tmp_path), 4, 3
    pairs = BATCH * TOKENS * 2
    heads = BATCH * TOKENS * (4 + 2) * 16 * FP32  # normalised copies of queries and keys
    separate = (2 * layers + 1) * HIDDEN + layers * heads + INTER + sparse * pairs * (48 + 64) * FP32
    separate += sparse * (pairs * (8 + 8 + 4 + 4) + BATCH * TOKENS * 4)
    assert kept(deploy(source)) + separate + TABLES + LABELS == saved(real(source, "sdpa"))


def test_kept_activations_of_a_published_formula(tmp_path):
    """34 s b h bytes a layer of a 16-bit GPT with fused attention (arXiv 2205.05198, equations 1 and 2, without the
    5 a s / h of unfused scores), of which two are the dropout masks that are left out here; and row statistics."""
    config = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_layer": 4, "n_head": 4,
        "n_positions": 512, "vocab_size": 320, "dtype": "bfloat16", "activation_function": "gelu_new",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    calls = trace_step(deploy(resolve_model(str(tmp_path))), "train", *POINT).calls
    of_layer = sum(call.dims.get("kept", 0) for call in calls if call.layers)
    statistics = BATCH * TOKENS * (4 * 4 + 2 * 8)  # one fp32 a head, two fp32 a norm
    assert of_layer == 32 * BATCH * TOKENS * 64 + statistics


@pytest.mark.parametrize("name", ["llama-3.1-8b", "deepseek-v3"])
def test_reuse_changes_nothing(name):
    """Layer by layer the same operators and bytes, whether one layer of a kind is run or all of them."""
    source = resolve_model(name, layers=5)

    def layers(reuse: bool):
        found: dict[int, list] = {}
        for call in trace_step(deploy(source, reuse=reuse), "train", *POINT).calls:
            for layer in call.layers or [-1]:
                found.setdefault(layer, []).append((call.op, sorted(call.dims.items())))
        return found

    assert layers(True) == layers(False)
