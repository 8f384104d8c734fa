"""Packed models: tokens, fused products, sharding. Acceptance tests A4.7 to A4.10 and A4.13 of the five front doors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tensorcast as tc
from tensorcast.errors import DeploymentError, ModelError
from tensorcast.trace.run import trace_step
from tests.acceptance.a4.models import (
    ALONE,
    CONFIG,
    HEAD,
    MINE,
    REGISTERED,
    SHORT,
    SOURCE,
    UNTYPED,
    calls,
    count,
    flops,
    folder,
    shape_of,
    write,
)

SEES = """
    def forward(self, attn_metadata, input_ids=None, position_ids=None, inputs_embeds=None, **kwargs):
        out = self.model(attn_metadata=attn_metadata, input_ids=input_ids, position_ids=position_ids)
        self.seen = (attn_metadata, input_ids.shape, position_ids.shape, out.shape)
        return super().forward(attn_metadata, input_ids, position_ids, inputs_embeds, **kwargs)
"""


def test_a4_7_a_ragged_batch_arrives_packed():
    custom = write("mine.py", REGISTERED + SEES)
    model = tc.build_model(folder(Path("m"), MINE), custom=custom)
    calls(model, "prefill", 3, 300, 0, ((100, 0), (300, 0), (112, 0)))
    metadata, ids, positions, hidden = model.module.seen
    assert ids == positions == (512,) and hidden == (512, 256)
    assert (metadata.seq_lens, metadata.kv_lens, metadata.num_contexts) == ((100, 300, 112), (100, 300, 112), 3)
    assert (metadata.num_tokens, metadata.num_ctx_tokens, metadata.num_generations) == (512, 512, 0)
    calls(model, "decode", 2, 1, 50)
    assert model.module.seen[0].kv_lens == (51, 51) and model.module.seen[0].num_generations == 2


def test_a4_7_a_ragged_batch_costs_what_its_sequences_do():
    model = tc.build_model(folder(Path("m"), MINE), custom=write("mine.py", REGISTERED))
    ragged = calls(model, "prefill", 4, 300, 0, ((100, 0), (300, 0), (112, 0), (100, 0)))
    alone = [calls(model, "prefill", 1, n, 0) for n in (100, 300, 112, 100)]
    for op in ("attention", "linear"):
        assert flops(ragged, op) == sum(flops(one, op) for one in alone) > 0
    assert count(ragged, "attention") == 3 * 4  # sequences of equal lengths are one call a layer
    figures = tc.simulate("m", hw="h100", seq_lens=[100, 300, 112], output_len=2, custom="mine.py")
    prefill = sum(flops(one, "attention", "linear") for one in alone[:3])
    heads = sum(flops(one, "linear") for one in alone[:3])
    rows = figures.phases["prefill"]["ops"]
    priced = {op: sum(row["matrix_flops"] for row in rows if row["op"] == op) for op in ("attention", "linear")}
    assert priced == {"attention": prefill - heads, "linear": heads}


@pytest.mark.parametrize("inputs", [{}, {"input_ids": torch.zeros(4), "inputs_embeds": torch.zeros(4, 256)}])
def test_a4_7_exactly_one_of_ids_and_embeddings(inputs):
    model = tc.build_model(folder(Path("m"), MINE), custom=write("mine.py", REGISTERED))
    metadata = tc.nn.AttentionMetadata((4,), (4,), 1)
    for part in (model.module, model.module.model):
        with pytest.raises(ValueError, match=r"(both|neither) of input_ids and inputs_embeds"):
            part(metadata, **inputs)


def test_a4_7_metadata_that_contradicts_itself_or_the_tokens_is_refused():
    for wrong in (((4, 4), (4,), 1), ((0,), (4,), 1), ((5,), (4,), 1), ((4,), (4,), 2)):
        with pytest.raises(ModelError, match="attention metadata"):
            tc.nn.AttentionMetadata(*wrong)


@pytest.mark.parametrize("tied", [False, True])
def test_a4_8_packed_equals_transformers(tied):
    config = {**CONFIG, "tie_word_embeddings": tied}
    theirs = tc.build_model(folder(Path("m"), config))
    ours = tc.build_model("m", custom=write("mine.py", ALONE))
    assert ours.blueprint.kind == "packed" and ours.parameters == theirs.parameters
    assert ours.active_parameters == theirs.active_parameters
    for phase, tokens, past in (("prefill", 96, 0), ("decode", 1, 200), ("chunked", 32, 64)):
        a, b = (calls(m, phase, 3, tokens, past) for m in (ours, theirs))
        for op in ("linear", "attention"):
            assert flops(a, op) == flops(b, op) > 0, (phase, op)
        assert count(a, "attention") == count(b, "attention") == 4
        turned = [
            sorted((c.dims["elements"], c.dims["table"], c.attrs["table_format"]) for c in found if c.op == "rotary")
            for found in (a, b)
        ]
        assert turned[0] == turned[1] and count(a, "rotary") == count(b, "rotary") == 4
    kv = [tuple(c.token_bytes for c in trace_step(m, "prefill", 2, 64, 0).caches) for m in (ours, theirs)]
    assert kv[0] == kv[1] == (2 * 4 * 8 * 2,)
    options = {"hw": "h100", "batch": 4, "input_len": 512, "output_len": 16}
    a, b = tc.simulate("m", custom="mine.py", **options), tc.simulate("m", **options)
    assert (
        a.memory["kv_cache_bytes"] == b.memory["kv_cache_bytes"]
        and a.memory["weights_bytes"] == b.memory["weights_bytes"]
    )
    assert a.metrics["tpot_s"] == pytest.approx(b.metrics["tpot_s"], rel=0.02)
    assert a.metrics["ttft_s"] == pytest.approx(b.metrics["ttft_s"], rel=0.02)


def test_a4_8_unfused_kernels_run_the_modules_own_code():
    name, custom = folder(Path("m"), CONFIG), write("mine.py", ALONE)
    fused = calls(tc.build_model(name, custom=custom))
    own = calls(tc.build_model(name, custom=custom, kernel=["attention=eager", "rotary=eager", "swiglu=eager"]))
    assert {"attention", "rotary", "swiglu"} <= {c.op for c in fused}
    assert not {"attention", "rotary", "swiglu"} & {c.op for c in own}
    assert flops(own, "linear") == flops(fused, "linear") and {"aten::cos", "activation"} <= {c.op for c in own}


def turned(found) -> list[tuple[int, int, str]]:
    """(elements turned, elements of cos and sin, their format) of every rotary operator."""
    rotary = (c for c in found if c.op == "rotary")
    return [(c.dims["elements"], c.dims["table"], c.attrs["table_format"]) for c in rotary]


def test_a4_8_part_of_a_head_turns():
    custom = write(
        "mine.py", ALONE.replace("RotaryEmbedding(model_config.pretrained_config.head_dim)", "RotaryEmbedding(4)")
    )
    (call,) = turned(calls(tc.build_model(folder(Path("m"), CONFIG), custom=custom)))
    assert call == (2 * 64 * (32 + 4) * 4, 2 * 2 * 64 * 4, "bf16")


def test_a4_8_reuse_changes_nothing():
    custom = write("mine.py", REGISTERED)
    on, off = (tc.build_model(folder(Path("m"), MINE), custom=custom, reuse=reuse) for reuse in (True, False))
    a, b = calls(on), calls(off)
    assert len(a) < len(b)
    for op in {c.op for c in b}:
        assert count(a, op) == count(b, op) and flops(a, op) == flops(b, op)


def test_a4_8_sliding_windows_of_the_configuration_count():
    config = {**MINE, "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 16}
    custom = write("mine.py", SOURCE + '@tc.register_auto_model("MyModelForCausalLM")' + UNTYPED)
    tracer = trace_step(tc.build_model(folder(Path("m"), config), custom=custom), "prefill", 2, 64, 0)
    assert sorted({(c.window, tuple(c.layers)) for c in tracer.caches}) == [(0, (1, 3)), (16, (0, 2))]


def test_a4_9_one_product_for_qkv_and_one_for_gate_and_up():
    theirs = tc.build_model(folder(Path("m"), CONFIG), kernel=["qkv_proj=eager", "swiglu=eager"])
    ours = tc.build_model("m", custom=write("mine.py", ALONE))
    layer = "model.layers.0"
    assert shape_of(ours, f"{layer}.self_attn.qkv_proj.weight") == [(32 + 2 * 4) * 8, 256]
    assert shape_of(ours, f"{layer}.mlp.gate_up_proj.weight") == [2 * 688, 256]
    a, b = calls(ours), calls(theirs)
    assert count(b, "linear") - count(a, "linear") == (2 + 1) * 4
    assert flops(a, "linear") == flops(b, "linear")


def test_a4_10_a_rank_of_eight_holds_4_heads_and_1_shared_kv_head():
    custom = write("mine.py", ALONE)
    model = tc.build_model(folder(Path("m"), CONFIG), custom=custom, tp=8)
    attention = model.module.get_submodule("model.layers.0.self_attn")
    assert (attention.num_heads, attention.num_key_value_heads) == (4, 1)
    assert shape_of(model, "model.layers.0.self_attn.qkv_proj.weight") == [(4 + 2) * 8, 256]
    assert any("KV heads replicated" in note for note in model.notes)
    assert not any("match nothing" in note for note in model.notes)  # LlamaConfig's plan is for transformers' modules
    one = next(c for c in calls(model) if c.op == "attention")
    assert (one.dims["heads"], one.dims["kv_heads"]) == (4, 1)
    assert count(calls(model), "all_reduce") == 2 * 4 + 1 and count(calls(model), "all_gather") == 1


def test_a4_10_heads_that_do_not_divide_are_an_error(run):
    custom = write("mine.py", ALONE)
    code, _, err = run(
        "simulate", "--model", folder(Path("m"), CONFIG), "--custom", custom, "--hw", "h100", "--tp", "6", *SHORT
    )
    assert code == 2 and "--tp 6" in err and "32 heads" in err


def test_a4_10_the_halves_of_gate_and_up_are_rounded_up_one_by_one():
    config = {**CONFIG, "hidden_size": 288, "num_attention_heads": 36, "num_key_value_heads": 3}
    model = tc.build_model(folder(Path("m"), config), custom=write("mine.py", ALONE), tp=3)
    assert shape_of(model, "model.layers.0.mlp.gate_up_proj.weight") == [2 * 230, 288]
    assert shape_of(model, "model.layers.0.mlp.down_proj.weight") == [288, 230]
    calls(model)


# -- A4.13: modules of any make ----------------------------------------------------------------------------------------

NATIVE = SOURCE.replace(
    "self.mlp = tc.nn.GatedMLP(config.hidden_size, config.intermediate_size)",
    "self.mlp = Mlp(config.hidden_size, config.intermediate_size)",
).replace(
    "class MyDecoderLayer",
    """class Mlp(nn.Module):
    def __init__(self, hidden, inter):
        super().__init__()
        self.fc1 = {fc1}
        self.fc2 = nn.Linear(inter, hidden, bias=False)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class MyDecoderLayer""",
)
PLAIN = "nn.Linear(hidden, inter, bias=False)"
DECLARED = 'tc.nn.Linear(hidden, inter, bias=False, tensor_parallel_mode="column")'


def native(fc1: str, more: str = "") -> str:
    text = NATIVE.replace("{fc1}", fc1) + HEAD.format(config="LlamaConfig") + more
    return write("native.py", text + "\n__model__ = MyModelForCausalLM\n")


def test_a4_13_plain_linears_are_cut_and_quantised_by_patterns():
    model = tc.build_model(folder(Path("m"), CONFIG), custom=native(PLAIN), tp=2, quant="w8a8")
    assert shape_of(model, "model.layers.0.mlp.fc1.weight") == [344, 256]
    assert shape_of(model, "model.layers.0.mlp.fc2.weight") == [256, 344]
    assert "model.layers.3.mlp.fc1" in model.quantised and "lm_head" not in model.quantised
    assert count(calls(model), "all_reduce") == 2 * 4 + 1


def test_a4_13_a_declaration_names_what_no_pattern_knows():
    declared = native(DECLARED.format(mode="column")).replace("native", "native")
    text = Path(declared).read_text().replace("fc1", "spread").replace("self.fc2", "self.collect")
    plain = write("plain.py", text.replace(DECLARED.format(mode="column"), PLAIN))
    with pytest.raises(tc.DeploymentError, match=r"no tensor-parallel plan .*\(no rule names collect, spread\)"):
        tc.build_model(folder(Path("m"), CONFIG), custom=plain, tp=2)  # most of a layer would stay whole
    row = 'tc.nn.Linear(inter, hidden, bias=False, tensor_parallel_mode="row")'
    text = text.replace("nn.Linear(inter, hidden, bias=False)", row)
    model = tc.build_model("m", custom=write("declared.py", text), tp=2)
    assert shape_of(model, "model.layers.0.mlp.spread.weight") == [344, 256]
    assert shape_of(model, "model.layers.0.mlp.collect.weight") == [256, 344]


def test_a4_13_a_plan_against_the_declaration_is_an_error(run):
    plan = '\ntc.register_model_profile(tc.ModelProfile(model_type="llama", tp_plan={"*.mlp.fc1": "row"}))\n'
    custom = native(DECLARED.format(mode="column"), plan)
    code, _, err = run(
        "simulate", "--model", folder(Path("m"), CONFIG), "--custom", custom, "--hw", "h100", "--tp", "2", *SHORT
    )
    assert code == 2 and "mlp.fc1 declares tensor_parallel_mode 'column'" in err and "profile *.mlp.fc1" in err
    with pytest.raises(ModelError, match="tensor_parallel_mode 'sideways'; one of"):
        tc.nn.Linear(4, 4, tensor_parallel_mode="sideways")


OWN_ATTENTION = """
class MyAttention(nn.Module):
    is_causal = True

    def __init__(self, model_config, layer_idx):
        super().__init__()
        config, self.layer_idx = model_config.pretrained_config, layer_idx
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.num_key_value_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=False)

    def forward(self, position_ids, hidden_states, attn_metadata):
        q, k, v = (p(hidden_states).unflatten(-1, (-1, self.head_dim)) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(ATTEND)


"""


def own_attention(attend: str) -> str:
    i, j = SOURCE.index("class MyAttention"), SOURCE.index("class MyDecoderLayer")
    text = SOURCE[:i] + OWN_ATTENTION.replace("ATTEND", attend) + SOURCE[j:]
    return write("own.py", text + HEAD.format(config="LlamaConfig") + "\n__model__ = MyModelForCausalLM\n")


def test_a4_13_attention_of_plain_linears():
    custom = own_attention("tc.nn.attend(self, q, k, v, attn_metadata)")
    whole = tc.build_model(folder(Path("m"), CONFIG), custom=custom)
    theirs = tc.build_model("m")
    assert whole.parameters == theirs.parameters
    for op in ("linear", "attention"):
        assert flops(calls(whole), op) == flops(calls(theirs), op) > 0
    cut = tc.build_model("m", custom=custom, tp=8)
    one = next(c for c in calls(cut) if c.op == "attention")
    assert (one.dims["heads"], one.dims["kv_heads"]) == (4, 1)
    assert shape_of(cut, "model.layers.0.self_attn.k_proj.weight") == [8, 256]


def test_a4_13_attention_that_mixes_the_sequences_is_refused(run):
    custom = own_attention("nn.functional.scaled_dot_product_attention(q, k, v).flatten(1)")
    flags = ("--custom", custom, "--hw", "h100", *SHORT)
    code, _, err = run("simulate", "--model", folder(Path("m"), CONFIG), *flags)
    assert code == 2 and "does not know the sequences of packed tokens; attend with tensorcast.nn.attend" in err


def test_a4_13_a_class_alone_says_what_it_is_built_from(run):
    custom = write("alone.py", ALONE)
    model = tc.build_model(custom=custom, overrides={"num_hidden_layers": 2, "vocab_size": 1024})
    assert model.blueprint.kind == "packed" and len(model.main_stack.layers) == 2
    assert any("LlamaConfig" in note and "default" in note for note in model.blueprint.notes)
    custom = write("bare.py", ALONE.replace("[MyModel, LlamaConfig]", ""))
    code, _, err = run("simulate", "--custom", custom, "--hw", "h100", *SHORT)
    assert code == 2 and "no configuration to build MyModelForCausalLM from; give --model FOLDER" in err


def test_a4_13_a_packed_mixture_of_experts():
    text = SOURCE.replace(
        "tc.nn.GatedMLP(config.hidden_size, config.intermediate_size)",
        "tc.nn.MoE(8, 2, config.hidden_size, 64, shared_experts=tc.nn.GatedMLP(config.hidden_size, 64))",
    )
    custom = write("moe.py", text + HEAD.format(config="LlamaConfig") + "\n__model__ = MyModelForCausalLM\n")
    model = tc.build_model(folder(Path("m"), CONFIG), custom=custom)
    assert next(s for s in model.steps if s.name == "patch_moe").matched == 4
    expert = 3 * 256 * 64
    assert model.parameters - model.active_parameters == 4 * 6 * expert
    found = calls(model, batch=2, tokens=64)
    assert count(found, "moe_experts") == 4 and flops(found, "moe_experts") == 4 * 2 * 128 * 2 * expert
    cut = tc.build_model("m", custom=custom, tp=2, ep=2)
    assert shape_of(cut, "model.layers.0.mlp.experts.gate_up_proj") == [4, 128, 256]
    assert shape_of(cut, "model.layers.0.mlp.shared_experts.gate_up_proj.weight") == [64, 256]


def test_draft_tokens_are_refused():
    config = {**CONFIG, "num_nextn_predict_layers": 1}
    with pytest.raises(DeploymentError, match="--mtp 1"):
        tc.build_model(folder(Path("m"), config), custom=write("mine.py", ALONE), mtp=1)
