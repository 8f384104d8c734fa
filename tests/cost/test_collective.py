from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.calibration.curves import calibrate_collectives, written
from tensorcast.calibration.ranks import fit_ranks
from tensorcast.cost import predict
from tensorcast.cost.collective import collective_time, shots, two_protocols, wire_bytes
from tensorcast.errors import DeploymentError, HardwareError, InputError
from tensorcast.hardware.load import hardware, resolve
from tensorcast.hardware.protocol import OPS, RankTable, Shots, TwoProtocols

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


def test_two_protocols_by_hand():
    c = TwoProtocols(t0=5e-6, hop=1e-6, e1=0.4, a2=3e-5, e2=0.8, w=0.5, step=0.2, at=1e4, low=0.5, late=1.0, high=0.1)
    base = (5e-6 + 3e-6) * (1 + 0.2 * 2e6 / (2e6 + 1e4))
    low, high = base + 1e-5 / (0.4 * 2**0.5), base + 3e-5 * 2 + 1e-5 / (0.8 * 2**0.1)
    expected = (low**-3 + high**-3) ** (-1 / 3) + 0.5 * (1e-5 * base) ** 0.5
    assert two_protocols(c, np.array([2e6]), np.array([1e-5]), 4) == pytest.approx(expected)


def test_one_step_or_two_by_hand():
    c = Shots(2e-6, 1e-7, 0.5, 5e-6, 0.7, 0.0, ((2, 1e6), (8, 4e6)), low=0.1, high=-0.2, host=2e-5, beyond=1.1)
    wire, default = 1.75 * np.array([1e6, 5e6]) / 450e9, np.array([4e-5, 9e-5])
    one = 2.7e-6 + 7e6 / 450e9 / (0.5 * 4**0.1)
    two = 2.7e-6 + 5e-6 + wire[0] / (0.7 * 4**-0.2)
    own = ((one**-9 + two**-9) ** (-1 / 3) + 0) ** (1 / 3)
    got = shots(c, np.array([1e6, 5e6]), wire, 8, default)
    assert got == pytest.approx([(own**3 + 2e-5**3) ** (1 / 3), 1.1 * 9e-5])
    assert [c.limit(n) for n in (2, 4, 8, 16)] == [1e6, 1e6, 4e6, 0]


@pytest.mark.parametrize("limits", [[], [[8, 1e6], [2, 1e6]], [[2, 1e6], [2, 2e6]], [[2]], 5, [[2, -1]], [[1.5, 1]]])
def test_limits_that_are_none(limits):
    with pytest.raises(HardwareError, match="limits"):
        Shots(1e-6, 0.0, 0.5, 0.0, 0.5, 0.0, limits)


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


def median_error(rows, op, library=""):
    t = collective_time(
        op, rows.bytes.to_numpy(), rows.n_ranks.to_numpy(), 1, hardware(rows.device.iloc[0]), library=library
    )
    return float(np.median(np.abs(t / rows.latency_s.to_numpy() - 1)))


def test_nccl_measurements():
    table = measured("collective.parquet")
    table = table[(table.kind == "nccl") & (table.dtype == "half")]
    errors = {key: median_error(rows, key[1]) for key, rows in table.groupby(["device", "op"])}
    assert len(errors) == 16 and max(errors.values()) < 0.075, errors


def test_custom_all_reduce_measurements():
    table = measured("collective.parquet")
    kernels = table[(table.kind == "custom_allreduce") & ~table.kernel.str.contains("eager")]
    for (device, kernel), rows in kernels.groupby(["device", "kernel"]):
        error = np.abs(predict("collective", rows, device) / rows.latency_s.to_numpy() - 1)
        assert np.median(error) < 0.06, (device, kernel)


def test_hccl_measurements():
    table = measured("ascend/collective.parquet")
    for (device, op), rows in table.groupby(["device", "op"]):
        error = np.abs(predict("collective", rows, device) / rows.latency_s.to_numpy() - 1)
        assert np.median(error) < 0.05, (device, op)


def test_unseen_shapes_of_the_shipped_library():
    table = measured("collective.parquet")
    rows = table[(table.device == "h100_sxm") & (table.kind == "nccl") & (table.op == "all_reduce")]
    for found in calibrate_collectives(rows.reset_index(drop=True), H100):
        assert found.after.median < 6 and found.after.p90 < 15, found


def made(hw, op="all_reduce", noise=0.0, **columns):
    """A table of a library whose curve is the machine's."""
    pd = pytest.importorskip("pandas")
    n, b = (x.ravel() for x in np.meshgrid([2, 4, 8], 2.0 ** np.arange(8, 30)))
    t = collective_time(op, b, n, 1, hw) * np.exp(np.random.default_rng(1).normal(0, noise, n.size))
    return pd.DataFrame({"op": op, "n_ranks": n, "bytes": b, "latency_s": t, **columns})


