"""`tensorcast check` and ModelContract: every line can pass and every line can fail (tests A2.14, A2.15, A4.11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tensorcast import testing
from tensorcast.checking import prices, ranks, structure
from tensorcast.checking.model import CHECKS, FIRST
from tensorcast.checking.physics import check_phases
from tensorcast.checking.result import Check, Failed, run_check
from tensorcast.checking.subject import Subject
from tensorcast.cost.phase import Phase
from tensorcast.hardware.load import hardware, names
from tests.verify.tiny import TINY

pytestmark = pytest.mark.usefixtures("own_folder")
NAMES = [check.name for check in (FIRST, *CHECKS)]


def tiny(write, name: str, **changes) -> str:
    """The tiny model of that name in a folder of the current directory."""
    write(f"{name}/config.json", json.dumps(TINY[name] | changes))
    return f"./{name}"


# -- what passes -------------------------------------------------------------------------------------------------------


def test_a2_14_one_line_a_check_with_the_figures(run, write):
    code, out, err = run("check", tiny(write, "qwen3_moe"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    told = {line[6:30].strip(): line for line in lines if line.startswith(("pass", "skip", "fail"))}
    assert list(told) == NAMES and not any(line.startswith("fail") for line in told.values())
    parameters = _stock_parameters("qwen3_moe")
    assert f"{parameters:,} parameters, 0 bytes allocated" in told["build on meta"]
    assert told["gradient checks"].startswith("skip") and "not applicable" in told["gradient checks"]
    assert f"{len(names())} machines" in told["every machine's latency"]
    text = " ".join(out.split())
    for said in (
        "Qwen3MoeForCausalLM (path ",
        "pipeline: the nine standard steps",
        "moe_experts/standard x3 = grouped",
    ):
        assert said in text
    assert "applied patch_moe: 3 expert modules" in text and "skipped patch_mla" in text
    assert "model.layers: 4 layers, 2 distinct" in text  # layer 0 is dense


def _stock_parameters(name: str) -> int:
    from transformers import AutoConfig, AutoModelForCausalLM

    described = dict(TINY[name])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(described.pop("model_type"), **described))
    return sum(parameter.numel() for parameter in model.parameters())


def test_a2_14_json_says_the_same(run, write):
    code, out, _ = run("check", "--model", tiny(write, "llama"), "--json")
    told = json.loads(out)
    assert (code, told["kind"], told["passed"]) == (0, "model", True)
    assert [check["name"] for check in told["checks"]] == NAMES
    assert {check["status"] for check in told["checks"]} == {"pass", "skip"}
    assert told["matched"]["steps"][0]["name"] == "wrap_model"
    assert told["matched"]["reuse"] == [{"stack": "model.layers", "layers": 4, "groups": 1, "sizes": [4]}]


@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss", "gemma3"])
def test_a2_14_latents_biased_experts_and_windows_pass(write, name):
    subject = Subject(tiny(write, name))
    results = [run_check(check, subject) for check in CHECKS if check.run is not prices.machines_agree]
    status = {result.name: result.status for result in results}
    assert "fail" not in status.values(), results
    assert {status[name] for name in ("forward", "ranks add up", "quantised bytes")} == {"pass"}


def test_a2_14_ranks_count_copies_of_kv_heads_and_padding_by_themselves(write):
    subject = Subject(tiny(write, "llama", intermediate_size=97, num_hidden_layers=1))
    # tp 4 holds 2 KV heads on 4 ranks: 2 more of k and v, 16 x 64 each; 97 columns become 4 x 25, 3 more of three
    told = ranks.ranks_add_up(subject)
    assert f"- {2 * 2 * 16 * 64:,} copies of KV heads - {3 * 3 * 64:,} padding" in told
    assert told.endswith(f"= {sum(p.numel() for p in subject.deployed().module.parameters()):,}")


def test_a2_14_a_module_without_a_plan_is_skipped_not_failed(run, write):
    write("mine.py", _MODULE)
    code, out, err = run("check", "mine.py")
    assert (code, err) == (0, ""), out
    assert "skip  ranks add up" in out and "skip  config round trip       the model has no configuration" in out


_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.inner = nn.Linear(8, 8)

    def forward(self, input_ids):
        return self.inner(self.table(input_ids))

__model__ = Net
"""


