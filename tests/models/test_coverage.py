"""Causal language models of transformers, by structure: a sample of every kind of code always, all types nightly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tensorcast as tc
from tensorcast.errors import DeploymentError, InputError, ModelError, TransformationError
from tensorcast.layers.linear import is_product
from tensorcast.models.build import count_parameters
from tensorcast.models.default_config import default_config
from tensorcast.models.recipes import Step
from tensorcast.models.recipes.transformers import language_inputs
from tensorcast.profiles import ModelProfile
from tensorcast.trace.run import trace_step
from tests.verify.deployed import matrix_flops
from tests.verify.survey import STEPS, causal_config, model_types, survey, totals

pytest.importorskip("transformers")

# One type for each way that decoders are written, and what tensor parallelism cuts of it.
SAMPLE = {
    "llama": "ok",
    "gpt2": "ok",  # products stored [inputs, outputs], q, k and v in one
    "gpt_bigcode": "ok",  # one KV head, fused
    "codegen": "ok",  # fused in four blocks
    "openai-gpt": "ok",  # no cache
    "bloom": "ok",  # a bias for each head
    "mpt": "ok",
    "persimmon": "ok",
    "bert": "ok",  # query, key, value; the sum lies in another module
    "xmod": "ok",  # an adapter for each language
    "biogpt": "ok",  # a head called output_projection, tied
    "ctrl": "ok",
    "xlm": "ok",  # lists of parts instead of layers
    "big_bird": "ok",
    "dbrx": "ok",  # experts as tall matrices
    "falcon": "71 heads, 1 KV heads; values that divide: 1, 71",
    "bitnet": "20 heads, 5 KV heads; values that divide: 1, 5, 10, 20",
    "xlnet": "no tensor-parallel plan for XLNetLMHeadModel",
    "jetmoe": "no tensor-parallel plan for JetMoeForCausalLM",
    "trocr": "TrOCRForCausalLM does not run on the meta device",
    "musicgen": "ok",  # a token is a code of each codebook
    "mllama": "ok",
    "iquestcoder": "ok",  # a configuration of its own for another type's class
}
COUNTED = {"gpt2", "gpt_bigcode", "codegen", "bloom", "persimmon", "bert", "falcon", "mllama", "big_bird", "xlnet"}
"""Those whose FLOPs are compared here; the nightly test compares all."""
REFUSED = {
    "blt": "how many there are depends on the text",
    "gemma4_assistant": "a draft model: every layer reads keys and values of the model it drafts for",
    "gemma4_unified_assistant": "a draft model",
    "gemma3n": "TimmWrapperModel requires the timm library",
    "qwen4_exp": "its indexer picks blocks of keys in a loop over every token",
    "qwen4_exp_text": "that sparse attention is not modelled yet",
}


@pytest.fixture(autouse=True)
def nothing_beside(own_folder):
    """Files of ./custom_model are for users' models."""


@pytest.mark.parametrize("kind", SAMPLE)
def test_type_traces_and_is_cut(kind):
    row = survey(kind, flops=kind in COUNTED)
    assert row.prefill == row.decode == "ok"
    assert row.parameters == row.library_parameters > 0
    assert not row.uncosted
    assert row.seconds < 1
    assert row.flops == (dict.fromkeys(STEPS, "equal") if kind in COUNTED else {})
    if SAMPLE[kind] != "ok":
        assert SAMPLE[kind] in row.tp
        return
    assert row.tp == "ok"
    assert row.cut > 0.9
    assert 1 <= row.work < 1.15  # KV heads fewer than ranks, and what only one of several products is cut of


@pytest.mark.parametrize("kind", REFUSED)
def test_the_rest_say_why(kind):
    row = survey(kind)
    assert REFUSED[kind] in row.prefill == row.decode


@pytest.mark.nightly
def test_every_type():
    rows = [survey(kind) for kind in model_types()]
    print("", *totals(rows), sep="\n")
    assert len(rows) >= 189
    failed = {row.kind: (row.prefill, row.decode) for row in rows if not row.traces}
    assert len(rows) - len(failed) >= 180, failed
    assert [row.kind for row in rows if row.parameters != row.library_parameters] == []
    assert {row.kind: row.seconds for row in rows if row.seconds > 1} == {}
    assert {row.kind: row.cut for row in rows if row.tp == "ok" and row.cut < 0.6} == {}
    assert [(row.kind, said) for row in rows for said in row.flops.values() if said[:1].isdigit()] == []


