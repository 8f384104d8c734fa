"""`tensorcast simulate`: flags, outputs, exit codes."""

from __future__ import annotations

import json

import click
import pytest

from tensorcast.cli.simulate import SECTIONS, command
from tensorcast.errors import DeploymentError
from tests.report.sample import sample

ASK = ("simulate", "--model", "m", "--hw", "h")
LONG_NAMES = {
    "--tp": "--tensor-parallel-size", "--ep": "--expert-parallel-size", "--dp": "--data-parallel-size",
    "--pp": "--pipeline-parallel-size", "--sp": "--ulysses-size", "--batch": "--batch-size", "--input-len": "--isl",
    "--output-len": "--osl",
}  # fmt: skip


def test_only_what_was_given_is_passed_on(run, simulated) -> None:
    assert run(*ASK)[0] == 0
    assert simulated["request"] == {
        "model": "m", "hw": "h", "reuse": True, "cache": True, "custom_dir": True, "progress": None,
    }  # fmt: skip


def test_every_flag_arrives_under_its_name(run, simulated) -> None:
    flags = (
        "--tp 2 --ep 3 --dp 4 --pp 5 --sp 6 --micro-batches 7 --quant w8a8 --kv-cache-dtype fp8 --attention-quant int8 "
        "--exclude a --exclude re:b.* --quant-lm-head --phase chunked --batch 8 --input-len 9 --output-len 10 "
        "--max-model-len 11 --gpu-memory-utilization 0.9 --seq-lens 128,4096,77 --prefix-len 12 --chunk 13 --mtp 1 "
        "--acceptance-rate 0.7 --runtime eager --dtype float16 --layers 14 --set a.b=3 --set c=[1,2] --set d=x=y "
        "--kernel attention=flash --kernel moe@*=mine --no-reuse --strict --trust-remote-code --no-cache "
        "--no-custom-dir"
    )
    assert run(*ASK, *flags.split())[0] == 0
    assert simulated["request"] == {
        "model": "m", "hw": "h", "tp": 2, "ep": 3, "dp": 4, "pp": 5, "sp": 6, "micro_batches": 7, "quant": "w8a8",
        "kv_cache_dtype": "fp8", "attention_quant": "int8", "exclude": ["a", "re:b.*"], "quant_lm_head": True,
        "phase": "chunked", "batch": 8, "input_len": 9, "output_len": 10, "max_model_len": 11,
        "gpu_memory_utilization": 0.9, "seq_lens": (128, 4096, 77), "prefix_len": 12, "chunk": 13, "mtp": 1,
        "acceptance_rate": 0.7, "runtime": "eager", "dtype": "float16", "layers": 14,
        "overrides": {"a.b": 3, "c": [1, 2], "d": "x=y"}, "kernel": ["attention=flash", "moe@*=mine"],
        "strict": True, "trust_remote_code": True, "reuse": False, "cache": False, "custom_dir": False,
        "progress": None,
    }  # fmt: skip


def test_zero_is_passed_on_where_it_means_something(run, simulated) -> None:
    assert run(*ASK, "--acceptance-rate", "0", "--mtp", "0", "--prefix-len", "0")[0] == 0
    assert {name: simulated["request"][name] for name in ("acceptance_rate", "mtp", "prefix_len")} == {
        "acceptance_rate": 0.0, "mtp": 0, "prefix_len": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("short", "long"), LONG_NAMES.items())
def test_both_spellings(run, simulated, short: str, long: str) -> None:
    run(*ASK, short, "3")
    asked = simulated["request"]
    run(*ASK, long, "3")
    assert simulated["request"] == asked