def test_a2_14_every_front_door_of_the_shipped_examples_passes(run):
    examples = Path(__file__).resolve().parents[2] / "custom_model"
    for args, parameters in (
        (("qwen2_graph.py", "--model", "qwen2.5-0.5b"), 494_032_768),
        (("opt_example",), 125_239_296),
    ):
        code, out, err = run("check", str(examples / args[0]), *args[1:], "--no-custom-dir")
        assert (code, err) == (0, ""), out
        assert f"{parameters:,} parameters, 0 bytes allocated" in out


def test_a2_14_a_denoiser_passes(write):
    write("flux.json", json.dumps({"_class_name": "FluxTransformer2DModel", "num_layers": 1, "num_single_layers": 1}))
    subject = Subject("flux.json")
    assert list(subject.points()) == ["denoise"]
    results = [run_check(check, subject) for check in CHECKS if check.run is not prices.machines_agree]
    assert {result.name for result in results if result.status == "skip"} == {"expert ranks add up", "gradient checks"}
    assert not [result for result in results if result.status == "fail"]


# -- what fails --------------------------------------------------------------------------------------------------------


def test_a2_14_exit_2_and_the_last_line_names_the_first_failed_check(run, write):
    write("mine.py", _MODULE.replace("return self.inner", "input_ids.no_such_thing\n        return self.inner"))
    code, out, err = run("check", "mine.py")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: check Net: forward: ") and "no attribute 'no_such_thing' (mine.py:12)" in err
    assert "fail  forward" in out and "skip  quantised bytes         as forward" in out


def test_a2_14_real_memory_fails_the_build(write):
    real = "self.size = torch.ones(10, dtype=torch.float32, device='cpu').numel()"
    write("mine.py", _MODULE.replace("        self.inner =", f"        {real}\n        self.inner ="))
    result = run_check(Check("build", structure.build_on_meta), Subject(custom="mine.py"))
    assert (result.status, result.detail) == ("fail", "Net allocates 40 B outside of the meta device")


def test_a2_14_a_configuration_that_is_read_otherwise_than_written_fails(write):
    write("grows.py", _GROWS)
    result = run_check(Check("config", structure.config_round_trip), Subject(custom="grows.py"))
    assert result.status == "fail"
    assert result.detail == "Grows: intermediate_size is 96 and comes back as 192"


_GROWS = """
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

class Grows(LlamaConfig):
    model_type = "grows"

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.intermediate_size *= 2

class GrowsForCausalLM(LlamaForCausalLM):
    config_class = Grows

AutoConfig.register("grows", Grows)
AutoModelForCausalLM.register(Grows, GrowsForCausalLM)
__model__ = Grows(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_hidden_layers=3, vocab_size=100)
"""


def test_a2_14_a_step_that_loses_a_parameter_fails(write, monkeypatch):
    from tensorcast.layers import rotary

    original = rotary.install_rotary

    def loses(model):
        model.module.lm_head = torch.nn.Linear(64, 100, bias=False)
        return original(model)

    monkeypatch.setattr(rotary, "install_rotary", loses)
    with pytest.raises(Failed, match=r"1 tensors are gone or changed, 1 are new; first: lm_head.weight"):
        structure.parameters_unchanged(Subject(tiny(write, "llama")))


def test_a2_14_reuse_that_joins_different_layers_fails(write, monkeypatch):
    from tensorcast.layers import reuse

    monkeypatch.setattr(reuse, "signature", lambda block, index: "all alike")
    with pytest.raises(Failed, match=r"reuse changes "):
        structure.reuse_changes_nothing(Subject(tiny(write, "qwen3_moe")))


@pytest.fixture
def pipeline(write) -> Iterator:
    """Register code that runs behind the nine steps of the tiny Llama."""

    def register(text: str) -> str:
        body = "\n".join(f"    {line}" for line in text.splitlines())
        write("own.py", f"{_PIPELINE}{body}\n    return model\n")
        return "own.py"

    yield register


_PIPELINE = """
import torch
import tensorcast as tc
from torch import nn
from tensorcast.layers.state import Group, Shard, state_of
from tensorcast.transformations import run_standard

@tc.register_custom_model("llama")
def _(model):
    run_standard(model)
"""


def test_a2_14_talk_on_one_device_fails(write, pipeline):
    own = pipeline('state_of(model.module.lm_head).shard = Shard("row", Group(2))')
    with pytest.raises(Failed, match="prefill: one device communicates: all_reduce"):
        structure.one_rank_is_no_plan(Subject(tiny(write, "llama"), custom=own))


