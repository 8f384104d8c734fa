from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.calibration.data import held_out
from tensorcast.cost import predict
from tensorcast.cost.call import Call
from tensorcast.cost.memory import stream_time
from tensorcast.cost.pricing import time_of
from tensorcast.cost.tables import table
from tensorcast.hardware.load import hardware
from tensorcast.ops.base import Work

H100 = hardware("h100")
MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth"
FIGURES = {"t0": 2e-6, "em": 0.8, "rl2": 2.0, "c": 1e-3}


def test_by_hand():
    call = Call(Work(read_bytes=2e8, write_bytes=1e8), loop_bytes=H100.l2_bytes)
    memory = 3e8 / (0.8 * 3.35e12) * (0.5 + 0.5 / 2)  # a loop as large as the cache: half of it stays
    time = stream_time(call, FIGURES, H100)
    assert time.memory == pytest.approx(memory)
    assert time.seconds == pytest.approx(2e-6 + np.sqrt(memory**2 + 1e-6 * 3e8 / 3.35e12))


def test_cold_is_the_limit_of_a_large_loop():
    cold = stream_time(Call(Work(read_bytes=1e9)), FIGURES, H100).seconds
    assert stream_time(Call(Work(read_bytes=1e9), loop_bytes=1e13), FIGURES, H100).seconds == pytest.approx(cold)


def test_blocks_change_nothing():
    b = np.random.default_rng(0).uniform(1, 1e9, (2, 30_000))
    together = stream_time(Call(Work(read_bytes=b), loop_bytes=2 * b), FIGURES, H100).seconds
    for i in (0, 16_383, 16_384, 29_999):
        one = stream_time(Call(Work(read_bytes=b[1, i]), loop_bytes=2 * b[1, i]), FIGURES, H100).seconds
        assert together[1, i] == pytest.approx(one, rel=1e-12)
    assert together.shape == (2, 30_000)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["h100", "h200", "b200", "a100", "l40s", "ascend-910b2"]),
    nbytes=st.floats(1, 1e11),
    more=st.floats(1, 100),
)
def test_never_faster_than_the_memory_and_more_takes_longer(name, nbytes, more):
    hw = hardware(name)
    for family, fmt in (("quantize", "fp8"), ("elementwise", "any"), ("norm", "any")):
        few, many = (
            time_of(Call(Work(read_bytes=b)), hw.coefficient(family, fmt), hw).seconds for b in (nbytes, nbytes * more)
        )
        assert few >= nbytes / hw.memory_bw * (1 - 1e-9) and many >= few


def test_quantize_rows_without_kernel_or_backend():
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame({"op": "scale_matrix", "dtype": "fp8", "m": [1, 4096], "k": [4096, 8192]})
    seconds = predict("quantize", rows, "h100")
    assert 1e-6 < seconds[0] < 5e-6
    assert 3 * 4096 * 8192 / 3.35e12 * 0.5 < seconds[1] < 1e-4
    assert predict("quantize", rows[["m", "k"]], "l40s").shape == (2,)
    named = predict("quantize", rows.assign(backend="trtllm", kernel="torch_ops"), "h100")
    assert np.array_equal(seconds, named)  # the first row of the format is the default


def test_measured_quantisation():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = MEASURED / "quantize.parquet"
    if not path.is_file():
        pytest.skip("no measured table quantize.parquet")
    kind, frame = table("quantize"), pd.read_parquet(path)
    frame = frame[kind.keep(frame)]
    assert set(frame["op"]) == {"scale_matrix"}
    most = {"trtllm": 5, "sglang": 7, "vllm": 11}
    for (device, backend), rows in frame.groupby(["device", "backend"]):
        rows = rows[held_out(kind, rows)]
        error = 100 * np.abs(predict("quantize", rows, device) / rows.latency_s.to_numpy() - 1)
        assert np.median(error) < most[backend], (device, backend, np.median(error))