@pytest.mark.parametrize("flag", ["--tp", "--batch", "--input-len", "--layers", "--chunk", "--seq-lens"])
@pytest.mark.parametrize("value", ["0", "-3", "1.5", "abc", "1_000", "", "٣", "1e3"])
def test_a_size_is_a_positive_whole_number(run, simulated, flag: str, value: str) -> None:
    code, out, err = run(*ASK, flag, value)
    assert (code, out) == (2, "")
    assert err == f"error: {flag}: {value!r} is not a whole number of at least 1\n"


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--mtp", "-1"), "--mtp: '-1' is not a whole number of at least 0"),
        (("--acceptance-rate", "1.1"), "--acceptance-rate: '1.1' is not a number from 0 to 1"),
        (("--acceptance-rate", "nan"), "--acceptance-rate: 'nan' is not a number from 0 to 1"),
        (("--gpu-memory-utilization", "0"), "--gpu-memory-utilization: '0' is not a number above 0 and at most 1"),
        (("--phase", "idle"), "--phase: 'idle' is not one of 'auto', 'prefill', 'decode', 'chunked'"),
        (("--bacth", "3"), "no option --bacth; Did you mean --batch"),
        (("--batch", "2", "--batch-size", "3"), "--batch: given twice, 2 and 3; give it once"),
        (("--set", "a"), "--set: 'a' is not KEY=VALUE, e.g. --set num_hidden_layers=4"),
        (("--set", "a=1", "--set", "a=2"), "--set a: given twice, 1 and 2; give it once"),
        (("--set", "a=[1"), "--set: 'a=[1': the value is not readable"),
        (("extra",), "unexpected extra argument"),
        (("--model", " "), "--model: is empty; give a value"),
    ],
)
def test_a_wrong_request_is_one_line(run, simulated, args, line: str) -> None:
    request = ("simulate", "--hw", "h") if args[0] == "--model" else ASK
    code, out, err = run(*request, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line.lower() in err.lower() and err.startswith("error: ")
    assert "request" not in simulated


def test_a_refused_plan_is_one_line(run, simulated, monkeypatch) -> None:
    import sys

    def refuse(**_: object) -> None:
        raise DeploymentError("--tp 3 does not divide\n128 heads; use 1, 2, 4, 8")

    monkeypatch.setattr(sys.modules["tensorcast.estimate"], "simulate", refuse)
    assert run(*ASK) == (2, "", "error: --tp 3 does not divide 128 heads; use 1, 2, 4, 8\n")


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(run, simulated, monkeypatch) -> None:
    import sys

    monkeypatch.setattr(sys.modules["tensorcast.estimate"], "simulate", lambda **_: 1 / 0)
    code, out, err = run(*ASK)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run with --debug" in err
    assert "Traceback" in run(*ASK, "--debug")[2]


def test_interrupted(run, simulated, monkeypatch) -> None:
    import sys

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["tensorcast.estimate"], "simulate", interrupt)
    assert run(*ASK) == (130, "", "interrupted\n")


def test_json_on_stdout_is_alone(run, simulated) -> None:
    code, out, err = run(*ASK, "--json", "-")
    assert (code, err) == (0, "") and json.loads(out) == sample()


def test_files_and_report(run, simulated, tmp_path) -> None:
    code, out, _ = run(*ASK, "--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"))
    assert code == 0 and out.startswith("deepseek-v3 on 8 x ascend-910b2")
    assert json.loads((tmp_path / "r.json").read_text()) == sample()
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.json"]


def test_quiet(run, simulated) -> None:
    assert run(*ASK, "--quiet") == (0, "", "")


def test_require_fit(run, simulated) -> None:
    assert run(*ASK, "-q", "--require-fit")[0] == 0
    simulated["estimate"] = sample(fits=False)
    assert run(*ASK, "-q")[0] == 0
    assert run(*ASK, "-q", "--require-fit") == (3, "", "does not fit: needs 144 GiB per device, has 64.0 GiB\n")


def test_every_option_is_in_one_section_of_the_help(run) -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(param.name for param in command.params)
    code, out, _ = run("simulate", "--help")
    assert code == 0 and "Precision:" in out and all(f"--{name}" in out for name in ("isl", "ulysses-size", "help"))


def test_click_runner_works_too(simulated) -> None:
    from click.testing import CliRunner

    from tensorcast.cli.main import cli

    assert CliRunner().invoke(cli, [*ASK, "-q"]).exit_code == 0
    assert CliRunner().invoke(cli, [*ASK, "--tp", "0"]).exit_code == 2
    with pytest.raises(click.BadParameter):
        cli.main([*ASK, "--tp", "0"], standalone_mode=False)
