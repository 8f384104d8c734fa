"""`tensorcast optimize` on the command line: answers, exit codes, JSON, CSV, start lines, bad requests."""

from __future__ import annotations

import csv
import io
import json

import pytest

import tensorcast as tc
from tests.emit.reading import read

WORK = ["--input-len", "1024", "--output-len", "128", "--batch", "1:64:x2", "--jobs", "1"]
ASKED = ["optimize", "--model", "llama-3.1-8b", "--hw", "h100-sxm", *WORK]
FIGURES = {
    "ttft_s", "tpot_s", "request_latency_s", "tokens_per_s", "tokens_per_s_per_device", "tokens_per_s_per_user",
    "weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "total_bytes", "capacity_bytes", "fits",
    "joules_per_token",
}  # fmt: skip
INSTANCE = {"hw", "tp", "pp", "dp", "ep", "quant", "batch", "instance_devices", "copies", "miss", "binding"}


def answer(run, *flags: str) -> dict:
    code, out, _ = run(*ASKED, *flags, "--json", "-")
    assert code in (0, 3)
    return json.loads(out)


def test_the_answer_is_that_of_python(run) -> None:
    said = answer(run, "--devices", "2", "--ttft", "300ms", "--tpot", "9ms", "--memory-headroom", "10%")
    options = {"input_len": 1024, "output_len": 128, "batch": [1, 2, 4, 8, 16, 32, 64], "jobs": 1}
    found = tc.optimize("llama-3.1-8b", "h100-sxm", devices=2, ttft_s=0.3, tpot_s=0.009, memory_headroom=0.1, **options)
    assert said == json.loads(json.dumps(found.to_dict()))
    assert said["limits"] == {"ttft_s": 0.3, "tpot_s": 0.009, "memory_headroom": 0.1}


def test_the_schema(run) -> None:
    said = answer(run, "--devices", "2", "--tpot", "9ms")
    keys = ("schema", "model", "devices", "mode", "objective", "limits", "best", "binding", "lead", "runners_up",
            "nearest", "what_would", "plans", "warnings")  # fmt: skip
    assert tuple(said) == keys
    assert (said["schema"], said["model"], said["devices"], said["mode"]) == (1, "llama-3.1-8b", 2, "aggregated")
    best = said["best"]
    assert FIGURES | INSTANCE <= best.keys()
    assert best["tpot_s"] <= 0.009 and best["miss"] == 0 and said["nearest"] is None and said["what_would"] == []
    assert best["copies"] * best["instance_devices"] == 2
    assert best["tokens_per_s_per_device"] == pytest.approx(best["tokens_per_s"] / best["instance_devices"])
    plans = said["plans"]
    assert plans["considered"] == 3 == plans["priced"] + plans["ruled_out"] + sum(plans["refused"].values())
    order = [best, *said["runners_up"]]
    assert order == sorted(order, key=lambda row: -row["tokens_per_s_per_device"])
    assert said["lead"] == pytest.approx(best["tokens_per_s_per_device"] / order[1]["tokens_per_s_per_device"] - 1)


def test_the_report_says_the_answer_first_and_keeps_to_80_columns(run) -> None:
    code, out, err = run(*ASKED, "--devices", "2", "--ttft", "300ms", "--tpot", "9ms", "--price", "2.5")
    assert code == 0 and err == ""
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Best of llama-3.1-8b on 2 x h100-sxm")
    best = answer(run, "--devices", "2", "--ttft", "300ms", "--tpot", "9ms", "--price", "2.5")["best"]
    assert lines[2].startswith(f"plan        --tp {best['tp']}") and f"{best['batch']} clients each" in lines[2]
    for text in ("limit 300 ms", "limit 9.00 ms", "tokens/s in all", "a million", "binds", "lead", "Next best",
                 "considered", "the checkpoint's own", "steady state"):  # fmt: skip
        assert text in out


