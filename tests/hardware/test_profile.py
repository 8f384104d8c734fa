from __future__ import annotations

import pickle

import pytest

from tensorcast.errors import HardwareError
from tensorcast.hardware.coefficient import Coefficient, choose
from tensorcast.hardware.load import hardware

H100, A2, DIE = hardware("h100"), hardware("ascend-910b"), hardware("ascend-910c-die")


def test_specifications():
    assert (H100.peak("bf16"), H100.peak("fp8"), H100.memory_bw, H100.cores) == (989e12, 1979e12, 3.35e12, 132)
    assert (A2.peak("bf16"), A2.peak("int8"), A2.memory_bytes) == (353.9e12, 707.8e12, 64 * 2**30)
    assert H100.compute_capability == 90 and A2.compute_capability is None
    assert hardware("b200").peak("nvfp4") == 9000e12


def test_what_a_device_lacks():
    assert not A2.has("fp8") and not H100.has("nvfp4")
    assert not hardware("ascend-310p").has("bf16") and hardware("ascend-310p").has("fp16")
    with pytest.raises(HardwareError, match="ascend-910b2 does not compute fp8; it has fp32, fp16, bf16, int8"):
        A2.peak("fp8")


def test_features():
    assert {"bf16", "fp8", "tensorcore"} <= H100.features
    assert "cube" in A2.features and "fp8" not in A2.features


def test_vector_rate():
    assert (A2.vector_peak("bf16"), A2.vector_peak("fp32")) == (22e12, 11e12)
    assert hardware("mi300x").vector_peak("bf16") == 163.4e12


def test_coefficients_fall_back_in_order():
    assert H100.coefficient("gemm", "bf16") is H100.coefficient("gemm", "fp16")
    assert H100.coefficient("gemm", "bf16").kind == "calibrated"
    assert hardware("h20").coefficient("gemm", "bf16").kind == "inherited"
    assert hardware("h20").coefficient("gemm", "bf16").provenance.startswith("inherited from h100-sxm")
    assert H100.coefficient("gemm", "int8").provenance.startswith("universal set")
    assert H100.coefficient("softmax").kind == "assumed"
    assert hardware("l4").coefficient("gemm", "bf16").kind == "universal"


def test_inherited_times_go_with_the_clock_and_shares_do_not():
    h100, h20 = H100.coefficient("gemm", "bf16"), hardware("h20").coefficient("gemm", "bf16")
    ratio = hardware("h20").clock_hz / H100.clock_hz
    assert ratio > 1
    assert h20["t0"] == pytest.approx(h100["t0"] / ratio)
    assert h20["bsm"] == pytest.approx(h100["bsm"] * ratio)
    assert h20["em"] == h100["em"]


def test_kernels_have_coefficients_of_their_own():
    default, triton = H100.coefficient("grouped_gemm", "bf16"), H100.coefficient("grouped_gemm", "bf16", "triton")
    assert triton.kernel == "triton" != default.kernel
    assert H100.coefficient("grouped_gemm", "bf16", "unheard-of") is default
    assert H100.coefficient("gemm", "fp8").includes == ("quantize",)


def test_unknown_family():
    with pytest.raises(HardwareError, match="nearest: gemm"):
        H100.coefficient("gem", "bf16")


def row(t0, fmt, kernel="", kind="calibrated"):
    figures = {"t0": t0, "compute": 0.5, "bandwidth": 0.5}
    return Coefficient("gemm", fmt, figures, kernel=kernel, kind=kind, provenance="a table")


def test_choose():
    rows = (
        row(1e-6, "bf16"),
        row(2e-6, "bf16", "k"),
        row(4e-6, "bf16", "u", kind="universal"),
        row(3e-6, "any", kind="universal"),
    )
    asked = [("bf16",), ("bf16", "k"), ("fp16", "k"), ("fp8",), ("bf16", "u")]
    assert [choose(rows, *key)["t0"] for key in asked] == [1e-6, 2e-6, 2e-6, 3e-6, 1e-6]
    assert choose((), "bf16") is None


def test_sources_say_how_far_to_trust_a_figure():
    assert H100.sources["peaks.bf16"].status == "specified"
    assert H100.sources["reserved.bytes"].status == "assumed"
    assert A2.sources["topology.hccs.efficiency"].status == "measured"


def test_profiles_travel_between_processes():
    assert pickle.loads(pickle.dumps(H100)) == H100


def test_reserved_memory():
    assert DIE.usable_bytes == 65498251264