def test_reuse_off_is_the_same_work():
    for kind in ("gpt2", "bert", "dbrx", "mllama"):
        ways = [tc.build_model(causal_config(kind), quant="none", reuse=reuse) for reuse in (True, False)]
        found = [matrix_flops(trace_step(model, "prefill", *STEPS["prefill"]).calls) for model in ways]
        assert found[0] == found[1] > 0


# -- what decode costs -------------------------------------------------------------------------------------------------


def test_without_a_cache_a_decode_step_runs_the_whole_sequence():
    model = tc.build_model(causal_config("openai-gpt"), quant="none")
    assert any("keeps no cache: every decode step runs the whole sequence again" in n for n in model.blueprint.notes)
    decode = trace_step(model, "decode", 2, 1, 15).calls
    prefill = trace_step(model, "prefill", 2, 16, 0).calls
    assert matrix_flops(decode) == matrix_flops(prefill)
    assert language_inputs(model, Step("decode", 2, 1, 15))["input_ids"].shape == (2, 16)


def test_xlm_runs_only_what_its_cache_has_not_seen():
    model = tc.build_model(causal_config("xlm"), quant="none")
    widths = {c.dims["m"] for c in trace_step(model, "decode", 2, 1, 15).calls if c.op == "linear"}
    assert widths == {2}


# -- products ----------------------------------------------------------------------------------------------------------


def test_stored_the_other_way_round_is_a_linear():
    model = tc.build_model(causal_config("gpt2"), quant="w8a8")
    layer = model.module.transformer.h[0]
    assert type(layer.attn.c_attn) is type(layer.mlp.c_proj) is nn.Linear
    assert layer.attn.c_attn.weight.shape == (3 * 768, 768)
    assert layer.mlp.c_proj.weight.shape == (768, 4 * 768)
    quantised = [m for _, m in model.module.named_modules() if getattr(m, "_tensorcast", None) and m._tensorcast.quant]
    assert len(quantised) == 4 * 12


