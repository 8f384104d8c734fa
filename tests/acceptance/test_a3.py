"""Kernels: which one fills a slot, who chose it, what is refused, and what the choice changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import tensorcast as tc
from tensorcast.hardware.load import hardware
from tensorcast.kernels import KERNELS
from tensorcast.ops import operator_named
from tensorcast.trace.run import trace_step
from tests.kernels.conftest import alone  # noqa: F401

SMALL = "qwen3-0.6b"  # 28 layers
FAST = ("--input-len", "256", "--output-len", "4", "--no-custom-dir")


@pytest.fixture
def simulate(run):
    """`tensorcast simulate` of a small model with the given flags."""
    return lambda *flags, model=SMALL, hw="h100": run("simulate", "--model", model, "--hw", hw, *FAST, *flags)


@pytest.fixture
def refused(simulate):
    """The one line with which the flags are refused, exit code 2."""

    def refused(*flags: str, **kwargs) -> str:
        code, out, err = simulate(*flags, **kwargs)
        assert code == 2 and out == "" and "Traceback" not in err
        assert len(err.strip().splitlines()) == 1, err
        return err

    return refused


def slots(model: str = SMALL, hw="h100", **options) -> set[tuple]:
    """(op/variant, kernel, source, how many) of a deployed model."""
    found = tc.build_model(model, hw, **options).kernels.summary()
    return {(f"{k['op']}/{k['variant']}", k["name"], k["source"], k["slots"]) for k in found}


def of_op(op: str, found: set[tuple]) -> set[tuple]:
    return {row for row in found if row[0].startswith(f"{op}/")}


def ops(model, phase: str = "prefill", batch: int = 2, tokens: int = 64) -> list[str]:
    """Every operator of one forward, all layers."""
    calls = trace_step(model, phase, batch, tokens, 0).calls
    return [call.op for call in calls for _ in call.layers or [0]]


def spec(name: str, op: str = "rms_norm", factory=lambda: None, variant: str = "standard", **needs) -> tc.KernelSpec:
    return tc.KernelSpec(name, op, factory, variant, tc.HardwareRequirement(**needs))


# -- A3.1 to A3.6: listing, choosing, refusing -------------------------------------------------------------------------


def test_a3_1_a_listing_says_what_works_on_a_machine_and_why_the_rest_does_not(run):
    code, out, _ = run("list", "kernels", "--hw", "ascend-910b", "--json")
    rows = json.loads(out)
    assert code == 0
    assert {"op", "variant", "name", "needs", "description", "available", "reason"} <= set(rows[0])
    forms = {(row["op"], row["variant"]) for row in rows}
    assert forms == {(row["op"], row["variant"]) for row in rows if row["name"] == "eager"}
    assert {"attention", "mla", "moe_experts", "rms_norm", "layer_norm", "rotary", "swiglu", "qkv_proj"} <= {
        op for op, _ in forms
    }
    fa3 = next(row for row in rows if row["name"] == "fa3")
    assert fa3["available"] is False and fa3["reason"].startswith("needs gpu") and fa3["needs"] == "gpu cc>=90 cc<=90"
    assert all(row["available"] for row in rows if row["name"] == "eager")
    code, out, _ = run("list", "kernels", "--hw", "ascend-910b")
    line = next(line for line in out.splitlines() if " fa3 " in line)
    assert " no " in line and "needs gpu" in line


def test_a3_2_a_chosen_kernel_is_named_in_the_header_and_runs_in_every_layer(simulate):
    code, out, _ = simulate("--kernel", "attention=flash", "--json", "out.json", model="qwen3-8b")
    assert code == 0 and "attention/standard ×36 = flash (asked)" in " ".join(out.split())
    found = json.loads(Path("out.json").read_text())
    assert {"op": "attention", "variant": "standard", "name": "flash", "source": "asked", "slots": 36} in found[
        "kernels"
    ]
    rows = found["phases"]["prefill"]["ops"]
    assert sum(row["count"] for row in rows if row["op"] == "attention") == 36
    assert not [row for row in rows if row["op"] in ("aten::bmm", "aten::_softmax")]


@pytest.mark.parametrize(
    "kernel, said",
    [
        ("attention=flsh", ["attention has no kernel 'flsh'; nearest: flash", "fa2, fa3, flash"]),
        (
            "atention=flash",
            ["unknown op 'atention'; nearest: attention", "ops with kernels: attention, gated_rms_norm"],
        ),
        ("attention/foo=flash", ["attention has no variant 'foo'; it has standard"]),
        ("rms_norm/offset=nothing", ["rms_norm/offset has no kernel 'nothing'"]),
        ("attention=", ["expected OP[/VARIANT][@GLOB]=NAME"]),
        ("attention/=flash", ["'attention/' is not OP[/VARIANT][@GLOB]"]),
    ],
)
def test_a3_3_unknown_names_are_refused_with_what_there_is(refused, kernel, said):
    told = refused("--kernel", kernel)
    assert all(text in told for text in said), told


def test_a3_3_names_usable_on_the_machine_come_first(refused):
    assert "block_sparse_90, fa2, flash, paged, paged_128, trtllm; not there: fa3, trtllm_gen" in refused(
        "--kernel", "attention=nothing", hw="a100"
    )


def test_a3_4_a_kernel_the_simulated_machine_cannot_run_is_an_error(refused, simulate):
    KERNELS.register(spec("mine", device_type="gpu", min_compute_capability=90))
    told = refused("--kernel", "rms_norm=mine", hw="ascend-910b")
    assert "rms_norm kernel 'mine' needs gpu, ascend-910b2 is npu" in told
    assert "usable on ascend-910b2: eager, fused, fused_add, fused_quantize; not there: mine" in told
    assert "needs compute capability 90, a100-sxm-80g has 80" in refused("--kernel", "rms_norm=mine", hw="a100")
    assert simulate("--kernel", "rms_norm=mine")[0] == 0
    KERNELS.register(spec("old", device_type="gpu", max_compute_capability=80))
    assert "needs compute capability at most 80, h100-sxm has 90" in refused("--kernel", "rms_norm=old")
    assert simulate("--kernel", "rms_norm=old", hw="a100")[0] == 0
    KERNELS.register(spec("narrow", features=frozenset({"fp8"})))
    assert "needs fp8" in refused("--kernel", "rms_norm=narrow", hw="a100")


def test_a3_5_a_slot_the_model_lacks_is_an_error(refused):
    told = refused("--kernel", "moe_experts=grouped", model="qwen3-8b")
    assert "qwen3-8b has no moe_experts slot; slots: attention, qkv_proj, rms_norm, rotary, swiglu" in told
    assert "has no rms_norm/offset slot" in refused("--kernel", "rms_norm/offset=fused")
    assert "has no row_linear slot" in refused("--kernel", "row_linear=fused")  # one device adds nothing up


def test_a3_6_duplicates_are_errors_and_replacements_are_told(run):
    KERNELS.register(spec("mine"))
    with pytest.raises(tc.DuplicateError) as caught:
        KERNELS.register(spec("mine", factory=lambda: torch.neg))
    assert str(caught.value).count("test_a3.py:") == 2
    KERNELS.register(spec("mine", variant="offset"))
    KERNELS.register(spec("mine", factory=lambda: torch.neg), replace=True)
    assert KERNELS.resolve("rms_norm", "standard", "mine") is torch.neg
    rows = {(r["variant"], r["name"]): r for r in json.loads(run("list", "kernels", "--json")[1])}
    assert "test_a3.py:" in rows["standard", "mine"]["replaces"] and rows["offset", "mine"]["replaces"] == ""
    with pytest.raises(tc.DuplicateError, match="cannot be the default: 'fused_add' is"):
        KERNELS.register(tc.KernelSpec("other", "rms_norm", lambda: None, default=True))


# -- A3.7 to A3.9: machines, instances, modules ------------------------------------------------------------------------


def test_a3_7_names_per_device_lead_to_the_one_that_works(refused):
    KERNELS.register(spec("liger", device_type="gpu"))
    KERNELS.register(spec("liger_npu", device_type="npu"))
    assert "'liger' needs gpu, ascend-910b2 is npu; nearest: liger_npu" in refused(
        "--kernel", "rms_norm=liger", hw="ascend-910b"
    )
    assert "'liger_npu' needs npu, h100-sxm is gpu; nearest: liger;" in refused("--kernel", "rms_norm=liger_npu")


def test_a3_8_kernels_belong_to_one_model_and_stay():
    a, b = (tc.build_model(SMALL, kernels={"attention": name}) for name in ("flash", "eager"))
    first, second, again = ops(a), ops(b), ops(a)
    assert first == again
    assert [found.count("aten::bmm") for found in (first, second)] == [0, 2 * 28]
    assert [found.count("attention") for found in (first, second)] == [28, 0]
    slot = a.slots["attention@model.layers.0.self_attn"]
    assert (slot.name, slot.source) == ("flash", "asked")
    with pytest.raises(dataclasses.FrozenInstanceError):
        slot.kernel = None
    with pytest.raises(TypeError):
        a.slots["attention@model.layers.0.self_attn"] = slot


def test_a3_9_the_most_specific_pattern_of_paths_decides(refused):
    both = ["attention@model.visual.*=eager", "attention=flash"]
    for kernel in (both, both[::-1]):
        assert of_op("attention", slots("qwen3-vl-2b", kernel=kernel)) == {
            ("attention/standard", "eager", "asked", 24),
            ("attention/standard", "flash", "asked", 28),
        }
    told = refused("--kernel", "attention@visul.*=eager")
    assert "qwen3-0.6b has no attention slot at 'visul.*'" in told and "model.layers.0.self_attn" in told
    assert "fit model.layers.0.self_attn equally well" in refused(
        "--kernel", "attention=eager", "--kernel", "attention=fa2"
    )


# -- A3.10 to A3.13: kernels and operators of users --------------------------------------------------------------------

OWN = {
    "operator and cost": '''
from pathlib import Path
import torch
import tensorcast as tc

@tc.op("a3lib::fast_norm(Tensor x, Tensor w, float eps) -> Tensor")
def fast_norm(x, w, eps):
    return torch.empty_like(x)

@tc.register_op_cost(torch.ops.a3lib.fast_norm.default)
def _(call):
    return tc.Cost(vector_flops=5 * call.args[0].numel(), read=call.read_bytes, write=call.write_bytes)

def factory():
    Path("factory ran").touch()
    return lambda x, w: fast_norm(x, w, 1e-6)

tc.KERNELS.register(tc.KernelSpec("mine", "rms_norm", factory))
''',
    "one object": '''
from pathlib import Path
import tensorcast as tc

@tc.operator("a3_norm(Tensor x, Tensor w) -> Tensor", family="norm")
class A3Norm:
    """A norm."""
    def meta(x, w): return x.new_empty(x.shape)
    def dims(x, w): return {"elements": x.numel(), "width": w.numel()}
    def work(d, a):
        n = d["elements"]
        return tc.Work(vector_flops=5 * n, read_bytes=2 * (n + d["width"]), write_bytes=2 * n)

def factory():
    import torch
    Path("factory ran").touch()
    return torch.ops.tensorcast.a3_norm

tc.KERNELS.register(tc.KernelSpec("mine", "rms_norm", factory))
''',
}  # fmt: skip


@pytest.mark.parametrize("code, op", [*zip(OWN.values(), ("a3lib::fast_norm", "a3_norm"), strict=True)], ids=OWN)
def test_a3_10_a_user_file_brings_kernel_operator_and_cost(simulate, run, tmp_path, code, op):
    file = tmp_path / "my_kernels.py"
    file.write_text(code)
    assert simulate("--custom", str(file), "--json", "plain.json")[0] == 0
    assert not Path("factory ran").exists()
    for _ in range(2):  # traced, then from the cache
        told = simulate("--custom", str(file), "--kernel", "rms_norm=mine", "--json", "out.json")
        assert told[0] == 0, told[2]
        plain, found = (json.loads(Path(name).read_text()) for name in ("plain.json", "out.json"))
        assert Path("factory ran").exists()
        assert {"op": "rms_norm", "variant": "standard", "name": "mine", "source": "asked", "slots": 113} in found[
            "kernels"
        ]
        rows = [row for row in found["phases"]["prefill"]["ops"] if row["op"] == op]
        assert sum(row["count"] for row in rows) == 4 * 28 + 1 and found["uncosted_ops"] == []
        # Queries and keys of 16 and 8 heads of 128, two norms a layer of width 1024, one behind the layers.
        elements = 256 * (28 * (24 * 128 + 2 * 1024) + 1024)
        assert sum(row["write_bytes"] for row in rows) == 2 * elements
        assert sum(row["read_bytes"] for row in rows) == 2 * (elements + 28 * (2 * 128 + 2 * 1024) + 1024)
        assert found["phases"]["prefill"]["step_time_s"] > plain["phases"]["prefill"]["step_time_s"]
    call = next(
        c for c in trace_step(tc.build_model(SMALL, kernel="rms_norm=mine"), "prefill", 1, 8, 0).calls if c.op == op
    )
    assert operator_named(op).work(call.dims, call.attrs).vector_flops == 5 * 8 * 1024
    code, out, _ = run("list", "ops", "--custom", str(file), "--json")
    assert next(row for row in json.loads(out) if row["name"] == op)["origin"].startswith("my_kernels.py:")


def test_a3_11_a_factory_that_fails_is_an_error_only_where_it_is_chosen(simulate, refused, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import tensorcast as tc\n"
        "def factory():\n    import no_such_library\n"
        "tc.KERNELS.register(tc.KernelSpec('mine', 'rms_norm', factory))\n"
    )
    assert simulate("--custom", "broken.py")[0] == 0
    told = refused("--custom", "broken.py", "--kernel", "rms_norm=mine")
    assert "rms_norm kernel 'mine' (broken.py:4) failed to load: No module named 'no_such_library'" in told
    KERNELS.register(spec("odd", factory=lambda: 7))
    assert "its factory must return a function, or None for the model's own code, not 7" in refused(
        "--kernel", "rms_norm=odd"
    )


def test_a3_11_a_kernel_that_fails_while_it_runs_is_named(refused):
    def kernel(x, w):
        raise RuntimeError("no such\nthing")

    KERNELS.register(spec("broken", factory=lambda: kernel))
    told = refused("--kernel", "rms_norm=broken")
    assert "rms_norm kernel 'broken' (" in told and "test_a3.py:" in told and "RuntimeError: no such thing" in told
    KERNELS.register(spec("nothing", "attention"))  # attention cannot fall back to the model's own code
    assert "its factory must return a function, not None" in refused("--kernel", "attention=nothing")


def test_a3_12_an_operator_without_a_cost_is_listed_and_strict_refuses_it(simulate, refused):
    name = "a3bare::norm"

    @tc.op(f"{name}(Tensor x, Tensor w) -> Tensor")
    def norm(x, w):
        return torch.empty_like(x)

    KERNELS.register(spec("bare", factory=lambda: norm))
    code, out, _ = simulate("--kernel", "rms_norm=bare", "--json", "out.json")
    found = json.loads(Path("out.json").read_text())
    assert code == 0 and found["uncosted_ops"] == [name] and name in out
    rows = [row for row in found["phases"]["prefill"]["ops"] if row["op"] == name]
    assert sum(row["count"] for row in rows) == 113
    assert all(row["bound"] in ("memory", "overhead") and row["matrix_flops"] == 0 for row in rows)
    assert sum(row["write_bytes"] for row in rows) == 2 * 256 * (28 * (24 * 128 + 2 * 1024) + 1024)
    assert f"operators without a cost: {name}" in refused("--kernel", "rms_norm=bare", "--strict")

    @tc.register_op_cost(name)
    def _(call):
        return tc.Cost(read=call.read_bytes, write=call.write_bytes)

    simulate("--kernel", "rms_norm=bare", "--json", "out.json")
    assert json.loads(Path("out.json").read_text())["uncosted_ops"] == []


def test_a3_13_a_spec_is_checked_when_it_is_made():
    for field, value in (("name", ""), ("op_name", None), ("variant", "")):
        fields = {"name": "mine", "op_name": "rms_norm", "factory": list} | {field: value}
        with pytest.raises(tc.KernelError, match=f"kernel spec: {field} must be a non-empty string"):
            tc.KernelSpec(**fields)
    with pytest.raises(tc.KernelError, match="factory must be callable"):
        tc.KernelSpec("mine", "rms_norm", "not a function")
    with pytest.raises(tc.KernelError, match="must not have '@'"):
        tc.KernelSpec("mi@ne", "rms_norm", list)
    with pytest.raises(tc.KernelError, match="device_type 'cuda': one of any, npu, gpu"):
        tc.HardwareRequirement("cuda")
    with pytest.raises(tc.KernelError, match="features 'fp8': a set of names"):
        tc.HardwareRequirement(features="fp8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec("mine").name = "other"


# -- A3.14, A3.16: who chose -------------------------------------------------------------------------------------------


def test_a3_14_every_slot_tells_who_filled_it():
    swiglu = {("swiglu/standard", "fused", "default", 28)}
    assert of_op("swiglu", slots()) == swiglu
    assert {source for _, _, source, _ in slots()} == {"default"}
    machine = dataclasses.replace(hardware("h100"), kernels={"swiglu": "eager", "attention": "fa2"})
    assert of_op("swiglu", slots(hw=machine)) == {("swiglu/standard", "eager", "hardware", 28)}
    profile = tc.ModelProfile(model_type="qwen3", kernels={"swiglu": "fused", "rms_norm@*.q_norm": "eager"})
    tc.register_model_profile(profile, replace=True)
    found = slots(hw=machine)
    assert of_op("swiglu", found) == {("swiglu/standard", "fused", "profile", 28)}
    assert of_op("attention", found) == {("attention/standard", "fa2", "hardware", 28)}
    assert of_op("rms_norm", found) == {
        ("rms_norm/standard", "eager", "profile", 28),
        ("rms_norm/standard", "fused_add", "default", 85),
    }
    asked = slots(hw=machine, kernel="swiglu=fused")
    assert of_op("swiglu", asked) == {("swiglu/standard", "fused", "asked", 28)}


def test_a3_14_a_default_that_cannot_be_used_is_an_error_naming_where_it_stands():
    machine = dataclasses.replace(hardware("ascend-910b"), kernels={"attention": "fa3"})
    with pytest.raises(tc.KernelError, match=r"hardware profile ascend-910b2, kernels: attention=fa3: .* needs gpu"):
        slots(hw=machine)
    tc.register_model_profile(tc.ModelProfile(model_type="qwen3", kernels={"attention": "flsh"}), replace=True)
    with pytest.raises(tc.KernelError, match=r"profile 'qwen3', kernels: attention=flsh: .*nearest: flash"):
        slots()
    tc.register_model_profile(tc.ModelProfile(model_type="qwen3", kernels={"attention": "fa3"}), replace=True)
    assert tc.simulate(SMALL, "h100").metrics["ttft_s"] > 0
    with pytest.raises(tc.KernelError, match="needs gpu"):  # what the other machine cached does not count here
        tc.simulate(SMALL, "ascend-910b")


def test_a3_16_a_file_chooses_as_the_command_line_does_and_gives_way_to_it(simulate):
    def chosen(*flags: str) -> set[tuple]:
        code, _, err = simulate("--json", "out.json", *flags)
        assert code == 0, err
        rows = json.loads(Path("out.json").read_text())["kernels"]
        return {(row["name"], row["source"], row["slots"]) for row in rows if row["op"] == "attention"}

    assert chosen() == {("flash", "default", 28)}
    Path("tensorcast.toml").write_text('[kernels]\nattention = "eager"\n"attention@model.layers.?.*" = "fa2"\n')
    assert chosen() == {("eager", "config", 18), ("fa2", "config", 10)}
    assert chosen("--kernel", "attention=flash") == {("flash", "asked", 28)}
    assert chosen("--kernel", "attention@*.0.self_attn=flash") == {
        ("eager", "config", 18), ("fa2", "config", 9), ("flash", "asked", 1),
    }  # fmt: skip
    Path("other.toml").write_text('[kernels]\nattention = "fa3"\n')
    assert chosen("--config", "other.toml") == {("fa3", "config", 28)}
    assert tc.simulate(SMALL, "h100", config="other.toml", input_len=256, output_len=4).to_dict()["kernels"]
    assert {("attention/standard", "fa3", "config", 28)} == of_op("attention", slots(config="other.toml"))


@pytest.mark.parametrize(
    "text, said",
    [
        ('[kernels]\natention = "flash"', "unknown op 'atention'; nearest: attention"),
        ('[kernels]\nattention = "flsh"', "attention has no kernel 'flsh'; nearest: flash"),
        ('[kernel]\nattention = "flash"', "tensorcast.toml: unknown table or key 'kernel'; nearest: kernels"),
        ('attention = "flash"', "tensorcast.toml: unknown table or key 'attention'; it may have kernels"),
        ("kernels = 3", "tensorcast.toml: kernels must be a table"),
        ("[kernels]\nattention = 3", "expected OP[/VARIANT][@GLOB] = the name of a kernel, not 'attention' = 3"),
        ('[kernels]\nattention.x = "flash"', "expected OP[/VARIANT][@GLOB] = the name of a kernel"),
        ('[kernels]\nmoe_experts = "grouped"', "qwen3-0.6b has no moe_experts slot"),
        ("[kernels\n", "tensorcast.toml: "),
    ],
)
def test_a3_16_a_file_is_held_to_the_same_rules(refused, text, said):
    Path("tensorcast.toml").write_text(text)
    told = refused()
    assert said in told and "tensorcast.toml" in told


def test_a3_16_a_file_that_is_named_must_be_there(refused):
    assert "--config missing.toml: No such file or directory" in refused("--config", "missing.toml")
    assert "--config .: Is a directory" in refused("--config", ".")
