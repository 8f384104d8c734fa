"""`tensorcast new`: starting files that pass `tensorcast check` as they are (test A2.16)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tensorcast as tc
from tensorcast.errors import InputError
from tensorcast.hardware.describe import figures
from tensorcast.hardware.load import hardware, load_file, names
from tensorcast.starting import write_all
from tensorcast.starting.machine import machine_files

pytestmark = pytest.mark.usefixtures("own_folder")
ROOT = Path(__file__).resolve().parents[2]
FILES = ("custom_model/my_moe.py", "custom_model/test_my_moe.py")


# -- a model -----------------------------------------------------------------------------------------------------------


def test_a2_16_the_file_and_its_test_pass_at_once(run):
    code, out, err = run("new", "my_moe", "--like", "qwen3_moe")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        *(f"wrote {file}" for file in FILES), "made like qwen3_moe", f"next: tensorcast check {FILES[0]}",
    ]  # fmt: skip
    code, out, err = run("check", FILES[0])
    assert (code, err) == (0, "") and "fail" not in out
    told = " ".join(out.split())
    assert "MyMoeForCausalLM" in told and "profile: my_moe (custom_model/my_moe.py:" in told
    assert "30,532,122,624 parameters, 0 bytes allocated" in told  # qwen3-30b-a3b, the smallest of the type
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", FILES[1]]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0 and "12 passed, 1 skipped" in done.stdout, done.stdout + done.stderr


def test_a2_16_the_new_model_costs_what_the_other_does(run):
    assert run("new", "model", "my-dense", "--like", "qwen3-0.6b")[0] == 0
    work = dict(hw="h100", input_len=300, output_len=4)
    other, own = tc.simulate("qwen3-0.6b", **work), tc.simulate(custom="custom_model/my_dense.py", **work)
    assert own.metrics == other.metrics and own.memory == other.memory
    folder = Path("mine")
    folder.mkdir()
    config = {**json.loads(_config("custom_model/my_dense.py")), "model_type": "my_dense", "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    found = tc.build_model("./mine")  # by its model type, through ./custom_model
    assert type(found.module).__name__ == "MyDenseForCausalLM"
    assert found.profile.model_type == "my_dense"


def _config(file: str) -> str:
    """The arguments of `__model__`, as JSON."""
    calls = [node.value for node in ast.parse(Path(file).read_text()).body if isinstance(node, ast.Assign)]
    return json.dumps({word.arg: ast.literal_eval(word.value) for word in calls[-1].keywords})


@pytest.mark.parametrize("like", ["Qwen3-MoE", "qwen3_moe", "qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B"])
def test_a2_16_every_spelling_is_accepted(run, like):
    assert run("new", "m_one", "--like", like)[0] == 0
    assert "num_local_experts=128," in Path("custom_model/m_one.py").read_text()


@pytest.mark.parametrize(
    ("like", "parameters", "said"),
    [
        ("llama4", 108_641_793_536, 'tc.PROFILES.get("llama4")'),
        ("qwen3-vl-2b", 2_127_532_032, "AutoModelForImageTextToText.register"),
        ("deepseek-v3", 671_026_404_352, '"quant_method": "fp8"'),
        ("opt", 125_239_296, "the defaults of OPTConfig"),
        ("nemotron-3-nano-30b-a3b", 31_577_937_344, "NemotronHForCausalLM"),
    ],
)
def test_a2_16_profiles_towers_and_formats_go_along(run, like, parameters, said):
    assert run("new", "mine_too", "--like", like)[0] == 0
    assert said in Path("custom_model/mine_too.py").read_text()
    assert tc.build_model(custom="custom_model/mine_too.py").parameters == parameters


def test_a2_16_a_pipeline_goes_along(run):
    @tc.register_custom_model("qwen3")
    def own(model):
        model.notes.append("own pipeline")
        from tensorcast.transformations import run_standard

        return run_standard(model)

    assert run("new", "piped", "--like", "qwen3-0.6b")[0] == 0
    assert "own pipeline" in tc.build_model(custom="custom_model/piped.py").notes


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("my_moe", "--like", "qwen4-moe"), "unknown model to start from 'qwen4-moe'; nearest: qwen3_moe"),
        (("llama", "--like", "qwen3"), "transformers has a model type 'llama' already"),
        (("test_x", "--like", "qwen3"), "'test_x' is no name for a model type"),
        (("3d", "--like", "qwen3"), "'3d' is no name for a model type"),
        (("class", "--like", "qwen3"), "'class' is no name for a model type"),
        (("../up", "--like", "qwen3"), "'../up' is no name for a model type"),
        (("model", "a", "b", "--like", "qwen3"), "write new model NAME or new hardware NAME"),
        (("--like", "qwen3"), "write new model NAME or new hardware NAME"),
        (("my_moe",), "--like is missing"),
    ],
)
def test_a2_16_a_wrong_request_writes_nothing(run, args, said):
    code, out, err = run("new", *args)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert not Path("custom_model").exists()


def test_a2_16_files_that_exist_are_kept_unless_forced(run, write):
    write(FILES[1], "mine\n")
    code, _, err = run("new", "my_moe", "--like", "qwen3_moe")
    assert code == 2 and f"{FILES[1]}: exists; --force replaces it" in err
    assert not Path(FILES[0]).exists() and Path(FILES[1]).read_text() == "mine\n"
    assert run("new", "my_moe", "--like", "qwen3_moe", "--force")[0] == 0
    assert "ModelContract" in Path(FILES[1]).read_text()


def test_a2_16_both_files_or_none(write, monkeypatch):
    from tensorcast.cli import output

    old, second = write("a.py", "old\n"), Path("b.py")
    real = output.write_atomic

    def full(path: str, text: str) -> None:
        if path == "b.py":
            raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(output, "write_atomic", full)
    with pytest.raises(InputError, match=r"b.py: cannot be written: No space left on device"):
        write_all({old: "new\n", second: "new\n"}, force=True)
    assert old.read_text() == "old\n" and not second.exists()


# -- a machine ---------------------------------------------------------------------------------------------------------


def test_a_new_machine_loads_says_what_is_inherited_and_passes(run):
    code, out, err = run("new", "hardware", "My_Chip", "--like", "ascend-910b")
    assert (code, err) == (0, "")
    assert out.startswith("wrote hardware_profiles/my-chip.yaml\n23 figures are ascend-910b2's until you change them: ")
    own, other = hardware("my-chip"), hardware("ascend-910b")
    told = figures(own)
    assert {figure["status"] for figure in told.values()} == {"assumed"}
    assert {field: figure["value"] for field, figure in told.items()} == {
        field: figure["value"] for field, figure in figures(other).items()
    }
    assert all(field in out for field in told)
    assert run("check", "hardware_profiles/my-chip.yaml")[::2] == (0, "")
    work = dict(input_len=300, output_len=4)
    assert tc.simulate("qwen3-0.6b", own, **work).metrics == tc.simulate("qwen3-0.6b", other, **work).metrics


@pytest.mark.parametrize("like", sorted(names()))
def test_every_machine_can_be_started_from(like, tmp_path):
    (path, text), *_ = machine_files("fresh", like)[0].items()
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    own, other = load_file(path), hardware(like)
    same = (
        "kind",
        "peaks",
        "vector",
        "memory_bytes",
        "memory_bw",
        "topology",
        "compute_capability",
        "features",
        "kernels",
    )
    for field in same:
        one, two = getattr(own, field), getattr(other, field)
        if field == "topology":
            one, two = ([(t.name, t.kind, t.devices, t.bandwidth, t.latency_s) for t in x.tiers] for x in (one, two))
        assert one == two, field


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("my-chip", "--like", "a1000"), "unknown hardware 'a1000'; nearest: a100"),
        (("h100", "--like", "a100"), "h100 is the known machine h100-sxm already"),
        (("h100-sxm", "--like", "a100", "--force"), "h100-sxm is the known machine h100-sxm already"),
        (("a/b", "--like", "a100"), "'a/b' is no name for a machine"),
    ],
)
def test_a_wrong_machine_writes_nothing(run, args, said):
    code, out, err = run("new", "hardware", *args)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert not Path("hardware_profiles").exists()


def test_a_machine_that_exists_is_kept_unless_forced(run):
    assert run("new", "hardware", "my-chip", "--like", "h100")[0] == 0
    code, _, err = run("new", "hardware", "my-chip", "--like", "a100")
    assert code == 2 and "hardware_profiles/my-chip.yaml: exists" in err
    assert run("new", "hardware", "my-chip", "--like", "a100", "--force")[0] == 0
    assert hardware("my-chip").memory_bw == hardware("a100").memory_bw