@pytest.mark.parametrize(
    ("size", "message"),
    [(16, r"\[64\] is cut to \[16\] over 2 ranks: 32 elements are on no rank"),
     (40, r"\[64\] is cut to \[40\] over 2 ranks: 16 elements too many, neither copies of KV heads nor padding")],
)  # fmt: skip
def test_a2_14_a_share_that_is_lost_or_doubled_fails(write, pipeline, size, message):
    own = pipeline(
        f"if model.plan.tp > 1:\n    model.module.model.norm.weight = nn.Parameter(torch.empty({size}, device='meta'))"
    )
    with pytest.raises(Failed, match=f"model.norm.weight: {message}"):
        ranks.ranks_add_up(Subject(tiny(write, "llama"), custom=own))


def test_a2_14_quantised_weights_stored_wide_fail(write, monkeypatch):
    from tensorcast.trace import facts

    monkeypatch.setattr(facts, "_bytes", lambda module, name, parameter: parameter.numel() * parameter.element_size())
    with pytest.raises(Failed, match=r"w8a8: .* bytes stored, not .* of quantised weights"):
        prices.quantised_bytes(Subject(tiny(write, "llama", dtype="bfloat16")))


def test_a2_14_quantised_bytes_of_a_product_by_hand(write):
    subject = Subject(tiny(write, "llama", dtype="bfloat16", num_hidden_layers=1, tie_word_embeddings=True))
    rows = 64 + 32 + 32 + 64 + 96 + 96 + 64  # outputs of q k v o gate up down
    products = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 96
    rest = 2 * (320 * 64 + 3 * 64)  # the tied embedding and three norms
    told = prices.quantised_bytes(subject)
    assert told.startswith("w8a8: 7 modules, ")
    assert prices._expected(subject.deployed(quant="w8a8")) == (products, 4 * rows, rest)


def test_a2_14_an_operator_without_a_cost_fails(write):
    write(
        "mine.py", _MODULE.replace("return self.inner(", "return torch.erfinv(").replace("(input_ids))", "(input_ids))")
    )
    with pytest.raises(Failed, match=r"aten::erfinv x1; describe them with @tensorcast.register_op_cost"):
        structure.nothing_uncosted(Subject(custom="mine.py"))


def _phase(**changes) -> Phase:
    op = {"op": "linear", "module": "m", "time_s": 1.0, "matrix_flops": 0.0, "vector_flops": 0.0}
    op |= {"read_bytes": 0.0, "write_bytes": 0.0, "comm_bytes": 0.0} | changes.pop("op", {})
    figures = dict(step_time_s=1.0, host_time_s=0, device_time_s=1, launches=1, totals={}, mfu=0.5, mbu=0.5)
    return Phase(**figures | {"time_by_bound_s": {}, "ops": [op]} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_time_s": 0.0}, "h100-sxm, decode: a step takes 0.0 s"),
        ({"step_time_s": float("nan")}, "a step takes nan s"),
        ({"step_time_s": 0.5}, "operators take 1.00 s, the step 500 ms"),
        ({"mfu": 1.1}, "mfu is 1.1"),
        ({"op": {"time_s": float("inf")}}, "linear m: takes inf s"),
        ({"op": {"matrix_flops": 1e16}}, "linear m: 1.00 s is less than its matrix engine allow"),
        ({"op": {"read_bytes": 3.36e12}}, "less than its memory allow"),
        ({"op": {"comm_bytes": 1e12}}, "less than its links allow"),
    ],
)
def test_a2_14_a_figure_beyond_the_machine_fails(changes, message):
    hw = hardware("h100-sxm")
    assert check_phases({"decode": _phase()}, hw) == 1.0
    with pytest.raises(Failed, match=message):
        check_phases({"decode": _phase(**changes)}, hw)


def test_a_machine_that_refuses_the_model_is_named(write, monkeypatch):
    subject = Subject(tiny(write, "llama", num_hidden_layers=1), dtype="bf16")
    monkeypatch.setattr(Subject, "machines", lambda self: [hardware("h100"), hardware("ascend-310p")])
    told = prices.machines_agree(subject)
    assert told.startswith("1 machines, ") and told.endswith("ascend-310p does not compute bf16; it has fp16, int8")