@pytest.mark.parametrize(
    "flags",
    [
        ["--mode", "disaggregated", "--devices", "4"], ["--mode", "static", "--devices", "1"],
        ["--devices", "2", "--quant", "none,fp8", "--hw", "h100-sxm,h200-sxm", "--kv-cache-dtype", "fp8"],
        ["--devices", "2", "--tpot", "1us", "--ttft", "1us", "--mode", "disaggregated"],
        ["--devices", "1", "--top", "1"],
        ["--devices", "1", "--model", "llama-3.1-405b"],
    ],
)  # fmt: skip
def test_every_kind_of_report_keeps_to_80_columns(run, flags: list[str]) -> None:
    kept = [flag for flag in ASKED if flag not in ("--model", "llama-3.1-8b", "--hw", "h100-sxm")]
    given = [*kept, *([] if "--model" in flags else ["--model", "llama-3.1-8b"])]
    given += [] if "--hw" in flags else ["--hw", "h100-sxm"]
    code, out, _ = run(*given, *flags)
    assert code in (0, 3) and max(map(len, out.splitlines())) <= 80


def test_exit_3_with_the_nearest_and_what_would(run) -> None:
    code, out, err = run(*ASKED, "--devices", "2", "--tpot", "1ms")
    assert code == 3
    assert out.splitlines()[0].startswith("Nothing meets the limits; nearest")
    assert err.count("\n") == 1 and err.startswith("no plan meets the limits; the nearest would with --tpot ")
    would = err.split()[-1]
    assert "would do    --tpot " + would in out
    assert run(*ASKED, "--devices", "2", "--tpot", would, "--quiet") == (0, "", "")
    said = answer(run, "--devices", "2", "--tpot", "1ms")
    assert said["best"] is None and said["runners_up"] == [] and said["what_would"] == [f"--tpot {would}"]
    assert said["nearest"]["tp"] == 2 and said["nearest"]["batch"] == 1 and said["nearest"]["miss"] > 1


def test_exit_3_starts_nothing(run, plain_folder) -> None:
    code, out, err = run(*ASKED, "--devices", "2", "--tpot", "1ms", "--emit", "vllm", "--quiet", "--json", "a.json")
    assert code == 3 and out == "" and "no plan meets the limits" in err
    assert json.loads((plain_folder / "a.json").read_text())["best"] is None


def test_csv_has_a_line_for_each_plan_the_best_first(run) -> None:
    code, out, _ = run(*ASKED, "--devices", "2", "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0 and len(rows) == 3
    rates = [float(row["tokens_per_s_per_device"]) for row in rows]
    assert rates == sorted(rates, reverse=True)
    code, out, _ = run(*ASKED, "--devices", "2", "--csv", "-", "--mode", "disaggregated")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["ratio"], row["prefill_tp"], row["decode_tp"]) for row in rows] == [("1:1", "1", "1")]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_emit_starts_the_winner(run, engine: str) -> None:
    flags = ["--devices", "4", "--tpot", "6ms", "--memory-headroom", "20%", "--tp", "2", "--pp", "1"]
    code, out, _ = run(*ASKED, *flags, "--emit", engine, "-q")
    best = answer(run, *flags)["best"]
    assert code == 0 and f"# started {best['copies']} times: 4 devices in all" in out
    seen = read(engine, out)
    if engine == "vllm":
        assert seen["tensor_parallel_size"] == best["tp"] == 2
        assert seen["max_num_seqs"] == best["batch"] and seen["max_model_len"] == 1024 + 128
        assert seen["gpu_memory_utilization"] == 0.8
    else:
        assert seen["tp_size"] == best["tp"] and seen["max_running_requests"] == best["batch"]
        assert 0 < seen["mem_fraction_static"] < 0.8


def test_emit_for_prefill_and_decode_apart(run) -> None:
    flags = ["--devices", "4", "--mode", "disaggregated"]
    code, out, _ = run(*ASKED, *flags, "--emit", "sglang", "--quiet")
    best = answer(run, *flags)["best"]
    first, second = out.split("python -m sglang.launch_server")[1:]
    assert code == 0
    for line, role in ((first, "prefill"), (second, "decode")):
        assert f"--disaggregation-mode {role}" in line and f"--max-running-requests {best[role]['batch']}" in line
        many = best[role]["instances"]
        assert f"# started {'once' if many == 1 else f'{many} times'}" in line


