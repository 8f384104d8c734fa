from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.cost.collective import collective_time, wire_bytes
from tensorcast.errors import DeploymentError, HardwareError, InputError
from tensorcast.hardware.load import hardware
from tensorcast.hardware.protocol import OPS

H100, A2, DIE, MI300 = (hardware(n) for n in ("h100", "ascend-910b", "ascend-910c-die", "mi300x"))
MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth"


def busbw(hw, nbytes, size, op="all_reduce", stride=1):
    return wire_bytes(op, nbytes, size) / collective_time(op, nbytes, size, stride, hw)


def test_bytes_sent():
    assert wire_bytes("all_to_all", 1000, 2) == 500
    assert wire_bytes("all_to_all", 1000, 8) == 875
    assert wire_bytes("all_reduce", 1000, 8) == 1750
    assert wire_bytes("all_gather", 1000, 4) == wire_bytes("reduce_scatter", 1000, 4) == 750
    assert wire_bytes("send_recv", 1000, 4) == 1000
    assert list(wire_bytes("all_reduce", np.array([8, 8]), np.array([1, 2]))) == [0, 8]


@pytest.mark.parametrize("op", OPS)
def test_one_rank_is_free(op):
    assert wire_bytes(op, 1e9, 1) == 0
    assert collective_time(op, 1e9, 1, 1, H100) == 0


def test_a2_bandwidth_grows_with_the_links_a_group_uses():
    got = [busbw(A2, 8e9, n) / 1e9 for n in (2, 4, 8)]
    assert got == pytest.approx([18.5, 54, 125], rel=0.11)


def test_a_curve_of_the_specification():
    # H100, all_reduce over 8 ranks, large: base + a2 + W/(e2 link) is the winning protocol
    t = collective_time("all_reduce", 1e9, 8, 1, H100)
    assert t == pytest.approx(5.177e-6 + 7 * 1.64e-6 + 34.17e-6 + 1.75e9 / (0.7981 * 450e9), rel=0.02)


def test_crossing_the_node_costs_the_outer_network():
    inside, across = (collective_time("all_reduce", 1e9, n, 1, H100) for n in (8, 16))
    rs, ag = (collective_time(op, 1e9, 8, 1, H100) for op in ("reduce_scatter", "all_gather"))
    outer = 2 * 10e-6 + 2 * (1 / 2) * (1e9 / 8) / (0.88 * 50e9)
    assert across == pytest.approx(rs + ag + outer)
    assert across > inside


def test_a_group_across_nodes_uses_the_outer_network_alone():
    t = collective_time("all_gather", 1e9, 4, 8, H100)
    assert t == pytest.approx(2 * 10e-6 + 0.75e9 / (0.88 * 50e9))


def test_exchange_charges_each_peer_to_its_network():
    # of 16 ranks' shares, 8 are behind the network: half the buffer over 50 GB/s
    t = collective_time("all_to_all", 1e9, 16, 1, H100)
    assert t == pytest.approx(10e-6 + 0.5e9 / (0.88 * 50e9))


def test_send_recv_takes_one_link():
    assert collective_time("send_recv", 28e6, 2, 1, A2) == pytest.approx(0.5e-6 + 1e-3 / 0.65)
    assert collective_time("send_recv", 50e6, 2, 8, H100) == pytest.approx(10e-6 + 1e-3 / 0.88)


def test_dispatch_and_combine_have_floors_of_their_own():
    assert collective_time("dispatch", 0, 32, 1, DIE) == pytest.approx(66e-6)
    assert collective_time("combine", 0, 32, 1, DIE) == pytest.approx(87e-6)
    # 128 tokens x 8 experts of int8 with scale (7.5 KB) out, bf16 back
    assert collective_time("dispatch", 128 * 8 * 7500, 16, 1, DIE) == pytest.approx(139e-6, rel=0.15)
    assert collective_time("combine", 128 * 8 * 14336, 16, 1, DIE) == pytest.approx(135e-6, rel=0.15)


