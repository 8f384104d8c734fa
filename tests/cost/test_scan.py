from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorcast.calibration.data import by_device, held_out, read_table
from tensorcast.cost import predict
from tensorcast.cost.call import Call
from tensorcast.cost.frames import call_of
from tensorcast.cost.pricing import FAMILIES, time_of
from tensorcast.cost.scan import convolution, scan, scan_time
from tensorcast.cost.tables import groups, table
from tensorcast.hardware.formulas import FORMULAS
from tensorcast.hardware.load import hardware
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work

MEASURED = Path(__file__).parents[2].parent / "shared" / "groundtruth" / "linear_attention.parquet"
ASCEND = MEASURED.parent / "ascend" / "glm5_a3_kernel_profile.csv"
MACHINES = ("h100", "b200", "a100", "l40s", "ascend-910c-die")
KIND = table("linear_attention")
H100 = hardware("h100")
PLAIN = {"t0": 5e-6, "ec": 1.0, "em": 0.5, "es": 0.8, "lat": 1e-6, "al": 1.0, "row": 1e-8, "rl2": 2.0, "held": 1}

# op, phase, backend, kernel of every kind of row
KERNELS = [
    ("gdn", "context", "sglang", "chunk_gated_delta_rule"),
    ("gdn", "context", "vllm", "chunk_gated_delta_rule_flashinfer"),
    ("gdn", "generation", "vllm", "fused_recurrent_gated_delta_rule_packed_decode"),
    ("gdn", "generation", "trtllm", "fused_recurrent_gated_delta_rule"),
    ("gdn", "context", "sglang", "causal_conv1d_fn"),
    ("gdn", "generation", "vllm", "causal_conv1d_update"),
    ("kda", "context", "vllm", "flashkda_fwd"),
    ("kda", "verify", "vllm", "fused_recurrent_kda"),
    ("kda", "context", "sglang", "causal_conv1d_fn_qkv3"),
    ("mamba2", "context", "trtllm", "causal_conv1d_fn"),
    ("mamba2", "context", "trtllm", "mamba_chunk_scan_combined"),
    ("mamba2", "generation", "trtllm", "selective_state_update"),
]


def frame(op, phase, backend="", kernel="", batch=(1,), seq=(1,), k_heads=16, heads=32):
    """Rows of the table, one for every pair of batch and seq."""
    batch, seq = (np.atleast_1d(v) for v in np.broadcast_arrays(batch, seq))
    heads_of = {"num_k_heads": k_heads, "head_k_dim": 128, "num_v_heads": heads, "head_v_dim": 128}
    mamba = {"n_groups": 8, "d_state": 128, "nheads": heads, "head_dim": 64, "chunk_size": 128}
    rows = pd.DataFrame({"batch": batch, "seq_len": seq}).assign(op=op, phase=phase, d_conv=4, **heads_of, **mamba)
    return rows.assign(backend=backend, kernel=kernel) if kernel else rows


def group(op, phase, backend, kernel):
    return {"op": op, "phase": phase, "backend": backend, "kernel": kernel}


def tensors(*shapes):
    return [torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in shapes]


def delta_rule(b, s, k_heads, heads, recurrent):
    q, k, v, g = tensors((b, s, k_heads, 128), (b, s, k_heads, 128), (b, s, heads, 128), (b, s, heads))
    op = operator_named("gated_delta_rule")
    dims, attrs = op.describe((q, k, v, g, 64, recurrent, "fp32", "bf16"), {})
    return op, dims, attrs


def price(op, dims, attrs, hw):
    family, work = FAMILIES[op.family], op.work(dims, attrs)
    return time_of(family.call(dims, work, attrs), hw.coefficient(*family.key(attrs)), hw).seconds


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_table_row_is_the_operator_that_is_simulated(recurrent):
    op, dims, attrs = delta_rule(3, 1 if recurrent else 200, 16, 32, recurrent)
    kernel = KERNELS[2 if recurrent else 0]
    row = call_of(KIND, group(*kernel), frame(*kernel, 3, dims["s"]), H100)
    simulated = FAMILIES["scan"].call(dims, op.work(dims, attrs), attrs)
    assert row.work.matrix_flops == pytest.approx(simulated.work.matrix_flops)
    for direction in ("read_bytes", "write_bytes"):
        assert getattr(row.work, direction) == pytest.approx(getattr(simulated.work, direction))
    for size in ("chains", "steps", "rows", "states"):
        assert float(np.max(row.sizes[size])) == pytest.approx(float(simulated.sizes[size]))


