"""A wrong request is one line on stderr and exit code 2: no traceback, no half-written file, no look at stdin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tensorcast.cli.main import cli
from tensorcast.hardware.load import names

DENSE = ("--model", "qwen3-8b", "--hw", "h100")
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 16, "intermediate_size": 512, "vocab_size": 1000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
    "torch_dtype": "bfloat16", "tie_word_embeddings": True, "attention_bias": False, "attention_dropout": 0.0,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2,
}  # fmt: skip
EXPERTS = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 8}


class _Untouchable:
    """A stdin nobody may read."""

    def __getattr__(self, name: str):
        raise AssertionError(f"stdin.{name} was used")


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch) -> Callable[..., str]:
    """Run `simulate ARGS`, check that it was refused as it must be, and give the line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "stdin", _Untouchable())

    def refused(*args: str) -> str:
        before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
        code = cli.run(["simulate", *args], "tensorcast")
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
        assert "Traceback" not in err and "internal error" not in err
        assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before
        return err.removeprefix("error: ").rstrip("\n")

    return refused


# -- names and values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--model qwen9-8b --hw h100", "unknown model 'qwen9-8b'; nearest: qwen3-8b"),
        ("--model qwen3-8b --hw h900", "unknown hardware 'h900'; nearest: h800"),
        ("--model org/unknown-model --hw h100", "HF_HUB_OFFLINE is set"),
        ("--model ./nothing --hw h100", "no such file or folder"),
        ("--model qwen3-8b --hw nothing.yaml", "nothing.yaml: no such hardware file"),
        ("--model qwen3-8b", "--hw is missing"),
        ("--hw h100", "--model is missing"),
    ],
)
def test_unknown_names(refused, args: str, said: str) -> None:
    assert said in refused(*args.split())


@pytest.mark.parametrize("flag", ["--tp", "--ep", "--dp", "--pp", "--batch", "--input-len", "--output-len", "--chunk"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "1e30", "many", "99999999999999999999"])
def test_sizes_that_are_none(refused, flag: str, value: str) -> None:
    assert refused(*DENSE, flag, value).startswith(flag)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--tp 3", "values that divide: 1, 2, 4, 8, 16, 32"),
        ("--tp 64", "values that divide: 1, 2, 4, 8, 16, 32"),
        ("--ep 2", "--ep 2 must divide tp x dp = 1; values that do: 1"),
        ("--tp 2 --ep 2", "has no experts; use --ep 1"),
        ("--tp 131072", "131072 devices asked for, the machine connects at most 65536"),
        ("--pp 37", "--pp 37: qwen3-8b has 36 layers; give at most 36"),
        ("--dp 4", "--dp 4 needs at least as many sequences: --batch 1"),
        ("--sp 2", "use --tp for a language model"),
        ("--micro-batches 3 --pp 2 --batch 2", "a group has 2 sequences; give at most 2"),
        ("--mtp 1", "qwen3-8b has no multi-token-prediction layers"),
        ("--mtp 1000000", "a whole number, 0 to 64"),
        ("--acceptance-rate 0.5", "--acceptance-rate needs --mtp"),
        ("--prefix-len 4096", "--prefix-len 4096 must be less than --input-len 4096"),
        ("--seq-lens 100,200 --batch 3", "--seq-lens names 2 sequences, --batch 3"),
        ("--seq-lens 100,200 --input-len 300", "leave --input-len out"),
        ("--seq-lens 100,,200", "--seq-lens: '' is not a whole number"),
        ("--seq-lens 100,200 --chunk 64", "--seq-lens goes with neither --prefix-len nor --chunk"),
        ("--phase chunked", "--phase chunked needs --chunk"),
        ("--phase decode --chunk 64", "--chunk cuts the prefill, which --phase decode leaves out"),
        ("--phase sideways", "--phase: 'sideways' is not one of"),
        ("--input-len 40960", "max_position_embeddings 40960; --set max_position_embeddings=N changes it"),
        ("--max-model-len 99999", "--max-model-len 99999 is more than qwen3-8b takes"),
        ("--max-model-len 100", "input + output are 5120 tokens; give at least 5120"),
        ("--layers 99", "qwen3-8b has 36 layers; give 1 to 36"),
        ("--kernel attention=nothing", "attention has no kernel 'nothing'; usable on h100-sxm: eager, block_sparse_50"),
        ("--kernel nothing=flash", "unknown op 'nothing'"),
        ("--kernel attention", "expected OP[/VARIANT][@GLOB]=NAME"),
        ("--kernel mla=absorbed", "qwen3-8b has no mla slot; slots: "),
        ("--kernel attention@nothing*=flash", "no attention slot at 'nothing*'"),
        ("--quant w9", "--quant: 'w9' is not one of 'auto', 'none', 'w8a8'"),
        ("--kv-cache-dtype nothing", "unknown number format 'nothing'; one of"),
        ("--attention-quant nothing", "unknown number format 'nothing'; one of"),
        ("--quant fp8 --exclude nothing", "--exclude 'nothing' matches no module"),
        ("--exclude lm_head", "nothing is quantised; choose a scheme with --quant"),
        ("--dtype int8", "--dtype int8: one of bf16, fp16, fp32"),
        ("--dtype nothing", "unknown number format 'nothing'"),
        ("--set nothing=1", "unknown configuration key 'nothing' of qwen3-8b"),
        ("--set num_hidden_layers=0", "num_hidden_layers is 0; it must be a positive whole number"),
        ("--set num_key_value_heads=7", "possible are 1, 2, 4, 8, 16, 32"),
        ("--runtime fast", "--runtime: 'fast' is not one of 'graph', 'eager'"),
        ("--gpu-memory-utilization 1.5", "is not a number above 0 and at most 1"),
        ("--strict", "--strict: assumed figures: "),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_met(refused, args: str, said: str) -> None:
    assert said in refused(*DENSE, *args.split())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--model qwen3-8b --hw ascend-910b --quant fp8", "does not compute fp8; nearest: w8a8"),
        ("--model qwen3-8b --hw ascend-310p --dtype bf16", "ascend-310p does not compute bf16; it has fp16, int8"),
        (
            "--model flux.1-dev --hw ascend-310p",
            "wo: ascend-310p does not compute fp32; it has fp16, int8; choose a machine",
        ),
        ("--model qwen3-8b --hw ascend-310p --tp 16", "16 devices asked for, the machine connects at most 8"),
        ("--model deepseek-v3 --hw h100 --tp 8 --ep 3", "--ep 3 must divide tp x dp = 8; values that do: 1, 2, 4, 8"),
        ("--model mixtral-8x7b --hw h100 --tp 16 --ep 16", "has 8 experts; values that divide: 1, 2, 4, 8"),
    ],
)
def test_machines_and_models_that_do_not_go_together(refused, args: str, said: str) -> None:
    assert said in refused(*args.split())


