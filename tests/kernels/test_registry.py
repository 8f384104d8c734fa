"""Which kernel fills a slot, and what is refused."""

from __future__ import annotations

import json

import pytest

import tensorcast as tc
from tensorcast.cli.main import cli
from tensorcast.errors import DuplicateError, KernelError
from tensorcast.hardware.load import hardware
from tensorcast.kernels import KERNELS, HardwareRequirement, KernelSpec, load_kernels
from tensorcast.kernels.choice import KernelChoice, KernelRequest


@pytest.fixture(autouse=True)
def _isolated():
    load_kernels()
    with KERNELS._catalog.isolated():
        yield


def spec(name="mine", op="rms_norm", factory=lambda: None, **needs) -> KernelSpec:
    return KernelSpec(name, op, factory, hardware=HardwareRequirement(**needs))


def refused(request: str, hw: str = "h100", op: str = "rms_norm") -> str:
    with pytest.raises(KernelError) as caught:
        KernelChoice([KernelRequest.parse(request)], hardware(hw)).fill(op, "model.norm")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "needs, hw, reason",
    [
        ({"device_type": "gpu"}, "ascend-910b", "needs gpu, ascend-910b2 is npu"),
        ({"min_compute_capability": 90}, "a100", "needs compute capability 90, a100-sxm-80g has 80"),
        ({"max_compute_capability": 80}, "h100", "at most 80, h100-sxm has 90"),
        ({"features": frozenset({"fp8"})}, "a100", "needs fp8"),
    ],
)
def test_a_kernel_the_machine_cannot_run_is_refused_with_those_it_can(needs, hw, reason):
    KERNELS.register(spec(**needs))
    message = refused("rms_norm=mine", hw)
    assert reason in message and "eager, fused, fused_add" in message.partition("usable on")[2]


def test_a_kernel_the_machine_can_run_is_taken():
    KERNELS.register(spec(device_type="gpu", min_compute_capability=90))
    slot = KernelChoice([KernelRequest.parse("rms_norm=mine")], hardware("h100")).fill("rms_norm", "model.norm")
    assert (slot.name, slot.source) == ("mine", "asked")


def test_unknown_names_are_refused_with_near_ones():
    assert "nearest: fused" in refused("rms_norm=fussed")
    assert "nearest: rms_norm" in refused("rms_nrom=fused")
    assert "it has offset, standard" in refused("rms_norm/other=fused")
    assert "expected OP[/VARIANT][@GLOB]=NAME" in refused("rms_norm")


def test_a_factory_runs_when_chosen_and_not_before():
    def broken():
        raise ImportError("no such library")

    KERNELS.register(spec(factory=broken))
    assert KernelChoice([], hardware("h100")).fill("rms_norm", "model.norm").name == "fused_add"
    assert "failed to load: no such library" in refused("rms_norm=mine")


def test_the_more_specific_pattern_wins():
    requests = [KernelRequest.parse("rms_norm=eager"), KernelRequest.parse("rms_norm@*.q_norm=fused")]
    choice = KernelChoice(requests, hardware("h100"))
    assert choice.fill("rms_norm", "model.norm").name == "eager"
    assert choice.fill("rms_norm", "layers.0.q_norm").name == "fused"


def test_a_request_without_a_slot_is_an_error():
    with pytest.raises(KernelError, match=r"qwen3-0\.6b has no moe_experts slot; slots: attention"):
        tc.simulate("qwen3-0.6b", "h100", kernel=["moe_experts=grouped"], cache=False)


def test_duplicates_and_empty_names_fail_at_registration():
    KERNELS.register(spec())
    with pytest.raises(DuplicateError):
        KERNELS.register(spec(factory=lambda: 1))
    with pytest.raises(KernelError, match="name must be a non-empty string"):
        spec(name="")


def test_a_listing_for_a_machine_says_why_not(capsys):
    KERNELS.register(spec(device_type="gpu"))
    assert cli.run(["list", "kernels", "--hw", "ascend-910b", "--json"], "tensorcast") == 0
    rows = {(row["op"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    assert rows["rms_norm", "fused"]["available"] is True
    assert rows["rms_norm", "mine"]["available"] is False and "needs gpu" in rows["rms_norm", "mine"]["reason"]


def test_two_models_with_different_kernels_live_side_by_side():
    models = [tc.build_model("qwen3-0.6b", "h100", kernel=[f"attention={k}"]) for k in ("flash", "eager")]

    def operators(model):
        from tensorcast.trace.run import trace_step

        return [call.op for call in trace_step(model, "prefill", 2, 64, 0).calls]

    first, eager, again = operators(models[0]), operators(models[1]), operators(models[0])
    assert first == again != eager
    assert "attention" in first and "attention" not in eager and "aten::bmm" in eager
