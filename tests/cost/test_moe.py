"""Routed experts: loads of the busiest rank, prices of the layer, dispatch and combine, unequal popularity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.calibration.data import held_out
from tensorcast.calibration.score import Score
from tensorcast.cost import predict, routing
from tensorcast.cost.collective import collective_time
from tensorcast.cost.imbalance import exchange_factor, skewed_tables
from tensorcast.cost.moe import HEIGHTS
from tensorcast.cost.pricing import price
from tensorcast.cost.tables import table
from tensorcast.errors import InputError
from tensorcast.hardware.load import hardware
from tensorcast.optable import OpTable, Piece, Row
from tensorcast.plan import Workload, skew_of

DATA = Path(__file__).parents[3] / "shared" / "groundtruth"
MACHINES = [hardware(name) for name in ("h100", "ascend-910b", "rtx-4090")]
ATTRS = {
    "top_k": 8, "experts": 128, "gated": True, "weight_format": "bf16", "act_format": "bf16", "math": "bf16",
    "scale_overhead": 0.0, "dequantize": False, "scheme": "", "groups": 1, "ep": 1, "out_format": "bf16",
    "weights_per_expert": 3 * 4096 * 1536,
}  # fmt: skip
SIZES = {"tokens": np.array([1.0, 16, 256, 4096]), "hidden": np.array([4096.0]), "inter": np.array([1536.0])}


def experts_row(**attrs) -> Row:
    return Row("moe_experts", "layer.experts", 1, {}, {**ATTRS, **attrs}, ((), ()))


def skewed(row: Row, alpha: float) -> Row:
    skew = {"alpha": alpha, **{name: row.attrs[name] for name in ("experts", "groups", "ep")}}
    return replace(row, attrs={**row.attrs, "skew": skew})


def frame(**columns) -> pd.DataFrame:
    row = {
        "dtype": "bfloat16", "tokens": 256, "hidden": 4096, "inter": 1536, "topk": 8, "experts": 128, "moe_tp": 1,
        "moe_ep": 1, "distribution": "balanced", "gated": True,
    }  # fmt: skip
    rows = max((len(v) for v in columns.values() if isinstance(v, list)), default=1)
    return pd.DataFrame({k: v if isinstance(v, list) else [v] * rows for k, v in {**row, **columns}.items()})


layers = st.tuples(
    st.integers(1, 20000),
    st.sampled_from([(8, 2), (16, 1), (64, 6), (128, 8), (256, 8), (512, 22)]),
    st.sampled_from([1, 2, 4, 8]),
)


@settings(max_examples=25, deadline=None)
@given(layers, st.sampled_from([0.5, 1.0, 1.01, 1.2, 3.0]))
def test_every_pair_is_counted_and_fits_into_tiles(layer, alpha):
    tokens, (experts, top_k), ep = layer
    even = routing.uniform(tokens, top_k, experts, ep, HEIGHTS)
    fair = routing.balanced(tokens, top_k, experts, ep, HEIGHTS)
    hot = routing.power_law(tokens, top_k, experts, ep, HEIGHTS, alpha)
    mean = tokens * top_k / ep
    assert even.pairs[0] == pytest.approx(mean)
    assert fair.pairs[0] == pytest.approx(max(mean, 1))
    assert hot.pairs[0] >= mean - 1e-9
    if ep == 1:
        assert hot.pairs[0] == pytest.approx(tokens * top_k)
    for load in (even, fair, hot):
        assert 0 < load.active[0] <= experts / ep + 1e-9
        assert load.active[0] <= load.pairs[0] + 1e-9
        assert load.pairs[0] <= load.active[0] * tokens * (1 + 1e-9)
        for height, tiles in zip(HEIGHTS, load.tiles[:, 0], strict=True):
            assert tiles >= load.active[0] - 1e-9 and tiles >= load.pairs[0] / height - 1e-9
            assert tiles <= load.pairs[0] / height + load.active[0] + 1e-9


def test_expected_experts_agree_with_random_draws():
    generator = np.random.default_rng(1)
    tokens, top_k, experts = 24, 6, 64
    draws = [np.bincount(np.concatenate([generator.choice(experts, top_k, replace=False) for _ in range(tokens)]),
                         minlength=experts) for _ in range(200)]  # fmt: skip
    load = routing.uniform(tokens, top_k, experts, 1, (8, 16))
    assert load.active[0] == pytest.approx(np.mean([(d > 0).sum() for d in draws]), rel=0.02)
    assert load.tiles[0, 0] == pytest.approx(np.mean([np.ceil(d / 8).sum() for d in draws]), rel=0.05)


def test_loads_are_the_same_every_time_and_alone_as_in_an_array():
    tokens = np.array([3, 100, 5000])
    together = routing.power_law(tokens, 8, 128, 8, HEIGHTS, 1.2)
    for i, n in enumerate(tokens):
        alone = routing.power_law(n, 8, 128, 8, HEIGHTS, 1.2)
        assert alone.pairs[0] == together.pairs[i] and (alone.tiles[:, 0] == together.tiles[:, i]).all()


@pytest.mark.parametrize("name", ["h100", "b200", "l40s", "ascend-910b"])
def test_no_layer_is_faster_than_its_flops_and_its_weights(name):
    hw, draw = hardware(name), np.random.default_rng(0)
    n, kinds = 300, np.array([(8, 2), (16, 1), (64, 6), (128, 8), (256, 8), (512, 22)])
    experts, top_k = kinds[draw.integers(len(kinds), size=n)].T
    tokens, ep, tp = np.exp(draw.uniform(0, 10, n)).round(), draw.choice([1, 2, 8], n), draw.choice([1, 4], n)
    hidden, inter = draw.choice([512, 2048, 7168], n), draw.choice([256, 1408, 4096], n)
    columns = {"tokens": tokens, "experts": experts, "topk": top_k, "moe_ep": ep, "moe_tp": tp} | {
        "hidden": hidden, "inter": inter}  # fmt: skip
    seconds = predict("moe", frame(**{name: values.tolist() for name, values in columns.items()}), hw)
    active = np.maximum(np.minimum(experts, tokens * top_k) / ep, 1)
    weights = active * 3 * hidden * inter / tp * 2 / hw.memory_bw
    flops = 2 * 3 * tokens * top_k / ep * hidden * inter / tp / hw.peak("bf16")
    assert (seconds >= np.maximum(weights, flops) * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "b200", "ascend-910c-die", "l40s", "mi300x"])
def test_more_tokens_wider_experts_and_fewer_ranks_take_longer(name):
    base = predict("moe", frame(tokens=[4**i for i in range(8)]), name)
    assert (np.diff(base) > 0).all()
    assert predict("moe", frame(inter=3072), name)[0] > predict("moe", frame(), name)[0]
    assert predict("moe", frame(moe_ep=8), name)[0] < predict("moe", frame(), name)[0]
    assert predict("moe", frame(gated=False), name)[0] < predict("moe", frame(), name)[0]


def test_a_table_without_kernels_is_priced_with_the_default_one():
    rows = frame(tokens=[1, 100, 10000])
    default = predict("moe", rows.assign(backend="trtllm", kernel="moe_torch_flow_cutlass"), "h100")
    assert predict("moe", rows, "h100") == pytest.approx(default)
    assert predict("moe", rows.assign(dtype="fp8"), "h100")[2] < default[2]
    assert predict("moe", rows.assign(dtype="int4_wo"), "h100")[0] > 0


def test_an_unknown_format_is_named():
    with pytest.raises(InputError, match="ternary"):
        predict("moe", frame(dtype="ternary"), "h100")


def test_other_spellings_of_the_degrees():
    plain = pd.DataFrame({"dtype": ["fp16"], "tokens": [64], "hidden": [2048], "inter": [1408], "experts": [64],
                          "topk": [6], "ep": [4], "tp": [np.nan]})  # fmt: skip
    assert predict("moe", plain, "ascend-910b")[0] < predict("moe", plain.assign(ep=1), "ascend-910b")[0]


@pytest.mark.parametrize("name", ["h100", "b200", "ascend-910b", "rtx-4090"])
def test_simulated_layers_keep_their_physical_bound(name):
    hw = hardware(name)
    work, time = price(experts_row(), SIZES, hw)
    weights = 128 * (1 - (1 - 8 / 128) ** SIZES["tokens"]) * ATTRS["weights_per_expert"] * 2
    assert (time.seconds >= weights / hw.memory_bw).all()
    assert (time.seconds >= work.matrix_flops / hw.peak("bf16")).all()
    assert (np.diff(time.seconds) > 0).all()


# -- unequal popularity ------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9000), st.sampled_from([1, 2, 8, 16]), st.sampled_from([0.7, 1.0, 1.01, 1.2, 2.5]))
def test_unequal_popularity_never_makes_experts_faster(tokens, ep, alpha):
    row = experts_row(ep=ep, groups=ep)
    sizes = {**SIZES, "tokens": np.array([float(tokens)])}
    for hw in MACHINES:
        even, hot = (price(r, sizes, hw)[1].seconds for r in (row, skewed(row, alpha)))
        assert hot[0] >= even[0] * (1 - 1e-12)


def test_one_rank_does_the_same_work_in_more_or_fewer_tiles():
    even = routing.uniform(2048, 8, 128, 1, HEIGHTS)
    hot = routing.power_law(2048, 8, 128, 1, HEIGHTS, 1.2)
    assert hot.pairs[0] == pytest.approx(even.pairs[0]) == 2048 * 8  # so every change of time is one of tiles
    row = experts_row()
    (even_work, even_time), (hot_work, hot_time) = (
        price(r, {**SIZES, "tokens": np.array([2048.0])}, hardware("h100")) for r in (row, skewed(row, 1.2))
    )
    assert even_work.matrix_flops == hot_work.matrix_flops
    assert 1 <= hot_time.seconds[0] / even_time.seconds[0] < 1.2
    # Spread over ranks, the busiest one also has more pairs.
    hottest = routing.power_law(2048, 8, 128, 16, HEIGHTS, 1.2).pairs[0]
    assert 1.5 < hottest / (2048 * 8 / 16) < 8


@pytest.mark.parametrize("places,alone", [(8, True), (64, False)])
def test_the_busiest_rank_is_waited_for_in_dispatch_and_combine(places, alone):
    attrs = {"top_k": 8, "copies": 1, "slices": 1, "size": places, "stride": 1, "format": "bf16", "wire_format": "fp8"}
    hw = hardware("gb200")
    for op in ("dispatch", "combine"):
        row = Row(f"moe_{op}", "layer.experts", 1, {}, {**attrs, "collective": op}, ((), ()))
        experts = experts_row(experts=256, ep=places, groups=places)
        piece = Piece(((1, None),) * 3, ((0, 0, 0),), (row, experts))
        tables = skewed_tables({"prefill": OpTable("prefill", (piece,))}, 1.2)
        hot = tables["prefill"].pieces[0].rows[0]
        sizes = {"tokens": np.array([4096.0]), "hidden": np.array([7168.0])}
        even, late = (price(r, sizes, hw)[1].seconds[0] for r in (row, hot))
        # With no more places than a token has experts, every rank gets every token anyway.
        assert exchange_factor(sizes, row.attrs) == 1
        assert late == even if alone else 1.2 * even < late < 10 * even


def test_tables_are_left_alone_without_imbalance():
    tables = {"decode": OpTable("decode", ())}
    assert skewed_tables(tables, None) == tables


def test_the_option_is_checked_and_shown_only_where_it_says_something():
    assert skew_of("uniform") is None and skew_of("power-law:1.2") == 1.2
    for wrong in (
        "power-law",
        "power-law:",
        "power-law:0",
        "power-law:-1",
        "power-law:nan",
        "power-law:inf",
        "zipf",
        1,
    ):
        with pytest.raises(InputError, match="--moe-imbalance"):
            Workload(moe_imbalance=wrong)
    assert "moe_imbalance" not in Workload().to_dict()
    assert Workload(moe_imbalance="power-law:1.2").to_dict()["moe_imbalance"] == "power-law:1.2"


# -- dispatch and combine ----------------------------------------------------------------------------------------------


def exchange(**columns) -> pd.DataFrame:
    row = {"op": "dispatch", "mode": "ll", "hidden": 7168, "tokens": 128, "topk": 8, "experts": 256, "sms": 20}
    rows = max((len(v) for v in columns.values() if isinstance(v, list)), default=1)
    return pd.DataFrame({k: v if isinstance(v, list) else [v] * rows for k, v in {**row, **columns}.items()})


@pytest.mark.parametrize("name", ["h100", "h200", "b200", "gb200", "l40s"])
@pytest.mark.parametrize(
    "op,mode", [("dispatch", "ll"), ("combine", "ll"), ("dispatch", "normal"), ("combine", "normal")]
)
def test_exchanges_grow_with_tokens_and_stay_above_the_link(name, op, mode):
    hw, tokens = hardware(name), [4**i for i in range(8)]
    seconds = predict("moe_all_to_all_deepep", exchange(op=op, mode=mode, tokens=tokens), hw)
    copies = 8 if mode == "ll" else 8 * (1 - (7 / 8) ** 8)
    wire = np.array(tokens) * copies * 7168 * (2 if op == "combine" else 1) * 7 / 8
    assert (np.diff(seconds) > 0).all() and (seconds > wire / hw.topology.tiers[0].bandwidth).all()
    if mode == "normal":
        few, many = (predict("moe_all_to_all_deepep", exchange(op=op, mode=mode, sms=s), hw) for s in (4, 24))
        assert many[0] < few[0]


@pytest.mark.parametrize("name", ["h100", "b200"])
def test_curves_of_simulate_agree_with_the_low_latency_kernels(name):
    hw, tokens = hardware(name), np.array([16, 128, 512])
    for op, item in (("dispatch", 1 + 4 / 128), ("combine", 2)):
        curve = collective_time(op, tokens * 8 * 7168 * item, 8, 1, hw)
        kernel = predict("moe_all_to_all_deepep", exchange(op=op, tokens=tokens.tolist()), hw)
        assert curve == pytest.approx(kernel, rel=0.35)


# -- measured kernels --------------------------------------------------------------------------------------------------

# (device, dtype, backend, kernel) → largest median and 90th percentile of the error on rows no fit saw, percent
BARS = {
    ("a100_sxm", "bfloat16", "trtllm", "moe_torch_flow"): (10, 27),
    ("h100_sxm", "bfloat16", "trtllm", "moe_torch_flow_cutlass"): (7, 25),
    ("h200_sxm", "bfloat16", "trtllm", "moe_torch_flow_cutlass"): (7, 25),
    ("b200_sxm", "bfloat16", "trtllm", "moe_torch_flow_cutlass"): (8, 24),
    ("h100_sxm", "fp8", "trtllm", "moe_torch_flow_cutlass"): (7, 24),
    ("b200_sxm", "fp8", "trtllm", "moe_torch_flow_cutlass"): (9, 22),
    ("h100_sxm", "fp8_block", "trtllm", "moe_torch_flow_cutlass"): (8, 20),
    ("b200_sxm", "fp8_block", "trtllm", "deepgemm"): (8, 22),
    ("b200_sxm", "nvfp4", "trtllm", "moe_torch_flow_cutlass"): (15, 35),
    ("b200_sxm", "nvfp4", "sglang", "sglang_flashinfer_trtllm_moe"): (11, 35),
    ("h200_sxm", "bfloat16", "sglang", "sglang_fused_moe_triton"): (11, 42),
}


@pytest.fixture(scope="module")
def measured():
    if not (DATA / "moe.parquet").is_file():
        pytest.skip("measured kernels are not on this machine")
    rows = pd.read_parquet(DATA / "moe.parquet")
    return rows[~rows["suspect"] & ~rows["ep_artefact"]]


@pytest.mark.parametrize("group", BARS, ids="-".join)
def test_layers_agree_with_measured_ones(measured, group):
    rows = measured
    for column, value in zip(("device", "dtype", "backend", "kernel"), group, strict=True):
        rows = rows[rows[column] == value]
    rows = rows[held_out(table("moe"), rows)]
    score = Score.of(predict("moe", rows, group[0]), rows["latency_s"])
    assert score.median < BARS[group][0] and score.p90 < BARS[group][1]


@pytest.mark.parametrize("device", ["h100_sxm", "h200_sxm", "b200_sxm"])
def test_exchanges_agree_with_measured_ones(device):
    path = DATA / "moe_all_to_all_deepep.parquet"
    if not path.is_file():
        pytest.skip("measured kernels are not on this machine")
    rows = pd.read_parquet(path)
    rows = rows[rows["device"] == device]
    rows = rows[held_out(table("moe_all_to_all_deepep"), rows)]
    predicted = predict("moe_all_to_all_deepep", rows, device)
    for _, at in rows.reset_index().groupby(["op", "mode"]).indices.items():
        score = Score.of(predicted[at], rows["latency_s"].to_numpy()[at])
        assert score.median < 8 and score.p90 < 16


@pytest.mark.parametrize("device", ["ascend_910b", "ascend_910c_die"])
def test_layers_agree_with_those_of_ascend(device):
    path = DATA / "ascend" / "moe.parquet"
    if not path.is_file():
        pytest.skip("measured kernels are not on this machine")
    rows = pd.read_parquet(path)
    rows = rows[rows["device"] == device]
    assert Score.of(predict("moe", rows, device), rows["latency_s"]).median < 10
