"""Decode attention: physical bounds, shapes, tables, and errors on measured rows that no fit saw."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorcast as tc
from tensorcast.calibration.data import by_device, held_out, read_table
from tensorcast.cost import predict
from tensorcast.cost.decode import decode_call, splitkv_time
from tensorcast.cost.frames import call_of, seconds_of
from tensorcast.cost.pricing import FAMILIES, time_of
from tensorcast.cost.tables import groups, table
from tensorcast.errors import InputError
from tensorcast.hardware.coefficient import Coefficient
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.load import hardware
from tensorcast.ops import operator_named

MEASURED = Path(__file__).parents[3] / "shared" / "groundtruth"
needs_tables = pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured tables are not here")

ATTENTION = {
    "causal": True, "window": 0, "chunk": 0, "topk": 0, "kv_format": "bf16", "math": "bf16", "phase": "decode",
    "out_format": "bf16",
}  # fmt: skip
MACHINES = ("a100", "h100", "b200", "ascend-910b2", "l40s")


def dims(b=8, kv=4096, heads=32, kv_heads=8, d=128, dv=None, q=1):
    return {"b": b, "q": q, "kv": kv, "heads": heads, "kv_heads": kv_heads, "d": d, "dv": d if dv is None else dv}


def latent(**sizes):
    return dims(**({"heads": 128, "kv_heads": 1, "d": 576, "dv": 512} | sizes))


def call(sizes, op="attention", **rule):
    attrs = ATTENTION | rule
    sizes = {name: np.asarray(value, dtype=float) for name, value in sizes.items()}
    work = operator_named(op).work(sizes, attrs)
    return FAMILIES["mla" if op == "mla_attention" else "attention"].call(sizes, work, attrs)


def seconds(machine, sizes, op="attention", **rule):
    hw = hardware(machine)
    family = "mla_decode" if op == "mla_attention" else "attention_decode"
    row = hw.coefficient(family, rule.get("kv_format", "bf16"))
    assert row.formula == "splitkv"
    return time_of(call(sizes, op, **rule), row, hw).seconds


def values(**changes):
    start = {n: p.start if p.default is None else p.default for n, p in FORMULAS["splitkv"].parameters.items()}
    return Coefficient("attention_decode", "bf16", start | changes, "splitkv", provenance="a test")


@settings(max_examples=60, deadline=None)
@given(
    machine=st.sampled_from(MACHINES), b=st.integers(1, 2048), kv=st.integers(1, 200_000), q=st.integers(1, 8),
    kv_heads=st.sampled_from((1, 2, 8, 16)), group=st.integers(1, 64), d=st.sampled_from((64, 128, 192, 256, 512)),
    window=st.sampled_from((0, 128, 4096)), chunk=st.sampled_from((0, 8192)), topk=st.sampled_from((0, 2048)),
)  # fmt: skip
def test_no_call_is_faster_than_physics_allows(machine, b, kv, q, kv_heads, group, d, window, chunk, topk):
    sizes = dims(b, max(kv, q), kv_heads * group, kv_heads, d, q=q)
    rule = {"window": window, "chunk": chunk, "topk": topk}
    hw, asked = hardware(machine), call(sizes, **rule)
    took = seconds(machine, sizes, **rule)
    assert np.isfinite(took) and took >= asked.floor(hw)
    assert took >= asked.sizes["cache"] / hw.memory_bw
    assert took < 1000 * (asked.floor(hw) + 1e-4)


@pytest.mark.parametrize("machine", MACHINES)
def test_an_array_is_priced_like_its_elements(machine):
    rng = np.random.default_rng(0)
    sizes = dims(b=rng.integers(1, 512, (3, 5)), kv=rng.integers(1, 60_000, (3, 5)))
    together = seconds(machine, sizes)
    assert together.shape == (3, 5)
    for i in np.ndindex(3, 5):
        alone = seconds(machine, sizes | {"b": sizes["b"][i], "kv": sizes["kv"][i]})
        assert together[i] == pytest.approx(float(alone), rel=1e-12)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("op", ["attention", "mla_attention"])
def test_more_sequences_and_longer_ones_take_longer(machine, op):
    base = latent if op == "mla_attention" else dims
    steps = 4.0 ** np.arange(3, 9)
    longer = seconds(machine, base(b=4, kv=steps), op)
    assert (np.diff(longer) >= -0.1 * longer[:-1]).all() and longer[-1] > 2 * longer[0]
    more = seconds(machine, base(b=steps / 64, kv=8192), op)
    assert (np.diff(more) > 0).all()


def test_hidden_keys_are_not_read():
    full, window = call(dims(kv=50_000)), call(dims(kv=50_000), window=1024)
    assert window.sizes["cache"] == pytest.approx(full.sizes["cache"] * 1024 / 50_000)
    assert seconds("h100", dims(b=256, kv=50_000), window=1024) < 0.1 * seconds("h100", dims(b=256, kv=50_000))
    chosen = seconds("h100", latent(b=256, kv=50_000), "mla_attention", topk=2048)
    assert chosen < 0.2 * seconds("h100", latent(b=256, kv=50_000), "mla_attention")
    # a chunk begins anew: its first token sees itself alone
    assert call(dims(kv=8193), chunk=8192).sizes["cache"] == pytest.approx(call(dims(kv=1)).sizes["cache"])


def test_every_query_of_a_speculating_step_chooses_keys_of_its_own():
    one, four = (seconds("h100", latent(b=64, kv=60_000, q=q), "mla_attention", topk=2048) for q in (1, 4))
    assert 2 * one < four < 6 * one
    assert seconds("h100", dims(b=64, kv=60_000, q=4)) < 1.5 * seconds("h100", dims(b=64, kv=60_000))


def test_latents_are_read_once_for_keys_and_values():
    asked = call(latent(b=3, kv=1000), "mla_attention", kv_format="fp8")
    assert asked.sizes["cache"] == 3 * 1000 * 576
    assert asked.sizes["io"] == 2 * 3 * 128 * (576 + 512)


def test_tables_and_simulation_ask_the_same():
    hw = hardware("h100")
    frame = pd.DataFrame({"batch": [5], "kv_len": [777], "heads": [24], "kv_heads": [4], "head_dim": [192]})
    frame = frame.assign(window=[128], q_len=1)
    rows = call_of(table("attention_decode"), {"dtype": "bfloat16", "kv_dtype": "fp8"}, frame, hw)
    row = call(dims(5, 777, 24, 4, 192), window=128, kv_format="fp8")
    for name in ("b", "kv", "keys", "cache", "io", "heads", "kv_heads", "d", "dv"):
        assert float(rows.sizes[name][0]) == pytest.approx(float(row.sizes[name])), name
    assert rows.work.matrix_flops[0] == pytest.approx(float(row.work.matrix_flops))
    frame = pd.DataFrame({"batch": [5], "kv_len": [777], "heads": [16]})
    rows = call_of(table("mla_decode"), {"dtype": "bfloat16"}, frame, hw)
    row = call(latent(b=5, kv=777, heads=16), "mla_attention")
    for name in ("cache", "io", "keys", "d", "dv", "kv_heads"):
        assert np.ravel(rows.sizes[name])[0] == pytest.approx(float(row.sizes[name])), name


def test_a_benchmark_finds_a_small_cache_in_the_last_level():
    frame = pd.DataFrame({"batch": [8], "kv_len": [8192], "heads": [8], "kv_heads": [1], "head_dim": [128]})
    warm = predict("attention_decode", frame.assign(dtype="bfloat16", backend="vllm"), "h100")
    cold = predict("attention_decode", frame.assign(dtype="bfloat16"), "h100")
    assert warm[0] < cold[0]


def test_a_kernel_that_never_splits_leaves_cores_idle():
    hw, asked = hardware("h100"), call(dims(b=1, kv=65536, heads=8, kv_heads=1))
    whole, split = (splitkv_time(asked, values(most=most), hw).seconds for most in (1, 32))
    assert whole > 10 * split


def test_a_kernel_of_single_heads_pays_for_wide_groups():
    hw, asked = hardware("h100"), call(dims(b=32, kv=4096, heads=64, kv_heads=1))
    single = values(solo=48, tf1=3e-6, lat1=2e-8, occ=2)
    assert splitkv_time(asked, single, hw).seconds > 3 * splitkv_time(asked, values(), hw).seconds
    narrow = call(dims(b=32, kv=4096, heads=32, kv_heads=1))
    assert splitkv_time(narrow, single, hw).seconds == splitkv_time(narrow, values(), hw).seconds
    assert values(tf1=3e-6, lat1=2e-8)["tf1"] == 0  # means nothing without it


def test_the_host_counts_where_it_launched_the_kernels_of_a_table():
    frame = pd.DataFrame({"batch": [1], "kv_len": [128], "heads": [16], "dtype": "bfloat16", "kernel": ["x_flashmla"]})
    rows = frame.assign(kv_dtype="fp8", backend="vllm")
    assert predict("mla_decode", rows, "h100")[0] > 1.5e-4
    assert predict("mla_decode", rows.assign(backend="sglang"), "h100")[0] < 1e-4


def test_only_decode_rows_are_priced_here():
    sizes = {name: np.asarray(value, dtype=float) for name, value in dims(q=512).items()}
    attrs = ATTENTION | {"phase": "prefill"}
    work = operator_named("attention").work(sizes, attrs)
    assert "cache" not in FAMILIES["attention"].call(sizes, work, attrs).sizes
    assert "cache" in decode_call(sizes, work, ATTENTION).sizes


# --- measured rows ----------------------------------------------------------------------------------------------------

PRIMARY = {
    ("attention_decode", "bf16"): {"a100": 4.9, "h100": 7.2, "h200": 6.9, "b200": 6.0},
    ("attention_decode", "fp8"): {"h100": 9.7, "h200": 10.3, "b200": 7.4},
    ("mla_decode", "bf16"): {"a100": 4.0, "h100": 4.7, "h200": 5.6, "b200": 5.9},
    ("mla_decode", "fp8"): {"a100": 4.1, "h100": 5.7, "h200": 5.8, "b200": 9.0},
}
KERNELS = ("fa2", "fa3", "trtllm_gen", "trtllm")


@cache
def rows_of(family, machine):
    """(kind, profile, [(group, rows no fit saw)]) of a machine."""
    folder = MEASURED / "ascend" if machine.startswith("ascend") else MEASURED
    kind, frame = read_table(family, folder / f"{family}.parquet")
    hw, frame = next(by_device(frame, hardware(machine)))
    found = [(group, frame.iloc[at]) for group, at in groups(frame)]
    return kind, hw, [(group, rows[held_out(kind, rows)]) for group, rows in found]


def errors(family, fmt, machine, kernels=None):
    kind, hw, found = rows_of(family, machine)
    told = []
    for group, rows in found:
        if kind.format(group) == fmt and (kernels is None or kind.kernel(group) == kernels):
            told += list(100 * np.abs(seconds_of(kind, group, rows, hw) / rows["latency_s"] - 1))
    return np.asarray(told)


@needs_tables
@pytest.mark.parametrize(
    ("family", "fmt", "machine", "most"),
    [(*key, machine, most) for key, limits in PRIMARY.items() for machine, most in limits.items()],
)
def test_held_out_rows_of_the_default_kernel(family, fmt, machine, most):
    kernel = hardware(machine).coefficient(family, fmt).kernel
    assert kernel in KERNELS
    error = errors(family, fmt, machine, kernel)
    assert len(error) > 100 and np.median(error) < most and np.quantile(error, 0.9) < 25


@needs_tables
@pytest.mark.parametrize("family", ["attention_decode", "mla_decode"])
def test_held_out_rows_of_the_other_accelerator(family):
    assert np.median(errors(family, "bf16", "ascend-910b2")) < 10
    if family == "attention_decode":
        assert np.median(errors(family, "bf16", "ascend-910c-die")) < 15


@needs_tables
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("machine", ["h100_sxm", "h200_sxm", "b200_sxm"])
def test_modules_are_the_sum_of_their_kernels(phase, machine):
    frame = pd.read_parquet(MEASURED / f"mla_module_{phase}.parquet")
    frame = frame[frame["device"] == machine].sample(1500, random_state=0)
    error = 100 * np.abs(predict(f"mla_module_{phase}", frame, machine) / frame["latency_s"] - 1)
    for key, told in error.groupby([frame[c] for c in ("backend", "kernel", "kv_dtype", "gemm_dtype")]):
        if len(told) >= 50:
            assert told.median() < 20, key
    assert error.median() < 10


def test_modules_need_a_model_of_latent_attention():
    row = {"gemm_dtype": "bfloat16", "dtype": "bfloat16", "batch": 1, "q_len": 1, "kv_len": 128, "heads": 16}
    with pytest.raises(InputError, match="latent attention"):
        predict("mla_module_decode", pd.DataFrame([row | {"model": "llama-3.1-8b"}]), "h100")
    alone = predict("mla_module_decode", pd.DataFrame([row | {"model": "deepseek-v3"}]), "h100")
    frame = pd.DataFrame([row]).drop(columns=["gemm_dtype"])
    assert alone[0] > predict("mla_decode", frame, "h100")[0]


def test_a_cache_write_timed_with_attention_is_not_launched_twice():
    def append(machine):
        ops = tc.simulate("llama-3.1-8b", machine, input_len=64, output_len=2).phases["decode"].ops
        return ops[ops["op"] == "kv_append"].iloc[0]

    inside, apart = append("h100"), append("ascend-910b")
    assert inside["time_s"] / inside["count"] < 1e-8 and inside["bound"] == "memory"
    assert apart["time_s"] / apart["count"] > 1e-6