def test_custom_all_reduce_is_faster_when_small():
    assert collective_time("all_reduce", 1e4, 8, 1, H100, library="vllm") < collective_time(
        "all_reduce", 1e4, 8, 1, H100
    )
    with pytest.raises(DeploymentError, match="inside nvlink alone"):
        collective_time("all_reduce", 1e4, 16, 1, H100, library="vllm")
    with pytest.raises(HardwareError, match="no curve for all_reduce/vlm"):
        collective_time("all_reduce", 1e4, 8, 1, H100, library="vlm")


def test_arrays_equal_single_calls():
    nbytes, size = np.array([1e3, 1e6, 1e9]), np.array([2, 8, 16])
    together = collective_time("all_gather", nbytes, size, 1, H100)
    assert list(together) == [collective_time("all_gather", b, n, 1, H100) for b, n in zip(nbytes, size, strict=True)]


@settings(max_examples=150, deadline=None)
@given(
    op=st.sampled_from(OPS),
    hw=st.sampled_from([H100, A2, DIE, MI300]),
    size=st.integers(2, 64),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
    nbytes=st.floats(0, 1e11),
)
def test_never_faster_than_the_links(op, hw, size, stride, nbytes):
    links = sum(tier.egress(ranks) for tier, ranks in hw.topology.split(size, stride))
    assert collective_time(op, nbytes, size, stride, hw) >= wire_bytes(op, nbytes, size) / links * (1 - 1e-9)


@settings(max_examples=50, deadline=None)
@given(op=st.sampled_from(OPS), size=st.integers(2, 32), nbytes=st.floats(1, 1e10))
def test_more_bytes_never_take_less_time_on_nvlink(op, size, nbytes):
    small, large = collective_time(op, np.array([nbytes, 2 * nbytes]), size, 1, H100)
    assert large >= small > 0


def test_wrong_requests():
    with pytest.raises(InputError, match="one of all_reduce"):
        collective_time("allreduce", 1, 2, 1, H100)
    with pytest.raises(InputError, match="not negative"):
        collective_time("all_reduce", -1, 2, 1, H100)
    with pytest.raises(DeploymentError, match="at most 8"):
        collective_time("all_reduce", 1, 16, 1, hardware("rtx-4090"))


def measured(name):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    if not (MEASURED / name).is_file():
        pytest.skip(f"no measured table {name}")
    return pd.read_parquet(MEASURED / name)


def median_error(rows, op, library="", full=None):
    nbytes = rows.bytes.to_numpy() if full is None else full
    t = collective_time(op, nbytes, rows.n_ranks.to_numpy(), 1, hardware(rows.device.iloc[0]), library=library)
    return float(np.median(np.abs(t / rows.latency_s.to_numpy() - 1)))


def test_nccl_measurements():
    table = measured("collective.parquet")
    table = table[(table.kind == "nccl") & (table.dtype == "half")]
    errors = {key: median_error(rows, key[1]) for key, rows in table.groupby(["device", "op"])}
    assert len(errors) == 16 and max(errors.values()) < 0.085, errors


def test_custom_all_reduce_measurements():
    table = measured("collective.parquet")
    for library, kernel in {
        "vllm": "vLLM_custom_graph",
        "sglang": "SGLang_CustomAllReduce_graph",
        "trtllm": "TRTLLM",
    }.items():
        for device, rows in table[table.kernel == kernel].groupby("device"):
            assert median_error(rows, "all_reduce", library) < 0.09, (device, library)


def test_hccl_measurements():
    table = measured("ascend/collective.parquet")
    for (device, op), rows in table.groupby(["device", "op"]):
        # this table counts a rank's piece of all_gather and reduce_scatter, not the full buffer
        pieces = rows.n_ranks.to_numpy() if op in ("all_gather", "reduce_scatter") else 1
        assert median_error(rows, op, full=rows.bytes.to_numpy() * pieces) < 0.05, (device, op)
