"""Every catalogue model traces, whole and cut over ranks, and the ranks together do what one device does."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tensorcast.answer import Answer
from tensorcast.errors import ModelError
from tensorcast.models import entries
from tensorcast.models.reference import resolve_model
from tensorcast.ops import operator_named
from tensorcast.pipelines import PROFILES, ModelProfile, register_model_profile
from tensorcast.plan import ParallelPlan
from tensorcast.request import Request
from tensorcast.trace.run import trace_step
from tests.later import later
from tests.verify.deployed import deploy

DEPTH = 10  # layers of a model that show every kind of layer it has
WORK = dict(hw="h200-sxm", batch=3, input_len=700, output_len=40, layers=DEPTH)


def _distinct() -> list[str]:
    """One name for every different configuration of the catalogue (DeepSeek-V3, R1 and V3.1 are one)."""
    found: dict[str, str] = {}
    for entry in entries.all_entries():
        found.setdefault(repr(sorted(entry.config.items(), key=str)), entry.name)
    return list(found.values())


def _sisters() -> set[str]:
    """Those that are of the same type as one before them."""
    types: dict[str, str] = {}
    kinds = {entry.name: entry.config["model_type"] for entry in entries.all_entries()}
    return {name for name in _distinct() if types.setdefault(kinds[name], name) != name}


def answer(name: str, **options) -> Answer:
    return Answer(Request.of(model=name, **WORK, **options), cache=False)


def widest(facts) -> dict[str, int]:
    """The most ranks up to 8 that divide the model, with its experts spread over all of them."""
    tp = max(n for n in facts.tp_values if n <= 8)
    return {"tp": tp, "ep": tp if facts.experts and facts.experts % tp == 0 else 1}


@pytest.mark.parametrize("name", later(_distinct(), _sisters()))
def test_catalogue_model_is_simulated_whole_and_cut(name):
    whole = answer(name, quant="none")
    plan = widest(whole.facts)
    assert plan["tp"] > 1
    for found, sharding in ((whole, "skipped"), (answer(name, quant="auto", **plan), "applied")):
        figures = found.to_dict()
        assert figures["uncosted_ops"] == []
        assert figures["metrics"]["ttft_s"] > 0 < figures["metrics"]["tpot_s"]
        assert not [note for table in found.deployed.tables.values() for note in table.notes]
        assert {s["name"]: s["status"] for s in figures["steps"]}["shard_model"] == sharding


# What every rank computes whole, by the module's last name: too small to cut, or needed whole by what comes next.
REPLICATED = {
    "q_a_proj", "kv_a_proj_with_mqa", "qkv_a_proj", "q_a_layernorm", "kv_a_layernorm",  # latents serve all heads
    "gate", "router", "shared_expert_gate",  # every rank routes its tokens
    "wq_b", "wk", "weights_proj", "indexer",  # one choice of keys for all heads
    "fc1_latent_proj", "fc2_latent_proj",  # into and out of the experts' narrower space
}  # fmt: skip

FAMILIES = [
    "deepseek-v2-lite", "deepseek-v3", "deepseek-v3.2", "gemma-3-4b", "glm-4.5-air", "glm-5", "gpt-oss-20b",
    "kimi-k2.5", "llama-3.1-8b", "llama-4-scout", "minimax-m2", "mistral-7b-v0.1", "mixtral-8x7b",
    "nemotron-3-nano-30b-a3b", "nemotron-3-super-120b-a12b", "phi-4-mini", "qwen2.5-7b", "qwen3-30b-a3b",
    "qwen3-next-80b-a3b", "qwen3-vl-2b", "qwen3.5-35b-a3b",
]  # fmt: skip


@cache
def deployed(name: str, tp: int, ep: int):
    return deploy(resolve_model(name, layers=DEPTH), plan=ParallelPlan(tp=tp, ep=ep))


@cache
def products(name: str, tp: int, ep: int, phase: str) -> tuple:
    """(operator, module, matrix FLOP, sizes) of every operator with matrix FLOP that one rank runs."""
    step = (3, 700, 0) if phase == "prefill" else (3, 1, 700)
    calls = trace_step(deployed(name, tp, ep), phase, *step).calls
    rows = [(c.op, c.module, float(operator_named(c.op).work(c.dims, c.attrs).matrix_flops), c.dims) for c in calls]
    return tuple(row for row in rows if row[2])


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", FAMILIES)
def test_ranks_together_compute_what_one_device_does(name, phase):
    """Matrix FLOP of a rank x ranks are those of the whole, but for what every rank keeps whole on purpose."""
    tp = max(n for n in deployed(name, 1, 1).tp_values if n <= 8)
    one = products(name, 1, 1, phase)
    heads = {module: (d["kv_heads"], d["d"] + d["dv"]) for op, module, _, d in one if op == "attention"}
    for ep in {1, tp} if any(op == "moe_experts" for op, *_ in one) else {1}:
        many = products(name, tp, ep, phase)
        assert [row[:2] for row in many] == [row[:2] for row in one]
        local = {module: d["kv_heads"] for op, module, _, d in many if op == "attention"}
        for (op, module, whole, d), (_, _, part, cut) in zip(one, many, strict=True):
            parent, _, leaf = module.rpartition(".")
            if leaf in REPLICATED:
                assert part == whole, module
                continue
            extra = 0.0
            if op == "linear" and leaf == "qkv_proj":
                kv_heads, width = heads[parent]
                extra = (local[parent] * tp - kv_heads) * width  # columns of KV heads that several ranks hold
                assert extra == 0 or tp > kv_heads
            elif op == "linear" and leaf == "q_kv_a_proj":  # queries are cut, the latents' projection is not
                attention = deployed(name, 1, 1).module.get_submodule(parent)
                extra = attention.kv_a_proj_with_mqa.out_features * (tp - 1)
            elif op == "linear" and leaf == "lm_head":
                extra = cut["n"] * tp - d["n"]  # rows that fill up the vocabulary
                assert 0 <= extra < tp
            assert part * tp == pytest.approx(whole + 2 * d.get("m", 0) * d.get("k", 0) * extra, rel=1e-12), module


@pytest.mark.parametrize("name", FAMILIES)
def test_ranks_together_hold_the_whole_model(name):
    """Every parameter is either whole on every rank or cut so that the parts make up the whole."""
    model = deployed(name, 1, 1)
    tp = max(n for n in model.tp_values if n <= 8)
    whole = {path: p.shape for path, p in model.module.named_parameters()}
    for ep in {1, tp} if model.active_parameters < model.parameters else {1}:
        parts = {path: p.shape for path, p in deployed(name, tp, ep).module.named_parameters()}
        assert parts.keys() == whole.keys()
        cut = set()
        for path, shape in whole.items():
            axes = [axis for axis, n in enumerate(shape) if parts[path][axis] != n]
            assert len(axes) <= 1, path
            if not axes:
                continue
            n, local = shape[axes[0]], parts[path][axes[0]]
            leaf = path.split(".")[-2]
            replicas = local * tp / n
            shared_heads = leaf in ("k_proj", "v_proj") and replicas in (2, 4, 8)
            padded = leaf in ("lm_head", "embed_tokens") and local == -(-n // tp)
            assert replicas == 1 or shared_heads or padded, path
            cut.add(path)
        large = {path for path, shape in whole.items() if shape.numel() > 2**20} - cut
        towers = ("vision", "visual", "multi_modal", "mm_projector")
        kept = {path for path in large if not any(tower in path for tower in towers)}
        assert {path.split(".")[-2] for path in kept} <= REPLICATED


# -- what layers keep between steps ------------------------------------------------------------------------------------

KEPT = {
    # (kind, bytes a token, bytes a sequence, window): layers among the first DEPTH
    "llama-3.1-8b": {("kv", 4096, 0, 0): 10},  # 2 x 8 heads x 128 x bf16
    "deepseek-v3": {("kv", 1152, 0, 0): 10},  # (512 + 64) x bf16
    "deepseek-v3.2": {("kv", 1152, 0, 0): 10, ("index", 256, 0, 0): 10},
    "gpt-oss-20b": {("kv", 2048, 0, 128): 5, ("kv", 2048, 0, 0): 5},
    "gemma-3-4b": {("kv", 4096, 0, 1024): 9, ("kv", 4096, 0, 0): 1},
    "mistral-7b-v0.1": {("kv", 4096, 0, 4096): 10},
    "llama-4-scout": {("kv", 4096, 0, 8192): 8, ("kv", 4096, 0, 0): 2},
    # conv: 8192 channels x 3 inputs x bf16; state: 32 heads x 128 x 128 x fp32
    "qwen3-next-80b-a3b": {("conv", 0, 49152, 0): 8, ("state", 0, 2097152, 0): 8, ("kv", 2048, 0, 0): 2},
    # conv: (4096 + 2 x 8 x 128) channels x 3 inputs x bf16; state: 64 heads x 64 x 128 x fp32
    "nemotron-3-nano-30b-a3b": {("conv", 0, 36864, 0): 5, ("state", 0, 2097152, 0): 5, ("kv", 1024, 0, 0): 1},
}


def kept(facts) -> dict:
    found: dict = {}
    for group in facts.caches:
        key = (group.kind, group.token_bytes, group.sequence_bytes, group.window)
        found[key] = found.get(key, 0) + len(group.layers)
    return found


@pytest.mark.parametrize("name", KEPT)
def test_cache_of_a_layer(name):
    assert kept(answer(name, quant="none", phase="prefill").facts) == KEPT[name]


@pytest.mark.parametrize("name", [name for name in KEPT if not name.startswith("deepseek")])
def test_cache_is_cut_like_its_heads(name):
    tp = 4
    local = {}
    for (kind, token, sequence, window), layers in KEPT[name].items():
        kv_heads = {"qwen3-next-80b-a3b": 2, "nemotron-3-nano-30b-a3b": 2}.get(name, tp)
        local[(kind, token / min(tp, kv_heads), sequence / tp, window)] = layers
    assert kept(answer(name, quant="none", phase="prefill", tp=tp).facts) == local


def test_latents_are_on_every_rank():
    assert kept(answer("deepseek-v3", quant="none", phase="prefill", tp=8).facts) == KEPT["deepseek-v3"]


# -- what single families run ------------------------------------------------------------------------------------------


def calls(name: str, phase: str = "prefill", tp: int = 1, ep: int = 1) -> list:
    step = (3, 700, 0) if phase == "prefill" else (3, 1, 700)
    return trace_step(deployed(name, tp, ep), phase, *step).calls


def layers_of(found, op: str, **attrs) -> int:
    return sum(len(c.layers or [0]) for c in found if c.op == op and attrs.items() <= c.attrs.items())


def test_windows_and_chunks_come_from_the_configuration():
    assert layers_of(calls("gpt-oss-20b"), "attention", window=128) == 5
    assert layers_of(calls("gemma-3-4b"), "attention", window=1024) == 9
    assert layers_of(calls("mistral-7b-v0.1"), "attention", window=4096) == DEPTH
    assert layers_of(calls("llama-4-scout"), "attention", chunk=8192, window=0) == 8
    assert layers_of(calls("llama-4-scout"), "attention", chunk=0, window=0) == 2


@pytest.mark.parametrize("name", ["deepseek-v3.2", "glm-5"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_sparse_attention_reads_what_the_indexer_chose(name, phase):
    found = calls(name, phase)
    assert layers_of(found, "mla_attention", topk=2048) == layers_of(found, "index_scores", picks=2048) == DEPTH
    assert layers_of(found, "attention") == 0


def test_latents_are_expanded_in_prefill_and_absorbed_in_decode():
    assert layers_of(calls("deepseek-v3"), "attention") == DEPTH
    assert layers_of(calls("deepseek-v3", "decode"), "mla_attention", topk=0) == DEPTH


def test_llama4_runs_the_chosen_expert_and_the_shared_one():
    for call in calls("llama-4-scout"):
        if call.op == "moe_experts":
            assert (call.dims["tokens"], call.attrs["top_k"], call.attrs["experts"]) == (2100, 1, 16)
    assert layers_of(calls("llama-4-scout"), "moe_experts") == DEPTH
    assert layers_of(calls("llama-4-scout"), "swiglu") == DEPTH


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize(
    "name, op, layers", [("qwen3-next-80b-a3b", "gated_delta_rule", 8), ("nemotron-3-nano-30b-a3b", "mamba2_scan", 5)]
)
def test_scans_are_single_operators(name, op, layers, tp):
    for phase in ("prefill", "decode"):
        found = calls(name, phase, tp)
        scan = [c for c in found if c.op == op]
        assert layers_of(found, op, recurrent=phase == "decode") == layers == layers_of(found, "causal_conv1d")
        inside = {c.op for c in found if c.module == scan[0].module}
        assert not {o for o in inside if o.startswith("aten::")}


def test_image_models_run_text_only_and_keep_their_tower_whole():
    one, many = deployed("qwen3-vl-2b", 1, 1), deployed("qwen3-vl-2b", 8, 1)
    sizes = [sum(p.numel() for p in m.module.model.visual.parameters()) for m in (one, many)]
    assert sizes[0] == sizes[1] > 10**8
    assert not [c for c in calls("qwen3-vl-2b", tp=8) if "visual" in c.module]


def test_fused_projections_keep_the_fused_kernels():
    found = calls("phi-4-mini", tp=8)
    assert layers_of(found, "swiglu") == layers_of(found, "attention") == DEPTH
    assert not [c for c in found if c.op in ("aten::silu", "aten::mul")]
    assert {c.dims["n"] for c in found if c.module.endswith("qkv_proj")} == {(24 // 8 + 2 * 8 // 8) * 128}


def test_norm_over_all_heads_shares_its_statistics():
    assert layers_of(calls("minimax-m2"), "all_reduce") == 0
    shared = [c for c in calls("minimax-m2", tp=8) if c.op == "all_reduce" and c.module.endswith("q_norm")]
    assert sum(len(c.layers) for c in shared) == DEPTH
    assert {(c.dims["elements"], c.attrs["format"]) for c in shared} == {(2 * 2100, "fp32")}


def test_part_of_a_head_is_rotated():
    heads = {c.dims["elements"] for c in calls("qwen3-next-80b-a3b") if c.op == "rotary"}
    assert heads == {2100 * (16 + 2) * 64}  # a quarter of 256


def test_drafts_of_several_blocks():
    whole = answer("nemotron-3-super-120b-a12b", quant="none", phase="decode")
    drafting = answer("nemotron-3-super-120b-a12b", quant="none", phase="decode", mtp=1)
    extra = {k: n for k, n in kept(drafting.facts).items() if kept(whole.facts).get(k) != n}
    ops = [r.op for r in drafting.deployed.tables["decode"].pieces[-1].rows if r.module.startswith("mtp.0.blocks")]
    assert ops.count("attention") == ops.count("moe_experts") == 1 and "mamba2_scan" not in ops
    assert extra == {} and sum(not g.layers and g.kind == "kv" for g in drafting.facts.caches) == 1


def test_every_draft_layer_keeps_its_own_cache():
    facts = answer("minimax-m2", quant="none", phase="decode", mtp=3).facts
    assert [g.token_bytes for g in facts.caches if not g.layers] == [4096] * 3


def test_a_cache_nobody_modelled_is_an_error(tmp_path):
    entry = next(e for e in entries.all_entries() if e.name == "qwen3-0.6b")
    config = dict(
        architectures=["DeepseekV4ForCausalLM"], model_type="deepseek_v4", num_hidden_layers=4, hidden_size=256,
        vocab_size=entry.config["vocab_size"], num_attention_heads=4, num_key_value_heads=1, head_dim=64,
        moe_intermediate_size=64, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, q_lora_rank=64,
        o_lora_rank=64, o_groups=2, qk_rope_head_dim=16, index_head_dim=32, index_n_heads=4, index_topk=16,
        sliding_window=16, compress_ratios=[0, 4, 128, 0], num_hash_layers=1, max_position_embeddings=4096,
        hc_mult=2, hc_sinkhorn_iters=2, hc_eps=1e-6, rms_norm_eps=1e-6, hidden_act="silu", tie_word_embeddings=False,
        attention_bias=False, routed_scaling_factor=1.0, scoring_func="sqrtsoftplus", swiglu_limit=10.0,
        norm_topk_prob=True, compress_rope_theta=160000, rope_parameters={"rope_type": "default", "rope_theta": 10000},
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    request = Request.of(model=str(tmp_path), hw="h200-sxm", quant="none", input_len=700, output_len=40)
    assert not any(table.notes for table in Answer(request, cache=False).tables)  # as its own profile says
    with PROFILES.isolated():
        register_model_profile(ModelProfile(model_type="deepseek_v4"), replace=True)
        with pytest.raises(ModelError, match="compressed_sparse_attention keep a cache of their own kind") as refused:
            Answer(request, cache=False)
    assert "\n" not in str(refused.value)