def test_code_of_its_own_that_is_a_product():
    class Product(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T + self.bias

    class Rounded(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight.round(), self.bias)

    class Broken(nn.Linear):
        def forward(self, x):
            return x @ self.other

    assert [is_product(code) for code in (nn.Linear, Product, Rounded, Broken)] == [True, True, False, False]


@pytest.mark.parametrize(
    "fields, whole, tp4",
    [
        ({}, 4096 + 2 * 64, 1024 + 2 * 64),  # one KV head, kept by every rank
        ({"new_decoder_architecture": True, "num_kv_heads": 8}, 4096 + 2 * 512, (4096 + 2 * 512) // 4),
        ({"multi_query": False, "alibi": True}, 3 * 4096, 3 * 1024),
    ],
)
def test_fused_products_of_falcon(fields, whole, tp4):
    from transformers import FalconConfig

    config = FalconConfig(hidden_size=4096, num_attention_heads=64, num_hidden_layers=2, **fields)
    for tp, width in ((1, whole), (4, tp4)):
        model = tc.build_model(config, quant="none", tp=tp)
        assert model.module.transformer.h[0].self_attention.query_key_value.weight.shape == (width, 4096)
        scores = next(c.dims for c in trace_step(model, "prefill", 2, 16, 0).calls if c.op == "aten::bmm")
        assert (scores["b"], scores["k"]) == (2 * 64 // tp, 64)
    assert any("eager code" in note for note in model.blueprint.notes)


def test_a_decoder_that_no_rule_cuts_is_refused():
    with pytest.raises(DeploymentError, match=r"--tp 2: no tensor-parallel plan for JetMoe.*no rule names kv_proj"):
        tc.build_model(causal_config("jetmoe"), quant="none", tp=2)


def test_padded_vocabulary_is_whole_again_behind_the_head():
    from transformers import LlamaConfig

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=321)
    model = tc.build_model(LlamaConfig(**sizes), quant="none", tp=2)
    logits = {}
    model.module.lm_head.register_forward_hook(lambda m, a, result: logits.update(shape=result.shape))
    trace_step(model, "prefill", 2, 16, 0)
    assert model.module.lm_head.weight.shape == (161, 64)
    assert logits["shape"] == (2, 1, 321)


def test_experts_as_tall_matrices_keep_their_numbers():
    model = tc.build_model(causal_config("dbrx"), quant="none", ep=4, tp=4)
    experts = model.module.transformer.blocks[0].ffn.experts
    assert experts.gate_up_proj.shape == (1, 2 * 3584, 2048)  # of 4 experts
    whole = tc.build_model(causal_config("dbrx"), quant="none")
    assert whole.parameters == count_parameters(whole.module)
    assert whole.active_parameters < whole.parameters
    assert {c.op for c in trace_step(whole, "decode", 2, 1, 16).calls} >= {"moe_route", "moe_experts"}


def test_mixture_of_attention_counts_the_experts_a_token_uses():
    model = tc.build_model(causal_config("jetmoe"), quant="none")
    calls = [c for c in trace_step(model, "prefill", 2, 16, 0).calls if c.op == "expert_linear"]
    sizes = [(c.dims["pairs"], c.dims["n"], c.dims["k"]) for c in calls]
    # queries and outputs of attention, then gate and up, and down: two experts for each of 32 tokens
    assert sizes == [(64, 2048, 2048), (64, 2048, 2048), (64, 2 * 5632, 2048), (64, 2048, 5632)]
    assert matrix_flops(calls) == 12 * 2 * 64 * 2048 * (2 * 2048 + 3 * 5632)


# -- configurations ----------------------------------------------------------------------------------------------------


def test_default_config_takes_what_the_profile_says():
    from transformers import Dots1Config, LlamaConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert Dots1Config().n_routed_experts is None
    assert default_config(Dots1Config).n_routed_experts == 128
    assert default_config(CONFIG_MAPPING["dbrx"]).attn_config.clip_qkv == 8
    assert default_config(LlamaConfig, num_hidden_layers=3).num_hidden_layers == 3


def test_composites_are_their_language_model():
    config = causal_config("mllama")
    model = tc.build_model(config, quant="none")
    assert type(model.config) is type(config.text_config)
    # text alone: layers that look at an image are passed by
    attended = [c for c in trace_step(model, "decode", 2, 1, 16).calls if c.op == "attention"]
    assert sum(len(c.layers) for c in attended) == 40 - len(config.text_config.cross_attention_layers)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"defaults": ["n"]}, "defaults must map field names to values"),
        ({"forwards": {"A.forward": 3}}, "forwards: A.forward must be a function"),
        ({"forwards": {"A forward": print}}, "a key must be 'Class.method' or a function's name"),
        ({"forwards": [print]}, "forwards must be a mapping"),
        ({"inputs": 3}, "inputs must be callable"),
    ],
)
def test_profiles_check_their_fields(fields, said):
    with pytest.raises(InputError, match=said):
        ModelProfile(model_type="mine", **fields)


def test_profiles_replace_methods_and_inputs():
    from transformers import LlamaConfig

    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=320)

    def build(**fields):
        tc.register_model_profile(ModelProfile(model_type="llama", **fields), replace=True)
        return tc.build_model(LlamaConfig(**sizes), quant="none")

    whole = matrix_flops(trace_step(build(), "prefill", 2, 16, 0).calls)
    model = build(forwards={"LlamaMLP.forward": lambda module, x: x})
    assert matrix_flops(trace_step(model, "prefill", 2, 16, 0).calls) == whole - 3 * 2 * 32 * 3 * 64 * 96
    longer = torch.empty((2, 32), dtype=torch.long, device="meta")
    model = build(inputs=lambda model, step: {"input_ids": longer, "position_ids": longer})
    rows = {c.dims["m"] for c in trace_step(model, "prefill", 2, 16, 0).calls if c.module.endswith("down_proj")}
    assert rows == {64}
    with pytest.raises(TransformationError, match="no module of class LlamaMLq; classes seen: LlamaMLP"):
        build(forwards={"LlamaMLq.forward": print})
    with pytest.raises(TransformationError, match="LlamaMLP has no method 'forwrd'"):
        build(forwards={"LlamaMLP.forwrd": print})


def test_a_model_of_the_library_that_fails_is_one_line(monkeypatch):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: self.gone(x))
    model = tc.build_model(LlamaConfig(num_hidden_layers=2), quant="none")
    model.module.model.layers[0].mlp.__dict__.pop("forward")
    with pytest.raises(ModelError, match="LlamaForCausalLM does not run on the meta device: AttributeError"):
        trace_step(model, "prefill", 2, 16, 0)