# -- config.json -------------------------------------------------------------------------------------------------------

BROKEN = {
    "empty": (b"", "the file is empty"),
    "cut short": (json.dumps(CONFIG).encode()[:200], "the file ends in the middle"),
    "an empty object": (b"{}", "the configuration is empty"),
    "a list": (b"[1]", "holds a JSON list, not an object"),
    "null": (b"null", "holds a JSON null"),
    "bytes": (bytes(range(128, 256)), "not a text file"),
    "a long number": (b'{"hidden_size": ' + b"9" * 5000 + b"}", "a number of thousands of digits"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "web page": (b"<html></html>", "an HTML page, not JSON"),
}
CONTRADICTIONS = {
    "typeless": ({"model_type": None, "architectures": None}, "neither model_type nor architectures is given"),
    "unknown type": ({"model_type": "nothing"}, "transformers does not know model_type 'nothing'"),
    "two types": ({"architectures": ["LlamaForCausalLM"]}, "but model_type is 'qwen3'; make the two agree"),
    "KV heads": ({"num_key_value_heads": 7}, "16 is not a multiple of num_key_value_heads 7; possible are 1, 2, 4, 8"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be a positive whole number"),
    "many layers": ({"num_hidden_layers": 10**12}, "at most 10000"),
    "a string": ({"hidden_size": "256"}, "write 256 without quotes"),
    "a fraction": ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5 (number)"),
    "a truth": ({"num_hidden_layers": True}, "num_hidden_layers is True (boolean)"),
    "missing": ({"hidden_size": None}, "hidden_size is missing"),
    "no vocabulary": ({"vocab_size": 0}, "vocab_size is 0"),
    "uneven": ({"hidden_size": 250, "head_dim": None}, "hidden_size 250 is not a multiple of num_attention_heads 16"),
    "huge": ({"vocab_size": 10**17}, "at most 2147483647"),
    "negative window": ({"sliding_window": -3, "use_sliding_window": True}, "sliding_window is -3"),
    "layer types": ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries but num_hidden_layers is 2"),
    "dtype": ({"torch_dtype": "nothing"}, "unknown number format 'nothing'"),
    "text part": ({"text_config": [1]}, "text_config is [1]; it must be an object"),
    "quantisation": ({"quantization_config": {"quant_method": "nothing"}}, "unknown quant_method 'nothing'"),
    "too few experts": (EXPERTS | {"num_experts_per_tok": 9}, "a token can use at most 8 experts"),
    "no expert": (EXPERTS | {"num_experts_per_tok": 0}, "num_experts_per_tok is 0 of 8 num_local_experts"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_configuration(refused, tmp_path, name: str) -> None:
    content, said = BROKEN[name]
    (tmp_path / "config.json").write_bytes(content)
    assert said in refused("--model", str(tmp_path), "--hw", "h100")


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_configurations_that_contradict_themselves(refused, tmp_path, name: str) -> None:
    changes, said = CONTRADICTIONS[name]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    assert said in refused("--model", str(tmp_path), "--hw", "h100", "--input-len", "64", "--output-len", "8")


def test_the_configuration_they_were_made_from_is_a_good_one(tmp_path) -> None:
    import tensorcast as tc

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert tc.simulate(str(tmp_path), "h100", input_len=64, output_len=8).memory["fits"]


def test_folders_that_hold_no_configuration(refused, tmp_path) -> None:
    assert "the folder has no config.json" in refused("--model", str(tmp_path), "--hw", "h100")
    (tmp_path / "config.json").mkdir()
    assert "cannot be read (Is a directory)" in refused("--model", str(tmp_path), "--hw", "h100")


def test_a_repositorys_own_code_never_runs_unasked(refused, tmp_path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (tmp_path / "modeling_x.py").write_text(code)
    (tmp_path / "configuration_x.py").write_text(code)
    own = {"model_type": "own", "architectures": ["Own"], "auto_map": {"AutoConfig": "configuration_x.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | own))
    said = refused("--model", str(tmp_path), "--hw", "h100", "--input-len", "64", "--output-len", "8")
    assert "add --trust-remote-code to run them" in said


# -- hardware files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: h100-sxm", "", "missing field name"),
        ("name: h100-sxm", "name: mine\ncolour: red", "unknown field colour"),
        ("bandwidth: 3.35e+12", "bandwidth: -1", "memory.bandwidth must be a finite number > 0, not -1"),
        ("bandwidth: 3.35e+12", "bandwidth: fast", "memory.bandwidth must be a number, not 'fast'"),
        ("bandwidth: 3.35e+12", "bandwidth: .nan", "memory.bandwidth must be a finite number > 0"),
        ("kind: gpu", "kind: toaster", "kind must be one of npu, gpu, not 'toaster'"),
        ("kind: gpu", "kind: [", "is not YAML"),
    ],
)
def test_hardware_files_that_are_not_valid(refused, tmp_path, old: str, new: str, said: str) -> None:
    text = names()["h100-sxm"].read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1))
    line = refused("--model", "qwen3-8b", "--hw", str(tmp_path / "mine.yaml"))
    assert line.startswith("mine.yaml: ") and said in line


# -- outputs and the cache ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--json no/such/folder/r.json", "there is no folder"),
        ("--csv .", "is a folder; give a file in it"),
        ("--json r --csv ./r", "--json and --csv both write to"),
        ("--json - --csv -", "both write to -"),
    ],
)
def test_outputs_are_refused_before_the_work(refused, monkeypatch, args: str, said: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorcast.answer", None)  # importing it would be an error
    assert said in refused(*DENSE, *args.split())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_a_full_disk(refused, flag: str) -> None:
    assert refused(*DENSE, "--quiet", flag, "/dev/full") == f"{flag} /dev/full: cannot write: No space left on device"


def test_plain_slips_are_told_without_importing_torch() -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from tensorcast.cli.main import cli
for args in ("--tp 0", "--hw nothing", "--quant w9", "--phase sideways", "--chunk 0", "--ep 2", "--max-model-len 3"):
    model = [] if "--hw" in args else ["--hw", "h100"]
    assert cli.run(["simulate", "--model", "qwen3-8b", *model, *args.split()], "tensorcast") == 2
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_cache_that_cannot_be_kept_is_a_warning(tensorcast, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    small = ("simulate", "--model", "qwen3-0.6b", "--hw", "h100", "--layers", "1", "--json", "-")
    done = tensorcast(*small, TENSORCAST_CACHE=str(tmp_path / "file"))
    assert (done.code, done.err) == (0, "")
    assert any("could not be cached" in warning for warning in json.loads(done.out)["warnings"])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_closed_stdin_is_no_error(tensorcast, cache_folder) -> None:
    command = Path(__file__).resolve().parents[2] / "cli.py"
    asked = "simulate --model qwen3-0.6b --hw h100 --layers 1 -q"
    assert tensorcast(*asked.split()).code == 0  # traced here, and taken from the cache there
    line = f'"$0" "$1" {asked} <&-'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(command)],
        env={**os.environ, "TENSORCAST_CACHE": str(cache_folder)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
