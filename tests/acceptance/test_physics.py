"""No operator is faster than its bound, parts sum to the whole, and what fits at n does not fit at n + 1."""

from __future__ import annotations

import itertools
from functools import cache

import pytest

import tensorcast as tc
from tensorcast.errors import DeploymentError, InputError
from tensorcast.hardware.load import hardware
from tensorcast.hardware.profile import HardwareProfile

CASES = {
    "dense": dict(model="qwen3-8b", hw="h100", batch=3, input_len=700, output_len=40),
    "dense eager": dict(model="llama-3.1-8b", hw="rtx-4090", batch=1, input_len=300, output_len=8, runtime="eager"),
    "dense tp": dict(model="qwen3-32b", hw="a100-sxm-80g", tp=4, batch=8, input_len=2000, output_len=20),
    "pipeline": dict(model="qwen3-8b", hw="mi300x", tp=2, pp=3, batch=5, input_len=500, output_len=10),
    "windows": dict(model="gpt-oss-20b", hw="b200-sxm", batch=2, input_len=3000, output_len=200),
    "experts": dict(model="qwen3-30b-a3b", hw="ascend-910c-die", tp=2, dp=2, ep=4, batch=9, input_len=900, osl=9),
    "latents": dict(model="deepseek-v3", hw="ascend-910b", tp=8, dp=4, ep=32, quant="w8a8", batch=64, output_len=64),
    "latents fp8": dict(model="deepseek-v3", hw="h200", tp=16, ep=16, chunk=1024, mtp=1, acceptance_rate=0.8),
    "scans": dict(model="qwen3-next-80b-a3b", hw="h20", tp=4, batch=4, input_len=2048, output_len=16),
    "mamba": dict(model="nemotron-3-nano-30b-a3b", hw="l40s", tp=2, batch=2, input_len=1024, output_len=16),
    "small machine": dict(model="qwen3-0.6b", hw="ascend-310p", batch=2, input_len=1024, output_len=16),
}  # fmt: skip
EXTRA = {
    "narrow weights": dict(model="qwen3-8b", hw="b200-sxm", quant="nvfp4", batch=16, input_len=1024, output_len=16),
    "int4": dict(model="qwen3-8b", hw="l4", quant="w4a16", kv_cache_dtype="fp8", batch=4, input_len=1024, osl=16),
    "ragged": dict(model="qwen3-8b", hw="h100", seq_lens=(17, 4000, 800), output_len=16),
}


@cache
def estimate(name: str) -> tc.Estimate:
    return tc.simulate(**{**CASES, **EXTRA}[name])


@pytest.fixture(params=[*CASES, *EXTRA])
def case(request) -> tuple[tc.Estimate, HardwareProfile]:
    return estimate(request.param), hardware({**CASES, **EXTRA}[request.param]["hw"])


def test_no_operator_is_faster_than_light(case):
    found, hw = case
    fastest = max(hw.peaks.values())
    link = max(tier.bandwidth for tier in hw.topology.tiers)
    for name, phase in found.phases.items():
        for op in phase["ops"]:
            bounds = {
                "matrix": op["matrix_flops"] / fastest,
                "vector": op["vector_flops"] / max(hw.vector.values()),
                "wire": op["comm_bytes"] / link,
            }
            if not op["comm_bytes"]:
                bounds["memory"] = (op["read_bytes"] + op["write_bytes"]) / hw.memory_bw
            assert op["time_s"] >= max(bounds.values()) * (1 - 1e-9), (name, op, bounds)
        assert 0 < phase["mfu"] < 1 and 0 < phase["mbu"] < 1


def test_parts_sum_to_the_whole(case):
    found, _ = case
    for phase in found.phases.values():
        device = sum(op["time_s"] for op in phase["ops"])
        assert sum(phase["time_by_bound_s"].values()) == pytest.approx(device, rel=1e-9)
        assert phase["step_time_s"] >= device * (1 - 1e-9)
        for name in ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes"):
            assert sum(op[name] for op in phase["ops"]) == pytest.approx(phase[name], rel=1e-9)