def test_a_fit_finds_the_curve_again():
    found = calibrate_collectives(made(H100, noise=0.02), H100)
    assert [c.key for c in found] == ["all_reduce"] and found[0].rows == 66
    assert found[0].after.median < 4 and found[0].before.median < 3
    text = written(Path(resolve("h100-sxm")).read_text(encoding="utf-8"), found, H100)
    assert text.count("  all_reduce: {") == 1 and "  all_gather: {" in text and "  dispatch: {" in text


def test_a_written_curve_is_read_back(tmp_path):
    found = calibrate_collectives(made(H100, backend="vllm", kernel="vLLM_custom_graph"), H100)
    text = written(Path(resolve("mi300x")).read_text(encoding="utf-8"), found, MI300)
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("name: mi300x", "name: mine", 1), encoding="utf-8")
    curve = hardware(str(file)).protocol("all_reduce", "vllm")
    assert isinstance(curve, Shots) and [n for n, _ in curve.limits] == [2, 4, 8]
    assert curve.t0 == pytest.approx(found[0].curve.t0, rel=1e-3)


def test_too_few_rows_are_left_out():
    assert calibrate_collectives(made(H100).iloc[:19], H100) == []
    assert calibrate_collectives(made(H100).assign(n_ranks=16), H100) == []  # beyond the fabric that curves are of
    assert calibrate_collectives(made(H100).assign(n_ranks=1), H100) == []


def test_a_row_for_every_number_of_ranks():
    b = 2.0 ** np.arange(8, 29)
    t = collective_time("all_reduce", b, 8, 1, DIE)
    (row,) = fit_ranks("all_reduce", np.full(b.size, 8), b, t)
    assert row.ranks == 8 and 5.9e6 < row.switch < 24e6
    assert isinstance(DIE.protocol("all_reduce"), RankTable)


def test_predict_needs_three_columns():
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame({"op": ["all_reduce", "all_gather"], "n_ranks": [8, 2], "bytes": [1 << 20, 1 << 24]})
    expected = [collective_time(op, b, n, 1, H100).item() for op, n, b in rows.itertuples(index=False)]
    assert predict("collective", rows, "h100") == pytest.approx(expected)
    custom = rows[:1].assign(kind="custom_allreduce", backend="sglang", kernel="SGLang_CustomAllReduce_eager")
    eager = predict("collective", custom, "h100")
    assert eager[0] == pytest.approx(collective_time("all_reduce", 1 << 20, 8, 1, H100, library="sglang_eager"))
    assert predict("collective", custom, "l40s")[0] == collective_time("all_reduce", 1 << 20, 8, 1, hardware("l40s"))


def test_tables_of_hccl_count_pieces():
    pd = pytest.importorskip("pandas")
    rows = pd.DataFrame({"op": ["all_gather", "reduce_scatter", "all_reduce"], "n_ranks": 4, "bytes": 1 << 20})
    expected = [collective_time(op, (4 if op != "all_reduce" else 1) << 20, 4, 1, DIE).item() for op in rows["op"]]
    assert predict("collective", rows, "ascend-910c-die") == pytest.approx(expected)
    full = predict("collective", rows.assign(kind="nccl"), "ascend-910c-die")
    assert full[0] == collective_time("all_gather", 1 << 20, 4, 1, DIE)


def test_the_best_library_is_never_slower():
    n, b = (x.ravel() for x in np.meshgrid([2, 4, 8], 2.0 ** np.arange(8, 31)))
    best = collective_time("all_reduce", b, n, 1, H100, library="best")
    each = [collective_time("all_reduce", b, n, 1, H100, library=x) for x in ("", "vllm", "trtllm", "sglang")]
    assert np.array_equal(best, np.min(each, axis=0))
    wire = np.array([wire_bytes("all_reduce", x, r) for x, r in zip(b, n, strict=True)])
    assert (best >= wire / 450e9 * (1 - 1e-12)).all()
    default, across = (collective_time("all_reduce", 1e6, 16, 1, H100, library=x) for x in ("", "best"))
    assert default == across


def test_many_kinds_of_groups_in_blocks():
    g = np.random.default_rng(0)
    b, n, step = g.uniform(0, 1e9, 40_000), g.choice([1, 2, 4, 8, 16], 40_000), g.choice([1, 2], 40_000)
    together = collective_time("all_reduce", b, n, step, H100)
    for i in g.choice(40_000, 50):
        assert together[i] == pytest.approx(collective_time("all_reduce", b[i], n[i], step[i], H100), rel=1e-12)
