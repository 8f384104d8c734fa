"""Operators whose stock code is not what a machine runs: equal to torch's counter after a term, in both phases."""

from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.errors import KernelError
from tensorcast.models.overrides import keep_layers
from tensorcast.trace.run import trace_step
from tests.verify import survey
from tests.verify.terms import TERMS

CONV = "causal_conv1d"
KINDS = {
    "mamba": ({CONV, "selective_scan"}, {CONV, "selective_scan"}),
    "mamba2": ({CONV, "mamba2_scan"}, {CONV, "mamba2_scan"}),
    "jamba": ({CONV, "selective_scan"}, {CONV, "selective_scan"}),
    "olmo_hybrid": ({CONV, "gated_delta_rule"}, {CONV}),
    "kimi_linear": ({CONV, "gated_delta_rule"}, {CONV}),
    "minimax": ({"decay_attention"}, {"decay_attention"}),
    "recurrent_gemma": ({CONV}, set()),
    "lfm3": ({CONV}, {CONV}),
    "axk2": ({"index_scores"}, {"index_scores"}),
    "inkling_text": ({CONV}, {CONV}),
    "deepseek_v4": ({"compressed_attention", "compressed_scores", "hyper_expand"}, {"hyper_expand"}),
}
"""Type → the terms of a prompt and of a step of decoding."""
SLOW = ("jamba", "olmo_hybrid", "inkling_text", "deepseek_v4")
PARAMS = [pytest.param(kind, marks=pytest.mark.nightly if kind in SLOW else ()) for kind in KINDS]


@pytest.fixture(autouse=True)
def nothing_beside(own_folder):
    """Files of ./custom_model are for users' models."""


@pytest.mark.parametrize("kind", PARAMS)
def test_equal_after_the_terms_of_its_operators(kind):
    said = [f"equal after {', '.join(sorted(names))}" if names else "equal" for names in KINDS[kind]]
    assert list(survey._flops(kind).values()) == said


def test_every_term_is_met():
    assert {name for both in KINDS.values() for names in both for name in names} == set(TERMS)


def model_of(kind: str, **options):
    return tc.build_model(survey.causal_config(kind), quant="none", **options)


def calls_of(model, part: str):
    return [c for c in trace_step(model, "prefill", 2, 16, 0).calls if part in c.module]


def test_projections_that_read_tensors_of_their_own_are_not_one_product():
    """Inkling 2's global layers mix each of hidden states, keys' and values' inputs by themselves."""
    model = model_of("inkling2_text", layers=6)
    names = [c.module.rpartition(".")[2] for c in calls_of(model, "layers.5.self_attn") if c.op == "linear"]
    assert {"q_proj", "k_proj", "v_proj"} <= set(names) and "qkv_proj" not in names
    names = [c.module.rpartition(".")[2] for c in calls_of(model, "layers.0.self_attn") if c.op == "linear"]
    assert names.count("qkv_proj") == 1


def test_one_product_whose_parts_did_not_all_ask_is_no_silent_one():
    model = model_of("llama", layers=1)
    attention = model.module.model.layers[0].self_attn
    parts = attention.q_proj, attention.k_proj, attention.v_proj
    attention.forward = lambda hidden_states, **kw: (
        sum(p(hidden_states + 0).sum() for p in parts) + hidden_states,
        None,
    )
    with pytest.raises(KernelError, match=r"q_proj, k_proj, v_proj do not read one tensor; use --kernel qkv_proj@"):
        trace_step(model, "prefill", 1, 8, 0)


def test_shared_experts_stored_as_three_stacks_are_gated_and_all_run():
    """Inkling: gate_proj, up_proj and down_proj [2, inter, hidden], every token in both experts."""
    model = model_of("inkling_text", layers=3)
    config = model.text_config
    call = next(c for c in calls_of(model, "shared_experts") if c.op == "moe_experts")
    assert call.attrs["gated"] and call.attrs["top_k"] == call.attrs["experts"] == config.n_shared_experts
    routed = config.n_routed_experts - config.num_experts_per_tok
    blocks = sum("gate.weight" in name and "mlp" in name for name, _ in model.module.named_parameters())
    idle = routed * 3 * config.moe_intermediate_size * config.hidden_size * blocks
    assert blocks and model.parameters - model.active_parameters == idle


@pytest.mark.parametrize("kind, layers", [("xlstm", 3), ("hrm_text", 2)])
def test_the_first_layers_of_depths_that_are_stated_twice(kind, layers):
    """xLSTM repeats its depth as num_blocks; HRM runs two stacks of num_layers_per_stack layers several times."""
    whole, cut = (model_of(kind, **options).parameters for options in ({}, {"layers": layers}))
    one = (model_of(kind, layers=layers + 1).parameters) - cut
    depth = survey.causal_config(kind)
    held = getattr(depth, "num_layers_per_stack", None) or depth.num_hidden_layers
    assert whole - cut == one * (held - layers) > 0


def test_a_field_of_that_name_that_says_something_else_is_kept():
    assert keep_layers({"num_hidden_layers": 8, "num_blocks": 3}, 2, "x") == {"num_hidden_layers": 2, "num_blocks": 3}


def test_a_profile_of_a_layer_that_this_configuration_has_none_of():
    """MiniMax's first layer alone has softmax attention: no lightning attention whose forward could be replaced."""
    assert "decay_attention" not in {c.op for c in calls_of(model_of("minimax", layers=1), "")}