def test_memory_adds_up(case):
    memory = case[0].memory
    parts = ("weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "workspace_bytes", "reserved_bytes")
    assert abs(sum(memory[part] for part in parts) - memory["total_bytes"]) <= len(parts)
    assert memory["fits"] == (memory["total_bytes"] <= memory["capacity_bytes"])
    assert min(memory[part] for part in (*parts, "max_batch", "max_context")) >= 0


@pytest.mark.parametrize("name", CASES)
def test_the_largest_batch_fits_and_one_more_does_not(name):
    options = CASES[name]
    most, groups = estimate(name).memory["max_batch"], options.get("dp", 1)
    assert most % groups == 0
    if most:
        assert tc.simulate(**{**options, "batch": most}).memory["fits"]
    assert not tc.simulate(**{**options, "batch": most + groups}).memory["fits"]


@pytest.mark.parametrize("name", ["dense eager", "windows", "latents fp8", "mamba", "small machine"])
def test_the_longest_context_fits_and_a_longer_one_does_not(name):
    options = CASES[name]
    longest = estimate(name).memory["max_context"]
    drafts = options.get("mtp", 0)
    prompt = longest - options.get("output_len", 1024) - drafts
    assert tc.simulate(**{**options, "input_len": prompt}).memory["fits"]
    try:
        longer = tc.simulate(**{**options, "input_len": prompt + drafts + 1})
    except InputError as refused:  # bounded by the model's positions, not by memory
        assert "max_position_embeddings" in str(refused)
    else:
        assert not longer.memory["fits"]


@pytest.mark.parametrize(
    "options",
    [
        dict(model="deepseek-v3", hw="ascend-910b", tp=8),
        pytest.param(dict(model="deepseek-v3", hw="h100", tp=8, quant="none"), marks=pytest.mark.nightly),
        dict(model="qwen3-32b", hw="l40s"),
        dict(model="qwen3-32b", hw="l40s", pp=2, batch=4, input_len=30_000),
        dict(model="llama-3.1-70b", hw="h100", dp=2, batch=2),
        pytest.param(dict(model="qwen3-235b-a22b", hw="h100", pp=3, batch=6), marks=pytest.mark.nightly),
        dict(model="qwen3-8b", hw="h100", batch=500),
    ],
    ids=lambda o: f"{o['model']} on {o['hw']}",
)
def test_suggested_plans_fit(options):
    memory = tc.simulate(**options).memory
    assert not memory["fits"] and memory["suggestions"]
    for suggestion in memory["suggestions"]:
        words = suggestion.partition(":")[0].split()
        flags = {flag.removeprefix("--"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
        plan = {name: value if name == "quant" else int(value) for name, value in flags.items()}
        changed = tc.simulate(**{**options, **plan}).memory
        assert changed["fits"], suggestion


SCHEMES = ("none", "w8a8", "w8a8-static", "w8a16", "w4a16", "w4a8", "fp8", "fp8-block", "mxfp4", "nvfp4")


def test_every_scheme_has_its_own_bytes_math_and_kernels():
    found = {q: tc.simulate("qwen3-8b", "b200-sxm", quant=q, input_len=2048, output_len=16) for q in SCHEMES}
    told = {}
    for scheme, e in found.items():
        phases = [e.phases[name] for name in ("prefill", "decode")]
        kernels = tuple(sorted({op["op"] for op in phases[0]["ops"]}))
        told[scheme] = (e.memory["weights_bytes"], *(p["step_time_s"] for p in phases), kernels)
    assert told["w4a8"][0] == told["w4a16"][0]  # equal weights, other activations
    assert len({t[0] for t in told.values()}) == len(SCHEMES) - 1
    # A prompt is bound by the matrix units; there, schemes that differ in weight bytes alone may be equally fast.
    alike = [{"w8a8", "w4a8"}, {"w4a16", "mxfp4"}]
    for one, other in itertools.combinations(SCHEMES, 2):
        assert told[one][2] != told[other][2], (one, other)
        assert told[one][1] != told[other][1] or {one, other} in alike, (one, other)
    size = {scheme: t[0] for scheme, t in told.items()}
    assert size["nvfp4"] < size["w8a8"] < size["none"] and size["w4a16"] < size["w8a16"]
    plain = set(told["none"][3])
    for scheme in ("w8a8", "w8a8-static", "w4a8", "fp8", "fp8-block", "nvfp4"):
        assert any("quantize" in op for op in set(told[scheme][3]) - plain), scheme
    for scheme in ("w8a16", "w4a16", "mxfp4"):
        assert told[scheme][3] == tuple(sorted(plain))


def test_a_format_the_machine_lacks_is_refused_by_name():
    with pytest.raises(DeploymentError, match="does not compute fp8; nearest: w8a8"):
        tc.simulate("qwen3-8b", "ascend-910b", quant="fp8")
