from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.calibration.data import held_out, read_table
from tensorcast.calibration.score import Score
from tensorcast.cost import predict
from tensorcast.cost.attention import ceil_sum, flash_time, floor_sum
from tensorcast.cost.call import Call
from tensorcast.cost.pricing import FAMILIES, time_of
from tensorcast.errors import InputError
from tensorcast.hardware.load import hardware
from tensorcast.ops import operator_named

MACHINES = {name: hardware(name) for name in ("h100", "a100", "b200", "ascend-910c-die")}
H100, A100, B200, A3 = MACHINES.values()
MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth"
DIMS = {"b": 1, "q": 4096, "kv": 4096, "heads": 32, "kv_heads": 8, "d": 128, "dv": 128}
ATTRS = {
    "causal": True, "window": 0, "chunk": 0, "topk": 0, "kv_format": "bf16", "math": "bf16", "phase": "prefill",
    "kernel": "flash", "out_format": "bf16",
}  # fmt: skip


def call(hw=H100, op="attention", **changes):
    """(Call, coefficients) of a row with DIMS and ATTRS changed."""
    dims = {name: np.asarray(changes.pop(name, value), dtype=float) for name, value in DIMS.items()}
    attrs = ATTRS | changes
    family = FAMILIES[operator_named(op).family]
    return family.call(dims, operator_named(op).work(dims, attrs), attrs), hw.coefficient(*family.key(attrs))


def seconds(hw=H100, op="attention", **changes):
    asked, coefficient = call(hw, op, **changes)
    return time_of(asked, coefficient, hw).seconds


# ---- sums over tiles