def test_one_answer_of_one_model_for_every_engine(run) -> None:
    for engine in ("trtllm", "mindie"):
        hw = ["--hw", "ascend-910b2"] if engine == "mindie" else ["--hw", "h100-sxm"]
        flags = [flag for flag in ASKED if flag not in ("--hw", "h100-sxm")]
        code, out, err = run(*flags, *hw, "--devices", "1", "--emit", engine, "--quiet")
        assert code == 0, err
        assert "8B" in out and out.rstrip().endswith("# started once: 1 device in all")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--devices is missing"), (["--devices", "0"], "--devices: '0' is not a whole number of at least 1"),
        (["--devices", "2", "--ttft", "0"], "--ttft: '0' is not a time above 0"),
        (["--devices", "2", "--ttft", "-1s"], "--ttft: '-1s' is not a time"),
        (["--devices", "2", "--tpot", "5 parsecs"], "--tpot: '5 parsecs' is not a time above 0, such as 2s or 50ms"),
        (["--devices", "2", "--tpot", "inf"], "--tpot: 'inf' is not a time"),
        (["--devices", "2", "--tpot", "nan"], "--tpot: 'nan' is not a time"),
        (["--devices", "2", "--memory-headroom", "100%"], "--memory-headroom: '100%' is not a share"),
        (["--devices", "2", "--memory-headroom", "10"], "'10' is not a share from 0 to below 1, such as 10% or 0.1"),
        (["--devices", "2", "--price", "0"], "--price: '0' is not an amount above 0"),
        (["--devices", "2", "--mode", "fast"], "--mode: "), (["--devices", "2", "--objective", "fun"], "--objective: "),
        (["--devices", "2", "--objective", "cost"], "has no price; give --price"),
        (["--devices", "2", "--emit", "ollama"], "--emit: "), (["--devices", "2", "--concurrency", "4"], "no option"),
        (["--devices", "2", "--phase", "decode"], "no option --phase"), (["--devices", "2", "--tpto", "4"], "--tpot"),
        (["--devices", "2", "--json", "x", "--csv", "x"], "both write to x"),
        (["--devices", "2", "--json", "-", "--emit", "vllm"], "both write to -"),
        (["--devices", "2", "--ttft", "1s", "--ttft", "2s"], "given twice"),
        (["--devices", "1000000000"], "--devices 1000000000: a whole number, 1 to 1,048,576"),
        (["--devices", "2", "--tp", "3"], "no plan of the degrees asked fills them exactly"),
        (["--devices", "2", "--tp", "2:1"], "starts above its end"),
        (["--devices", "1", "--mode", "disaggregated"], "--devices 2 or more"),
        (["--devices", "2", "--csv", "no/folder/x"], "there is no folder"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line_and_exit_2(run, plain_folder, flags: list[str], said: str) -> None:
    code, out, err = run(*ASKED, *flags)
    assert (code, out) == (2, "") and err.count("\n") == 1 and said in err
    assert [path.name for path in plain_folder.iterdir() if not path.name.startswith(".")] == []


def test_one_model_at_a_time_and_all_that_is_missing(run) -> None:
    code, _, err = run("optimize", "--model", "a,b", "--hw", "h100-sxm", "--devices", "2")
    assert code == 2 and "--model: 2 values; optimize takes one at a time" in err
    code, _, err = run("optimize", "--model", "llama-3.1-8b", "--devices", "2")
    assert code == 2 and "no machine" in err
    code, _, err = run("optimize", "--hw", "h100-sxm", "--devices", "2")
    assert code == 2 and "--model is missing" in err


def test_help_names_every_option_once(run) -> None:
    code, out, _ = run("optimize", "--help")
    assert code == 0 and "Search:" in out and "disaggregated" in out
    assert out.count("--devices N ") == 1 and "--concurrency" not in out