# -- what can be named -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "nothing to check; name a model"),
        (("qwen4-8b",), "check qwen4-8b: model found: unknown model 'qwen4-8b'; nearest: qwen3-8b"),
        (("nothing.py",), "check nothing.py: file loads: nothing.py: no such file or folder"),
        (("nothing.yaml",), "check nothing.yaml: file loads: nothing.yaml: no such hardware file"),
        (("qwen3-8b", "--model", "qwen3-4b"), "the model is given twice: qwen3-8b and --model qwen3-4b"),
        (("qwen3-8b", "--weights"), "--weights qwen3-8b: needs a folder with the checkpoint"),
        (("h100", "--weights", "--model", "."), "h100 is a machine: --weights, --kernel and --custom go with a model"),
        (("qwen3-0.6b", "--kernel", "atention=flash"), "unknown op 'atention'; nearest: attention"),
        (("qwen3-0.6b", "--no-plugin", "nosuch"), "--no-plugin nosuch: no such plugin"),
    ],
)
def test_a_wrong_request_is_one_line(run, args, said):
    code, _, err = run("check", *args)
    assert (code, err.count("\n")) == (2, 1) and said in err


def test_a_broken_file_is_one_line_with_its_place(run, write):
    write("bad.py", "x = 1\ndef f(:\n")
    assert run("check", "bad.py")[::2] == (2, "error: check bad.py: file loads: bad.py:2: invalid syntax\n")
    write("empty.py", "x = 1\n")
    assert "defines no __model__ and registers nothing" in run("check", "--custom", "empty.py")[2]


def test_a_pipeline_is_checked_with_the_smallest_model_it_applies_to(run, pipeline):
    code, out, err = run("check", pipeline("pass"), "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["matched"]["adds"] == ["pipeline llama"]
    assert told["matched"]["checked with"] == "llama-3.2-1b, the smallest known model of pipeline 'llama'"
    assert told["matched"]["pipeline"] == "llama (own.py:8)"


def test_a_kernel_whose_factory_fails_is_found_without_being_chosen(run, write):
    write("fast.py", _KERNEL)
    code, out, err = run("check", "fast.py")
    assert code == 2 and "kernels load: kernel rms_norm/standard=mine: ImportError: no such library" in err
    assert "give --model NAME to check one with it" in " ".join(out.split())


_KERNEL = """
import tensorcast as tc

def factory():
    raise ImportError("no such library")

tc.KERNELS.register(tc.KernelSpec("mine", "rms_norm", factory))
"""


def test_a_machine_is_checked_by_name_and_by_file(run, write):
    code, out, err = run("check", "h100")
    assert (code, err) == (0, "") and out.startswith("hardware h100\n  name: h100-sxm\n")
    assert [line[:4] for line in out.splitlines() if line.startswith(("pass", "fail", "skip"))] == ["pass"] * 4
    text = names()["h100-sxm"].read_text()
    write("mine.yaml", text.replace("name: h100-sxm", "name: mine").replace("bandwidth: 3.35e", "bandwith: 3.35e"))
    code, _, err = run("check", "mine.yaml")
    assert code == 2 and "file loads: mine.yaml: unknown field memory.bandwith; nearest: bandwidth" in err


def test_a4_11_weights_are_compared_by_their_headers(run, write):
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tiny(write, "llama")
    described = dict(TINY["llama"])
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(described.pop("model_type"), **described))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, f"{folder}/model.safetensors")
    code, out, err = run("check", "--model", folder, "--weights")
    parameters = sum(p.numel() for p in model.parameters())
    assert (code, err) == (0, "")
    told = " ".join(out.split())
    assert f"pass weights {len(tensors)} tensors" in told and "0 missing, 0 unexpected" in told
    assert str(parameters) in told.replace(",", "")
    tensors["model.norm.weight"] = torch.ones(65)
    save_file(tensors, f"{folder}/model.safetensors")
    code, _, err = run("check", folder, "--weights")
    assert code == 2 and "weights: " in err and "model.norm.weight" in err and "65" in err and "64" in err


# -- the contract ------------------------------------------------------------------------------------------------------


class TestContract(testing.ModelContract):
    """A2.14: the same checks, one pytest test each."""

    spec = "qwen3-0.6b"
    options = {"layers": 3}  # noqa: RUF012


def test_a2_14_the_contract_has_every_check_and_fails_with_its_reason(monkeypatch):
    marks = testing.ModelContract.test_contract.pytestmark
    assert [check.name for check in marks[0].args[1]] == NAMES
    broken = Check("broken", lambda subject: (_ for _ in ()).throw(Failed("what is wrong")))
    with pytest.raises(pytest.fail.Exception, match="broken: what is wrong"):
        TestContract().test_contract(broken)
    with pytest.raises(pytest.fail.Exception, match="states no spec"):
        testing._subject(testing.ModelContract)