def test_operators_find_their_own_coefficients():
    assert FAMILIES["scan"].key(delta_rule(1, 64, 2, 2, False)[2]) == ("scan", "gdn")
    assert FAMILIES["scan"].key(delta_rule(1, 1, 2, 2, True)[2]) == ("scan", "gdn_step")
    q, v, g = tensors((1, 64, 2, 128), (1, 64, 2, 128), (1, 64, 2, 128))
    kda = operator_named("gated_delta_rule").describe((q, q, v, g, 64, False, "fp32", "bf16"), {})[1]
    assert FAMILIES["scan"].key(kda) == ("scan", "kda")
    x, b, dt = tensors((1, 64, 4, 64), (1, 64, 1, 128), (1, 64, 4))
    mamba = operator_named("mamba2_scan").describe((x, b, b, dt, 128, 64, False, "fp32", "bf16"), {})[1]
    assert FAMILIES["scan"].key(mamba) == ("scan", "mamba2")
    x, w = tensors((2, 512, 100), (512, 1, 4))
    conv = operator_named("causal_conv1d")
    dims, attrs = conv.describe((x, w, 4), {})
    assert FAMILIES["scan"].key(attrs) == ("scan", "conv")
    assert FAMILIES["scan"].call(dims, conv.work(dims, attrs), attrs).sizes["states"] == 2 * 2 * 512 * 4 * 2


def test_the_decode_step_streams_its_states():
    op, dims, attrs = delta_rule(1024, 1, 16, 32, True)
    states = 2 * 1024 * 32 * 128 * 128 * 4
    assert states / H100.memory_bw < price(op, dims, attrs, H100) < 1.4 * states / H100.memory_bw


def test_a_machine_of_unknown_cores_gets_a_roofline():
    bare = replace(H100, cores=None)
    op, dims, attrs = delta_rule(1, 4096, 16, 32, False)
    assert bare.coefficient("scan", "gdn").formula == "roofline"
    assert 1e-5 < price(op, dims, attrs, bare) < 1e-2


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(KERNELS),
    st.sampled_from(MACHINES),
    st.lists(st.tuples(st.integers(1, 2048), st.integers(1, 65536)), min_size=1, max_size=8),
    st.sampled_from([(1, 1), (1, 4), (8, 24), (16, 96)]),
)
def test_no_time_below_the_physical_bound(kernel, machine, shapes, heads):
    hw = hardware(machine)
    batch, seq = (np.array(v) for v in zip(*shapes, strict=True))
    seq = seq if kernel[1] == "context" else np.minimum(seq, 1 if kernel[1] == "generation" else 8)
    rows = frame(*kernel, batch, seq, *heads)
    seconds, floor = predict("linear_attention", rows, hw), call_of(KIND, group(*kernel), rows, hw).floor(hw)
    assert np.isfinite(seconds).all()
    assert (seconds >= floor * (1 - 1e-12)).all()
    assert (seconds > 0).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KERNELS), st.sampled_from(MACHINES), st.integers(0, 10), st.integers(3, 15))
def test_more_work_never_takes_less_time(kernel, machine, batch, seq):
    seq = 2**seq if kernel[1] == "context" else 1
    one, two, longer = predict(
        "linear_attention",
        frame(*kernel, [2**batch, 2 ** (batch + 1), 2**batch], [seq, seq, seq if seq == 1 else 2 * seq]),
        hardware(machine),
    )
    assert two >= one * (1 - 1e-9)
    assert longer >= one * (1 - 1e-9)


def test_a_chain_is_serial_and_chains_fill_the_cores():
    work = Work(vector_flops=1.0, read_bytes=1.0)

    def seconds(chains, tokens, **changed):
        call = scan(work, chains, tokens, chunk=64, states=0.0)
        return float(scan_time(call, {**PLAIN, "fused": 1, **changed}, H100).seconds) - PLAIN["t0"] - 64 * PLAIN["row"]

    assert seconds(1, 6400) == pytest.approx(100e-6)  # a chunk after the other
    assert seconds(H100.cores, 6400) == pytest.approx(100e-6)  # every core has one
    assert seconds(H100.cores + 1, 6400) == pytest.approx(200e-6)  # the last waits for a second wave
    assert seconds(H100.cores + 1, 6400, held=2) == pytest.approx(100e-6)
    assert seconds(1, 6401) == pytest.approx(101e-6)  # a begun chunk is a whole one
    assert seconds(1, 6400, fused=0) == pytest.approx(99e-6)  # the first is part of t0


