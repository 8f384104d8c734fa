"""State-space, linear-attention, hybrid and compressed-cache models: beside the untouched code, and on two ranks.

Products: torch's counter on transformers' own code at small sizes. Caches: the tensors that transformers' caches hold
after a real run. Ranks: every parameter that is cut holds its share, and the parts of all ranks add up to the whole.
"""

from __future__ import annotations

import copy
import importlib
import json
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.errors import DeploymentError, KernelError
from tensorcast.models.build import build_blueprint
from tensorcast.models.default_config import default_config
from tensorcast.models.reference import resolve_model
from tensorcast.ops import compressed, operator_named
from tensorcast.plan import ParallelPlan
from tensorcast.trace.run import trace_step
from tensorcast.trace.table import build_table
from tests.verify.deployed import ALL_PAIRS, deploy, matrix_flops

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 320, "pad_token_id": 0}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
DELTA = {
    "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "head_dim": 16, "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
KINDS = {
    "mamba": {},
    "falcon_mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2, "state_size": 16},
    "falcon_h1": {
        **ATTENTION, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_ssm": 128, "mamba_n_groups": 2,
        "mamba_d_state": 16, "head_dim": 16,
    },
    "bamba": {
        **ATTENTION, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 16,
        "attn_layer_indices": [1], "attention_bias": False,
    },
    "jamba": {**ATTENTION, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 4, "mamba_dt_rank": 8},
    "zamba": {
        **ATTENTION, "num_hidden_layers": 6, "num_key_value_heads": 4, "mamba_dt_rank": 8,
        "attn_layer_period": 2, "attn_layer_offset": 0, "attention_hidden_size": 128, "attention_head_dim": 32,
    },
    "olmo_hybrid": {**ATTENTION, **DELTA, "num_key_value_heads": 4},
    "lfm2": {**ATTENTION, "layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 32},
    "minimax": {
        **ATTENTION, "head_dim": 16, "num_local_experts": 4, "block_size": 32,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "rwkv": {"attention_hidden_size": 64},
    "recurrent_gemma": {**ATTENTION, "num_hidden_layers": 3, "lru_width": 64, "head_dim": 16},
    "xlstm": {"num_heads": 4, "qk_dim_factor": 0.5, "chunk_size": 16, "ffn_round_up_to_multiple_of": 32},
    "deepseek_v4": {
        "num_attention_heads": 8, "num_key_value_heads": 1, "moe_intermediate_size": 32, "head_dim": 32,
        "q_lora_rank": 24, "o_groups": 4, "o_lora_rank": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "sliding_window": 16, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 8, "hc_mult": 4,
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"] * 2,
        "mlp_layer_types": ["hash_moe"] + ["moe"] * 5, "num_hidden_layers": 6,
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 32},
    },
}  # fmt: skip
UNCUT = ("xlstm",)  # refused: its code takes the number of heads from the configuration


@pytest.fixture
def source(tmp_path):
    """`source(kind)`: a small model of that type, written to a folder as any user's model is."""

    def made(kind: str):
        code = importlib.import_module(f"transformers.models.{kind}.configuration_{kind}")
        config_class = next(c for c in vars(code).values() if getattr(c, "model_type", None) == kind)
        config = default_config(config_class, **{**SIZES, **KINDS[kind]})
        described = {**config.to_dict(), "architectures": None, "dtype": "float32"}
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
        return resolve_model(str(tmp_path))

    return made


def counted(module, tokens: int, masked=lambda mask: mask) -> dict:
    """Products that the untouched model runs for two prompts, operator by operator and path by path. `masked`: what
    attention takes for its mask, where it takes one; stock code looks into the values of what it is not given."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.device("meta"), counter:
        mask = {"attention_mask": masked(torch.zeros((2, 1, tokens, tokens)))} if masked is not None else {}
        module(input_ids=torch.zeros((2, tokens), dtype=torch.long), use_cache=False, **mask)
    return counter.get_flop_counts()


def stock(source):
    return build_blueprint(source, attn_implementation="eager", experts_implementation="batched_mm").module


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mamba", "falcon_mamba", "rwkv", "recurrent_gemma"])
def test_products_outside_of_a_scan_are_all_counted(kind, source):
    """Where the scan itself has no products, the counter's total without convolutions is ours: projections of time
    steps written as weight · tokens and gates of single heads included."""
    config = source(kind)
    module = stock(config)
    if kind == "rwkv":
        module.rwkv.layers_are_rescaled = True
    attends = kind == "recurrent_gemma"
    counts = counted(module, 24, *(() if attends else (None,)))["Global"]
    total = sum(n for op, n in counts.items() if "conv" not in str(op))
    total -= 2 * 2 * 23 * 64 * 320  # we ask for the last token's logits
    if "mamba" in kind:  # stock code reads the state by a product for every token
        total -= 4 * 2 * 2 * 24 * 128 * 16
    traced = trace_step(deploy(config, *(ALL_PAIRS if attends else ())), "prefill", 2, 24, 0)
    assert matrix_flops(traced.calls) == total > 0


def test_lightning_attention_counts_what_torch_counts(source):
    """Whole blocks: every product of MiniMax's own lightning attention, none more."""
    config = source("minimax")
    counts = counted(stock(config), 64, lambda mask: {"full_attention": mask, "linear_attention": None})
    path = next(p for p in counts if p.endswith("layers.0.self_attn"))
    linears = sum(sum(counts[f"{path}.{name}"].values()) for name in ("qkv_proj", "out_proj", "output_gate"))
    calls = trace_step(deploy(config), "prefill", 2, 64, 0).calls
    found = [c for c in calls if c.op == "decay_attention"]
    assert matrix_flops(found) == 2 * (sum(counts[path].values()) - linears) > 0


def test_mlstm_counts_what_torch_counts():
    """xLSTM's chunked form: ours has every product of d_qk x d_v states; the counter adds those with the normaliser."""
    code = importlib.import_module("transformers.models.xlstm.modeling_xlstm")
    b, heads, chunk, chunks, dk, dv = 2, 3, 16, 4, 8, 24
    s = chunk * chunks
    shapes = ((b, heads, s, dk), (b, heads, s, dk), (b, heads, s, dv), (b, heads, s), (b, heads, s))
    tensors = [torch.empty(shape, device="meta") for shape in shapes]
    counter = FlopCounterMode(display=False)
    with counter:
        code.mlstm_chunkwise_native_autograd(*tensors, chunk_size=chunk, autocast_kernel_dtype=torch.float32)
    op = operator_named("decay_attention")
    rows = [t.transpose(1, 2) for t in tensors[:3]]
    dims, attrs = op.describe((*rows, 2, 1, chunk, False, "fp32", "fp32"), {})
    ours = op.work(dims, attrs).matrix_flops
    normaliser = counter.get_total_flops() - ours
    assert 0 <= normaliser <= 4 * b * heads * s * dk * 2
    assert ours == b * heads * chunks * (2 * chunk**2 * (dk + dv) + 4 * chunk * dk * dv)


def test_compressed_attention_counts_what_torch_counts(source):
    """DeepSeek-V4: the counter's total, with its all-pairs attention, scores and mixing of streams taken out."""
    config, tokens = source("deepseek_v4"), 96
    module = stock(config)
    total = sum(counted(module, tokens)["Global"].values())
    text = module.config
    for layer in module.model.layers:
        rate = getattr(layer.self_attn.compressor, "compress_rate", 0)
        entries = tokens // rate if rate else 0
        total -= 2 * 4 * text.num_attention_heads * tokens * (tokens + entries) * text.head_dim
        if hasattr(layer.self_attn.compressor, "indexer"):
            total -= 2 * 2 * tokens * entries * text.index_n_heads * text.index_head_dim
        total -= 2 * 2 * 2 * tokens * text.hc_mult**2 * text.hidden_size  # twice a layer
    ours = trace_step(deploy(config), "prefill", 2, tokens, 0)
    head = 2 * 2 * (tokens - 1) * text.hidden_size * text.vocab_size
    assert matrix_flops(ours.calls, ("compressed_attention", "compressed_scores")) == total - head > 0


# -- pairs and bytes of compressed caches ------------------------------------------------------------------------------


def brute_force(q: int, kv: int, window: int, rate: int, topk: int) -> tuple[int, int]:
    """(pairs, entries read at most) of one head, position by position."""
    pairs, read = 0, 0
    for position in range(kv - q, kv):
        entries = (position + 1) // rate if rate else 0
        pairs += min(position + 1, window) + (min(entries, topk) if topk else entries)
        read = max(read, entries)
    return pairs, min(read, topk * q) if topk else read


@pytest.mark.parametrize("rate, topk", [(0, 0), (4, 0), (4, 3), (4, 512), (128, 0), (7, 5)])
@pytest.mark.parametrize("q, kv", [(1, 1), (1, 500), (33, 33), (64, 700), (512, 512), (3, 4)])
def test_compressed_pairs_and_bytes_are_those_of_a_brute_force(q, kv, rate, topk):
    b, heads, d, window = 2, 4, 32, 16
    pairs, entries = brute_force(q, kv, window, rate, topk)
    dims = {"b": b, "q": q, "kv": kv, "heads": heads, "d": d}
    attrs = {"window": window, "rate": rate, "topk": topk, "kv_format": "bf16", "out_format": "bf16", "phase": "decode"}
    work = operator_named("compressed_attention").work(dims, attrs)
    assert work.matrix_flops == 4 * b * heads * pairs * d
    keys = min(kv, window + q - 1) + entries
    assert work.read_bytes == 2 * b * (heads * q * d + keys * d)
    assert work.write_bytes == 2 * b * heads * q * d


def test_compressed_scores_see_complete_entries():
    dims = {"b": 1, "q": 10, "kv": 21, "heads": 4, "d": 16}
    attrs = {"rate": 4, "topk": 2, "kv_format": "fp8", "in_format": "bf16"}
    pairs = sum((p + 1) // 4 for p in range(11, 21))
    assert operator_named("compressed_scores").work(dims, attrs).matrix_flops == 2 * pairs * 4 * 16


def test_entry_pairs_take_arrays():
    kv = np.arange(1, 300)
    expected = [brute_force(1, int(n), 1, 4, 5)[0] - 1 for n in kv]
    assert (compressed.entry_pairs(1, kv, 4, 5) == expected).all()


def test_caches_are_those_that_transformers_keeps(source):
    """DeepSeek-V4 run for real over 64 tokens: entries byte for byte; its window keeps one token less, which the next
    step brings."""
    config, tokens = source("deepseek_v4"), 64
    meta = stock(config)
    torch.manual_seed(0)
    options = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}
    module = type(meta)._from_config(copy.deepcopy(meta.config), dtype=torch.float32, **options).eval()
    with torch.no_grad():
        kept = module(input_ids=torch.randint(0, 320, (1, tokens)), use_cache=True).past_key_values.layers
    theirs = {"kv": 0, "index": 0, "window": 0}
    for layer in kept:
        theirs["window"] += layer.keys.numel() // layer.keys.shape[-2] * 16 * 4
        for name, entries in getattr(layer, "compressed_kv", {}).items():
            theirs["index" if name == "indexer" else "kv"] += entries.numel() * 4
    ours = deploy(config).facts.caches
    groups = {
        name: [g for g in ours if g.kind == kind and bool(g.window) == windowed]
        for name, kind, windowed in (("kv", "kv", False), ("index", "index", False), ("window", "kv", True))
    }
    assert {name: sum(g.nbytes(tokens) for g in found) for name, found in groups.items()} == theirs
    states = [g for g in ours if g.kind == "state"]
    waiting = [2 * 4 * (2 * 32 + 32) * 4, 2 * 4 * (2 * 16 + 16) * 4, 2 * 32 * 32 * 4]  # CSA, its indexer, HCA
    assert sorted({g.sequence_bytes for g in states}) == sorted(waiting)


@pytest.mark.parametrize("kind, state, conv", [
    ("mamba", 2 * 64 * 16 * 4, 2 * 64 * 3 * 4),
    ("mamba2", 8 * 16 * 16 * 4, (128 + 2 * 2 * 16) * 3 * 4),
    ("rwkv", (3 * 64 + 2 * 64) * 4, 0),
    ("recurrent_gemma", 64 * (3 * 4 + 4), 0),
    ("lfm2", 0, 64 * 2 * 4),
])  # fmt: skip
def test_states_of_a_layer(kind, state, conv, source):
    """Bytes of one layer's states for one sequence, by the sizes of the configuration; model format fp32."""
    groups = deploy(source(kind)).facts.caches
    layers = {layer for g in groups for layer in g.layers if g.sequence_bytes}
    a_layer = [g for g in groups if min(layers) in g.layers]
    assert sum(g.sequence_bytes for g in a_layer if g.kind == "state") == state
    assert sum(g.sequence_bytes for g in a_layer if g.kind == "conv") == conv


@pytest.mark.parametrize("context", [128, 2048, 8192])
def test_sparse_decode_reads_the_chosen_keys(context):
    """DeepSeek-V3.2: one token reads min(topk, context) latents of 576 elements; its queries come on top."""
    model = deploy(resolve_model("deepseek-v3.2", layers=1))
    calls = [c for c in trace_step(model, "decode", 3, 1, context - 1).calls if c.op == "mla_attention"]
    read = operator_named("mla_attention").work(calls[0].dims, calls[0].attrs).read_bytes
    assert read == 3 * (min(2048, context) * 576 + 128 * 576) * 2


# -- one row of operators whatever the number of tokens ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rwkv", "xlstm", "recurrent_gemma", "minimax", "deepseek_v4", "zamba"])
def test_tables_hold_for_any_number_of_tokens(kind, source):
    """No loops over tokens: the sizes of every operator are polynomials, and a step of decoding is one step."""
    model = deploy(source(kind))
    for phase, asked in (("prefill", (2, 256, 0)), ("decode", (2, 1, 256))):
        table = build_table(phase, lambda p, phase=phase: trace_step(model, phase, *p), asked)
        assert table.notes == () and not table.uncosted


# -- ranks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in UNCUT])
def test_two_ranks_hold_the_whole(kind, source):
    """A parameter is cut in half in one dimension, or whole on both; groups that ranks share are the one exception."""
    config = source(kind)
    whole, rank = deploy(config), deploy(config, plan=ParallelPlan(tp=2))
    mine = dict(rank.module.named_parameters())
    cut, total = 0, 0
    for path, parameter in whole.module.named_parameters():
        changed = [(a, b) for a, b in zip(parameter.shape, mine[path].shape, strict=True) if a != b]
        assert all(2 * b == a for a, b in changed) and len(changed) <= 1, (path, parameter.shape, mine[path].shape)
        cut, total = cut + parameter.numel() * bool(changed), total + parameter.numel()
    assert total == whole.weight_params == whole.parameters
    assert cut > 0.6 * total
    scans = (
        "selective_scan",
        "mamba2_scan",
        "gated_delta_rule",
        "decay_attention",
        "channel_recurrence",
        "causal_conv1d",
    )
    for phase, tokens, past in (("prefill", 32, 0), ("decode", 1, 32)):
        traces = [trace_step(m, phase, 2, tokens, past) for m in (whole, rank)]
        work = [sum(_work(c) for c in t.calls if c.op in scans) for t in traces]
        assert work[0] == 2 * work[1]


def _work(call) -> float:
    work = operator_named(call.op).work(call.dims, call.attrs)
    return float(work.matrix_flops + work.vector_flops) * len(call.layers or [0])


def test_states_are_cut_with_their_heads(source):
    for kind in ("mamba", "mamba2", "minimax"):
        config = source(kind)
        sizes = [
            sum(g.sequence_bytes * len(g.layers) for g in deploy(config, plan=ParallelPlan(tp=tp)).facts.caches)
            for tp in (1, 2)
        ]
        assert sizes[0] == 2 * sizes[1] > 0


def test_groups_fewer_than_ranks_are_kept_whole(source):
    """Mamba-2 with 2 groups on 4 ranks: a rank convolves its quarter of the channels and one group's B and C."""
    rank = deploy(source("mamba2"), plan=ParallelPlan(tp=4))
    mixer = rank.module.backbone.layers[0].mixer
    assert mixer.n_groups == 1 and mixer.conv_dim == 128 // 4 + 2 * 16
    assert mixer.in_proj.weight.shape[0] == 128 // 4 + mixer.conv_dim + 8 // 4
    sums = [c for c in trace_step(rank, "decode", 1, 1, 32).calls if c.op == "all_reduce"]
    assert any(c.module.endswith("mixer.norm") for c in sums)  # the norm of a group lies on two ranks


def test_shared_blocks_are_cut_once(source):
    """Zamba's attention blocks share parameters: so do their parts on a rank."""
    config = source("zamba")
    whole, rank = deploy(config), deploy(config, plan=ParallelPlan(tp=2))
    assert whole.weight_params / 2 < rank.weight_params < 0.6 * whole.weight_params


@pytest.mark.parametrize(
    "kind, tp, why", [("zamba", 4, "mamba heads"), ("minimax", 3, "heads"), ("deepseek_v4", 8, "groups")]
)
def test_ranks_that_do_not_divide_are_refused(kind, tp, why, source):
    with pytest.raises(DeploymentError, match=why) as fault:
        deploy(source(kind), plan=ParallelPlan(tp=tp))
    assert "values that divide: 1, 2" in str(fault.value)


def test_no_plan_is_no_silent_plan(source):
    with pytest.raises(DeploymentError, match="no tensor-parallel plan for xLSTM"):
        deploy(source("xlstm"), plan=ParallelPlan(tp=2))


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_compressed_attention_has_one_kernel(source):
    model = deploy(source("deepseek_v4"), "attention=eager")
    with pytest.raises(KernelError, match=r"attention=eager .*does not know compressed entries"):
        trace_step(model, "prefill", 1, 32, 0)


def test_published_model_has_its_parameters():
    """DeepSeek-V4-Flash, 284 B parameters of which 13 B are active; per token of a long context 43 layers keep
    21 entries of 1 KiB/4, 20 of 1 KiB/128 and 21 index keys of 256 B/4."""
    folder = pytest.importorskip("pathlib").Path(__file__).parents[3] / "shared/model_configs/llm"
    if not folder.is_dir():
        pytest.skip("the shared model configurations are not beside this checkout")
    model = deploy(resolve_model(str(folder / "deepseek-ai--DeepSeek-V4-Flash_config.json")))
    assert math.isclose(model.parameters, 284.33e9, rel_tol=1e-4)
    assert math.isclose(model.active_parameters, 13.8e9, rel_tol=1e-2)
    unbounded = sum(g.token_bytes * len(g.layers) for g in model.facts.caches if not g.window)
    assert unbounded == 21 * 256 + 20 * 8 + 21 * 64