@settings(max_examples=200, deadline=None)
@given(
    start=st.integers(-5000, 50000),
    step=st.sampled_from([1, 2, 16, 64, 128, 192, 256, 512]),
    count=st.integers(0, 300),
    whole=st.sampled_from([1 / 8, 1 / 4, 1 / 2, 1, 2, 3, 6, 40]),
)
def test_sums_over_tiles_are_those_of_a_loop(start, step, count, whole):
    unit = step * whole
    floors = sum(max(0, (start + i * step) // unit) for i in range(count))
    assert floor_sum(np.float64(start), np.float64(step), np.float64(count), unit) == pytest.approx(floors)
    if start >= 0:
        ceils = sum(-(-(start + i * step) // unit) for i in range(1, count + 1))
        assert ceil_sum(np.float64(start), np.float64(step), np.float64(count), unit) == pytest.approx(ceils)


@settings(max_examples=100, deadline=None)
@given(
    start=st.integers(0, 20000),
    count=st.integers(1, 200),
    step=st.floats(1, 300),
    unit=st.sampled_from([64, 128, 192]),
)
def test_sums_of_uneven_tiles_are_within_a_block_a_tile(start, count, step, unit):
    exact = sum(np.ceil((start + i * step) / unit) for i in range(1, count + 1))
    assert abs(float(ceil_sum(start, step, count, unit)) - exact) <= count + 1


def brute_force(b, q, kv, heads, kv_heads, window, chunk, tq, tk):
    """(tiles, key blocks) counted tile by tile, heads on their own."""
    tiles = blocks = 0
    for first in range(0, q, tq):
        last = min(first + tq, q) + kv - q
        low = kv - q + first
        hidden = max(low - window + 1, 0) // tk if window else 0
        if chunk:
            hidden = max(hidden, low // chunk * chunk // tk)
        tiles += 1
        blocks += -(-last // tk) - hidden
    return b * heads * tiles, b * heads * blocks


@pytest.mark.parametrize("q, kv", [(1, 1), (100, 100), (4096, 4096), (512, 5000), (1, 9000), (700, 8192)])
@pytest.mark.parametrize("window, chunk", [(0, 0), (128, 0), (1024, 0), (0, 2048)])
def test_work_is_that_of_the_tiles(q, kv, window, chunk):
    asked, p = call(q=q, kv=kv, window=window, chunk=chunk, kv_heads=32)
    values = dict(p.values) | {"tq": 128, "tk": 128, "packed": 0, "tf": 1e-9, "fill": 1.0, "x": 0.1, "ov": 1.0}
    tiles, blocks = brute_force(1, q, kv, 32, 32, window, chunk, 128, 128)
    block = 4 * 128 * 128 * 128.1 / (H100.peak("bf16") * values["ec"])
    assert flash_time(asked, values, H100).matrix == pytest.approx(blocks * block + tiles * 1e-9 / 132, rel=1e-6)


# ---- physics


@settings(max_examples=150, deadline=None)
@given(
    hw=st.sampled_from(list(MACHINES)),
    b=st.integers(1, 64),
    q=st.integers(1, 20000),
    past=st.sampled_from([0, 0, 1, 1000, 100000]),
    kv_heads=st.sampled_from([1, 2, 8]),
    group=st.sampled_from([1, 3, 4, 8, 16]),
    d=st.sampled_from([64, 72, 128, 192, 256]),
    rule=st.sampled_from([{}, {"window": 128}, {"window": 4096}, {"chunk": 8192}, {"topk": 2048}, {"causal": False}]),
)
def test_never_faster_than_the_machine(hw, b, q, past, kv_heads, group, d, rule):
    dims = {"b": b, "q": q, "kv": q + past, "heads": kv_heads * group, "kv_heads": kv_heads, "d": d, "dv": d}
    hw = MACHINES[hw]
    asked, p = call(hw, **dims, **rule)
    got = float(time_of(asked, p, hw).seconds)
    assert np.isfinite(got) and got >= float(asked.floor(hw)) and 1e-6 < got


@settings(max_examples=60, deadline=None)
@given(q=st.integers(16, 16384), past=st.integers(0, 30000), hw=st.sampled_from(list(MACHINES)))
def test_more_of_anything_takes_longer(q, past, hw):
    hw = MACHINES[hw]
    one = seconds(hw, q=q, kv=q + past)
    for more in (
        {"q": 2 * q, "kv": 2 * q + past},
        {"b": 2},
        {"heads": 64},
        {"d": 192, "dv": 192},
        {"kv": 2 * q + past},
    ):
        assert seconds(hw, **{"q": q, "kv": q + past} | more) >= 0.999 * one, more


def test_hidden_keys_cost_nothing():
    full = seconds(q=16384, kv=16384)
    assert seconds(q=16384, kv=16384, window=16384) == pytest.approx(full, rel=0.01)
    assert seconds(q=16384, kv=16384, window=1024) < 0.25 * full
    assert seconds(q=16384, kv=16384, chunk=2048) < 0.25 * full
    assert seconds(q=16384, kv=16384, topk=512) < full


def test_chunked_prefill_adds_up():
    """Four chunks of 4096 tokens compute the pairs of one prefill of 16384, with four launches."""
    chunks = sum(float(seconds(q=4096, kv=4096 * (i + 1))) for i in range(4))
    assert chunks == pytest.approx(float(seconds(q=16384, kv=16384)), rel=0.08)


def test_a_cached_prefix_is_cheaper_than_its_prefill_and_dearer_than_none():
    assert seconds(q=512, kv=512) < seconds(q=512, kv=8192) < 0.3 * seconds(q=8192, kv=8192)


def test_large_prefill_runs_at_the_known_share_of_the_peak():
    flops = 4 * 32 * 128 * 16384 * 16385 / 2
    assert 0.45 < flops / float(seconds(q=16384, kv=16384)) / H100.peak("bf16") < 0.75
    assert 0.30 < flops / float(seconds(A3, q=16384, kv=16384)) / A3.peak("bf16") < 0.55


def test_one_query_reads_its_cache_and_little_more():
    got = float(seconds(b=64, q=1, kv=8192))
    assert 1 < got / (64 * 8192 * 8 * 256 * 2 / H100.memory_bw) < 4


def test_attention_without_mask_is_an_encoders():
    key = FAMILIES["attention"].key
    assert key(ATTRS) == ("attention_prefill", "bf16")
    assert key(ATTRS | {"causal": False}) == ("attention_encoder", "bf16")
    assert key(ATTRS | {"phase": "decode", "kv_format": "fp8"}) == ("attention_decode", "fp8")
    for hw in (H100, A100, B200, A3):
        assert 0.3 < float(seconds(hw, causal=False) / seconds(hw)) / 2 < 1.7


def test_arrays_of_any_shape_equal_single_calls():
    q, b = np.array([[1, 100, 4096]]), np.array([[1], [8]])
    together = seconds(q=q, kv=q + 1000, b=b)
    assert together.shape == (2, 3)
    alone = [[float(seconds(q=n, kv=n + 1000, b=m)) for n in q[0]] for m in b[:, 0]]
    assert together == pytest.approx(np.array(alone))


def test_latents_and_indexers_are_priced():
    """Absorbed prefill over latents with chosen keys, and the scores that choose them."""
    latents = {"q": 4096, "kv": 32768, "heads": 16, "kv_heads": 1, "d": 576, "dv": 512}
    assert seconds(op="mla_attention", **latents, topk=2048) < seconds(op="mla_attention", **latents)
    dims = {"b": 1.0, "q": 4096.0, "kv": 32768.0, "heads": 64.0, "d": 128.0}
    attrs = {
        "picks": 2048,
        "kv_format": "fp8",
        "math": "fp8",
        "in_format": "bf16",
        "phase": "prefill",
        "kernel": "flash",
    }
    work = operator_named("index_scores").work(dims, attrs)
    family = FAMILIES["attention"]
    time = time_of(family.call(dims, work, attrs), H100.coefficient(*family.key(attrs)), H100)
    assert float(time.seconds) > (work.read_bytes + work.write_bytes) / H100.memory_bw
    # Every key is scored, however few are picked: no faster than the engine multiplies all of them.
    few = time_of(family.call(dims, work, attrs | {"picks": 1}), H100.coefficient(*family.key(attrs)), H100)
    assert float(few.matrix) == float(time.matrix) > 0.9 * work.matrix_flops / H100.peak("fp8")


# ---- tables


def frame(**columns):
    pd = pytest.importorskip("pandas")
    base = {"dtype": "bfloat16", "batch": 2, "q_len": 1024, "kv_len": 1024, "heads": 32, "kv_heads": 8, "head_dim": 128}
    return pd.DataFrame({name: np.atleast_1d(value) for name, value in (base | columns).items()})


def test_tables_answer_without_optional_columns():
    plain = predict("attention_prefill", frame(), "h100")
    assert plain == pytest.approx(predict("attention_prefill", frame(kv_dtype="bfloat16", window=0), "h100"))
    named = frame(kv_dtype="bfloat16", backend="vllm", kernel="vllm_flash_attn_fa3")
    assert plain < predict("attention_prefill", named, "h100")  # with the cache write that vLLM's rows include
    for device in ("gb200", "gb300", "l40s", "a10", "mi300x", "ascend-910b"):
        assert predict("attention_prefill", frame(), device)[0] > 0
        assert predict("mla_prefill", frame(), device)[0] > 0
        assert predict("attention_encoder", frame(seq=500), device)[0] > 0
    with pytest.raises(InputError, match="no column head_dim"):
        predict("attention_prefill", frame().drop(columns="head_dim"), "h100")


def test_rows_taken_eagerly_do_not_undercut_the_host():
    eager = predict("attention_prefill", frame(q_len=128, kv_len=128, phase="prefill_causal_eager"), "ascend-910b")
    graph = predict("attention_prefill", frame(q_len=128, kv_len=128), "ascend-910b")
    assert eager[0] == pytest.approx(3e-4, rel=0.1) and graph[0] < 1.2e-4


# Largest median error (%) of a primary kernel on held-out shapes.
LIMITS = [
    ("attention_prefill", {"backend": "vllm", "kv_dtype": "bfloat16"}, 6.5),
    ("attention_prefill", {"backend": "vllm", "kv_dtype": "fp8"}, 8.0),
    ("attention_prefill", {"backend": "trtllm"}, 6.5),
    ("attention_encoder", {"backend": "vllm"}, 6.5),
    ("mla_prefill", {"backend": "trtllm"}, 5.0),
    ("ascend/attention_prefill", {}, 9.0),
    ("ascend/mla_prefill", {}, 9.0),
]


@pytest.mark.parametrize("table, group, limit", LIMITS)
def test_held_out_shapes(table, group, limit):
    pytest.importorskip("pandas")
    path = MEASURED / f"{table}.parquet"
    if not path.is_file():
        pytest.skip(f"no measured table {table}")
    kind, rows = read_table(path.stem, path)
    for column, value in group.items():
        rows = rows[rows[column] == value]
    for device, part in rows.groupby("device"):
        part = part[held_out(kind, part)]
        score = Score.of(predict(kind.name, part, device), part["latency_s"])
        assert score.median < limit, (device, score)


def test_call_is_a_call():
    assert isinstance(call()[0], Call)
