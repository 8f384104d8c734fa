from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorcast as tc
from tensorcast.cost import gemm
from tensorcast.cost.call import Call
from tensorcast.cost.pricing import time_of
from tensorcast.hardware.load import hardware
from tensorcast.ops.base import Work

MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth" / "gemm.parquet"
MACHINES = ("a100", "h100", "h200", "b200", "l40s", "mi300x", "ascend-910b", "ascend-910c-die", "gaudi3")
SIZES = st.tuples(st.integers(1, 32768), st.integers(1, 65536), st.integers(1, 65536))


def call(m, n, k, b=1.0, math="bf16", item=2) -> Call:
    m, n, k = (np.asarray(x, dtype=float) for x in (m, n, k))
    work = Work(2 * b * m * n * k, 0, item * b * (m * k + n * k), 2 * b * m * n)
    return Call(work, {"b": b, "m": m, "n": n, "k": k, "ba": item, "bb": item, "bc": 2}, math=math)


def seconds(machine: str, *shape, fmt="bf16", **options) -> np.ndarray:
    hw = hardware(machine)
    return time_of(call(*shape, **options), hw.coefficient("gemm", fmt), hw).seconds


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MACHINES), st.lists(SIZES, min_size=1, max_size=6))
def test_no_product_is_faster_than_its_bound(machine, shapes):
    hw = hardware(machine)
    for fmt, math, item in (("bf16", "bf16", 2), ("fp8", "fp8", 1), ("int8", "int8", 1)):
        if not hw.has(math):
            continue
        asked = call(*np.array(shapes).T, math=math, item=item)
        time = time_of(asked, hw.coefficient("gemm", fmt), hw).seconds
        work = asked.work
        bound = np.maximum(work.matrix_flops / hw.peak(math), (work.read_bytes + work.write_bytes) / hw.memory_bw)
        assert np.isfinite(time).all() and (time >= bound * (1 - 1e-12)).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(MACHINES), st.lists(SIZES, min_size=2, max_size=20))
def test_a_call_costs_the_same_alone_and_among_others(machine, shapes):
    together = seconds(machine, *np.array(shapes).T)
    alone = [float(seconds(machine, *shape)) for shape in shapes]
    assert together == pytest.approx(alone, rel=1e-12)


def test_equal_shapes_are_priced_once_and_answered_each():
    m = np.array([7, 7, 300, 7, 300])
    assert seconds("h100", m, 4096, 4096) == pytest.approx([float(seconds("h100", x, 4096, 4096)) for x in m])
    distinct, again = gemm._distinct(m, np.full(5, 4096), np.full(5, 4096))
    assert list(m[distinct]) == [7, 300] and list(m[again]) == list(m)


@pytest.mark.parametrize("machine", ["a100", "h100", "b200", "ascend-910b"])
def test_more_rows_never_gain_much(machine):
    """Tiles come in steps, so a larger product may win a little; never a tenth."""
    m = np.arange(16, 4096, 16)
    time = seconds(machine, m, 4096, 4096)
    assert (time >= 0.9 * np.maximum.accumulate(time)).all()


def test_large_products_come_near_the_peak_and_small_ones_near_the_launch():
    h100 = hardware("h100")
    large = 2 * 8192**3 / h100.peak("bf16") / float(seconds("h100", 8192, 8192, 8192))
    assert 0.6 < large < 0.85  # spec-sheet share that random data reaches under the power limit
    small = h100.coefficient("gemm", "bf16")["t0"]
    assert small < float(seconds("h100", 1, 256, 256)) < small + 2e-6


def test_the_clock_falls_no_lower_than_it_was_measured():
    """A product of 10¹⁵ FLOP reaches what one of 2·10¹⁴ does: slower ones were never seen."""
    m = np.array([2**19, 2**22, 2**25])
    each = seconds("h200", m, 8192, 24576) / m
    assert each == pytest.approx(each[0], rel=1e-3)


def test_a_batch_is_more_than_one_and_less_than_one_after_another():
    one, many = (float(seconds("h100", 64, 512, 512, b=b)) for b in (1.0, 64.0))
    assert one < many < 64 * one


@pytest.mark.skipif(not MEASURED.is_file(), reason=f"no measured tables at {MEASURED}")
@pytest.mark.parametrize(
    ("device", "dtype", "most"),
    [("a100_sxm", "bfloat16", 8), ("h100_sxm", "bfloat16", 5), ("h200_sxm", "fp8_block", 10), ("b200_sxm", "nvfp4", 8)],
)
def test_unseen_shapes_agree_with_silicon(device, dtype, most):
    import pandas as pd

    from tensorcast.calibration.data import held_out
    from tensorcast.cost.tables import table

    rows = pd.read_parquet(MEASURED, filters=[("device", "==", device), ("dtype", "==", dtype)])
    rows = rows[~rows["suspect"].astype(bool)]
    rows = rows[held_out(table("gemm"), rows)]
    error = np.abs(tc.cost.predict("gemm", rows, device) / rows["latency_s"].to_numpy() - 1)
    assert len(rows) > 200 and 100 * np.median(error) < most