def test_rows_of_a_chunk_and_of_a_convolution():
    work = Work(vector_flops=1.0, read_bytes=1.0)
    assert [scan(work, 1, s, chunk=64, states=0).sizes["rows"] for s in (1, 64, 65)] == [1, 64, 64]
    assert scan(work, 1, 8, chunk=1, states=0).sizes["rows"] == 0
    assert [convolution(work, s, states=0).sizes["rows"] for s in (1, 8, 9)] == [1, 8, 8]


def test_states_that_stay_in_the_cache_are_faster():
    call = scan(Work(read_bytes=1e7, write_bytes=1e7), 64, 1, chunk=1, states=2e7)
    p = {**PLAIN, "fused": 0}
    times = [float(scan_time(Call(call.work, call.sizes, loop_bytes=n), p, H100).seconds) for n in (1e6, 1e9, None)]
    assert times[0] < times[1] < times[2] * (1 + 1e-9)


def test_drafts_keep_a_state_each():
    kernel = ("kda", "verify", "vllm", "fused_recurrent_kda")
    work = call_of(KIND, group(*kernel), frame(*kernel, [4, 4], [1, 8]), H100).work
    state = 4 * 32 * 128 * 128 * 4
    assert work.write_bytes[1] - work.write_bytes[0] > 7 * state
    assert work.read_bytes[1] - work.read_bytes[0] < state


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("op, phase", [(o, p) for o in ("gdn", "kda", "mamba2") for p in ("context", "generation")])
def test_rows_without_a_kernel_are_priced_as_the_scan(machine, op, phase):
    seconds = predict("linear_attention", frame(op, phase, batch=[1, 64], seq=1), machine)
    assert 1e-6 < seconds[0] < seconds[1] < 1e-2


def test_every_shipped_row_is_complete():
    for machine in MACHINES:
        formats = {row.format for row in hardware(machine).coefficients["scan"]}
        assert {"gdn", "gdn_step", "kda", "kda_step", "mamba2", "mamba2_step", "conv", "conv_step", "any"} <= formats
    assert set(PLAIN) | {"fused"} == set(FORMULAS["scan"].parameters)


@pytest.mark.skipif(not MEASURED.is_file(), reason="the measured tables are not here")
def test_held_out_rows():
    """The median error of every kernel with enough unseen rows, on machines whose figures are calibrated."""
    kind, measured = read_table("linear_attention", MEASURED)
    scored = 0
    for hw, rows in by_device(measured):
        for name, at in groups(rows):
            unseen = rows.iloc[at]
            unseen = unseen[held_out(kind, unseen)]
            if len(unseen) < 20:
                continue
            error = np.abs(predict("linear_attention", unseen, hw) / unseen["latency_s"].to_numpy() - 1)
            assert np.median(error) < 0.12, (hw.name, name)
            scored += len(unseen)
    assert scored > 8000


@pytest.mark.skipif(not ASCEND.is_file(), reason="the measured tables are not here")
def test_memory_bound_operators_of_an_ascend_die():
    """Norms, activations, copies and quantisation of a served model. Its prefill of 256 rows waits for the host."""
    hw = hardware("ascend-910c-die")
    traffic = {  # kernel: (family, bytes an element of rows × columns)
        "RmsNorm": ("norm", 4), "LayerNormV3": ("norm", 4), "SwiGlu": ("activation", 3), "TensorMove": ("copy", 4),
        "DynamicQuant": ("quantize", 3), "AscendQuantV2": ("quantize", 3), "GatherV2": ("gather", 4),
    }  # fmt: skip
    errors = []
    for row in pd.read_csv(ASCEND).itertuples():
        shape = json.loads(row.config)
        if row.op not in traffic or shape["rows"] == 256:
            continue
        family, item = traffic[row.op]
        work = Work(read_bytes=item * shape["rows"] * shape.get("h", shape.get("n")))
        errors.append(float(time_of(Call(work), hw.coefficient(family), hw).seconds) / row.duration_median_s - 1)
    assert len(errors) == 10
    assert np.median(np.abs(errors)) < 0.06
    assert np.max(np.abs(errors)) < 0.20
