"""Start lines: read back by parsers that know the flags as the engines' documentation lists them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest

import tensorcast as tc
from tensorcast.emit.line import ENGINES, server_named, start_line, start_lines
from tensorcast.errors import DeploymentError, InputError
from tensorcast.plan import ParallelPlan
from tensorcast.request import Request
from tests.emit.reading import DOCUMENTED, command, deepseek, mapping, qwen, read

# -- the lines themselves ----------------------------------------------------------------------------------------------

GOLDEN = {
    ("vllm", "tp"): "vllm serve Qwen/Qwen3-32B --tensor-parallel-size 8 --max-model-len 5120 --max-num-seqs 64",
    ("vllm", "experts"): (
        "vllm serve deepseek-ai/DeepSeek-V3 --data-parallel-size 8 --enable-expert-parallel --kv-cache-dtype fp8 "
        "--max-model-len 5120 --max-num-seqs 32 --speculative-config "
        """'{"method":"mtp","num_speculative_tokens":1}'"""
    ),
    ("sglang", "tp"): (
        "python -m sglang.launch_server --model-path Qwen/Qwen3-32B --tp-size 8 --context-length 5120 "
        "--max-running-requests 64"
    ),
    ("sglang", "experts"): (
        "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp-size 8 --dp-size 8 "
        "--enable-dp-attention --enable-dp-lm-head --moe-dense-tp-size 1 --ep-size 8 --kv-cache-dtype fp8_e4m3 "
        "--context-length 5120 --max-running-requests 256 --speculative-algorithm EAGLE --speculative-num-steps 1 "
        "--speculative-eagle-topk 1 --speculative-num-draft-tokens 2"
    ),
    ("trtllm", "tp"): "trtllm-serve Qwen/Qwen3-32B --tp_size 8 --max_seq_len 5120 --max_batch_size 64",
    ("trtllm", "experts"): (
        "cat > trtllm.yaml <<'EOF'\nenable_attention_dp: true\nkv_cache_config:\n  dtype: fp8\nspeculative_config:\n"
        "  decoding_type: MTP\n  max_draft_len: 1\nEOF\n"
        "trtllm-serve deepseek-ai/DeepSeek-V3 --tp_size 8 --ep_size 8 --max_seq_len 5120 --max_batch_size 32 "
        "--config trtllm.yaml"
    ),
}


@pytest.mark.parametrize(("engine", "plan"), GOLDEN)
def test_golden_lines(engine: str, plan: str) -> None:
    request = qwen(tp=8, batch=64)
    if plan == "experts":
        request = deepseek(dp=8, ep=8, batch=256, mtp=1, kv_cache_dtype="fp8")
    assert command(start_line(engine, request)) == GOLDEN[engine, plan]


def test_mindie_fields() -> None:
    said = read("mindie", start_line("mindie", qwen(hw="ascend-910b", tp=2, dp=2, batch=64, chunk=512)))
    deploy = said["BackendConfig"]["ModelDeployConfig"]
    assert said["BackendConfig"]["npuDeviceIds"] == [[0, 1, 2, 3]]
    assert deploy["ModelConfig"] == [
        {
            "modelName": "Qwen3-32B", "modelWeightPath": "Qwen/Qwen3-32B", "worldSize": 4, "npuMemSize": -1,
            "backendType": "atb", "trustRemoteCode": False, "tp": 2, "dp": 2,
            "plugin_params": '{"plugin_type":"splitfuse"}',
        }
    ]  # fmt: skip
    assert (deploy["maxSeqLen"], deploy["maxInputTokenLen"]) == (5120, 4096)
    assert said["BackendConfig"]["ScheduleConfig"] == {
        "templateType": "Mix", "prefillChunkSize": 512, "maxBatchSize": 32, "maxPrefillTokens": 16384,
        "maxIterTimes": 1024,
    }  # fmt: skip


def test_mindie_divides_experts() -> None:
    """moe_tp x moe_ep = worldSize; a checkpoint of 16 bit runs where fp8 does not."""
    moe = Request.of(model="qwen3-30b-a3b", hw="ascend-910b", tp=4, ep=2)
    (model,) = read("mindie", start_line("mindie", moe))["BackendConfig"]["ModelDeployConfig"]["ModelConfig"]
    assert (model["worldSize"], model["tp"], model["dp"], model["moe_tp"], model["moe_ep"]) == (4, 4, -1, 2, 2)


# -- every plan, read back ---------------------------------------------------------------------------------------------


def plan_of(engine: str, said: dict) -> ParallelPlan:
    """The plan that the documentation gives these settings."""
    if engine == "vllm":  # devices = tp x pp x dp; experts over tp x dp or not at all
        tp, dp = said.get("tensor_parallel_size", 1), said.get("data_parallel_size", 1)
        ep = tp * dp if "enable_expert_parallel" in said else 1
        return ParallelPlan(tp=tp, dp=dp, pp=said.get("pipeline_parallel_size", 1), ep=ep)
    if engine == "sglang":  # attention takes tp_size / dp_size ranks of a group under dp attention
        tp, dp = said.get("tp_size", 1), said.get("dp_size", 1)
        tp = tp // dp if "enable_dp_attention" in said else tp
        return ParallelPlan(tp=tp, dp=dp, pp=said.get("pp_size", 1), ep=said.get("ep_size", 1))
    world = said.get("tp_size", 1)  # attention is on all of them, or each has its own
    tp, dp = (1, world) if said["file"].get("enable_attention_dp") else (world, 1)
    return ParallelPlan(tp=tp, dp=dp, pp=said.get("pp_size", 1), ep=said.get("ep_size", 1))


def expressible(engine: str, plan: ParallelPlan, experts: bool) -> bool:
    if engine == "vllm":
        return plan.ep in (1, plan.tp * plan.dp)
    return engine == "sglang" or plan.dp == 1 or (experts and plan.tp == 1)


@pytest.mark.parametrize("engine", DOCUMENTED)
@pytest.mark.parametrize("experts", [False, True])
def test_every_plan_is_said_or_refused(engine: str, experts: bool) -> None:
    request = deepseek(batch=64) if experts else qwen(batch=64)
    said = 0
    for tp, dp, pp, ep in product((1, 2, 4, 8), (1, 2, 8), (1, 2), (1, 2, 8) if experts else (1,)):
        if tp * dp % ep:
            continue
        plan = ParallelPlan(tp=tp, dp=dp, pp=pp, ep=ep)
        asked = replace(request, plan=plan)
        if not expressible(engine, plan, experts):
            with pytest.raises(DeploymentError, match="give --"):
                start_line(engine, asked)
            continue
        line = read(engine, start_line(engine, asked))
        assert plan_of(engine, line) == plan
        limit = line.get("max_num_seqs") or line.get("max_running_requests") or line.get("max_batch_size")
        total = 64 if engine == "sglang" and "enable_dp_attention" in line else 64 // dp
        assert limit == total
        said += 1
    assert said >= 8


@pytest.mark.parametrize("engine", DOCUMENTED)
def test_lengths_precision_and_switches(engine: str) -> None:
    request = qwen(
        batch=16, input_len=8000, output_len=192, max_model_len=16384, chunk=1024, kv_cache_dtype="fp8", dtype="fp16",
        tp=2,
    )  # fmt: skip
    said = read(engine, start_line(engine, replace(request, trust_remote_code=True)))
    assert said["trust_remote_code"] is True
    assert {said.get("max_model_len"), said.get("context_length"), said.get("max_seq_len")} == {None, 16384}
    tokens = [said.get(name) for name in ("max_num_batched_tokens", "chunked_prefill_size", "max_num_tokens")]
    assert set(tokens) == {None, 16 * 1024}
    assert said.get("dtype", said["file"].get("dtype")) == "float16"
    cache = said.get("kv_cache_dtype") or said["file"]["kv_cache_config"]["dtype"]
    assert cache == {"vllm": "fp8", "sglang": "fp8_e4m3", "trtllm": "fp8"}[engine]


def test_shares_of_memory_are_converted() -> None:
    """By hand: M = 100, u = 0.9, weights 40, activations 4, workspace 1, reserved 5."""
    memory = {
        "weights_bytes": 40, "activation_peak_bytes": 4, "workspace_bytes": 1, "reserved_bytes": 5,
        "capacity_bytes": 90, "total_bytes": 80, "fits": True,
    }  # fmt: skip
    given = mapping() | {"memory": memory, "gpu_memory_utilization": 0.9}
    assert read("vllm", start_line("vllm", given))["gpu_memory_utilization"] == 0.9
    assert read("sglang", start_line("sglang", given))["mem_fraction_static"] == 0.8  # (90 - 10) / 100
    share = read("trtllm", start_line("trtllm", given))["kv_cache_free_gpu_memory_fraction"]
    assert share == 0.8  # (90 - 50) / (100 - 50)
    mindie = given | {"hardware": {"name": "ascend-910b2"}}
    assert "NPU_MEMORY_FRACTION=0.9" in start_line("mindie", mindie)
    assert "does not fit" in start_line("vllm", given | {"memory": memory | {"fits": False}})
    with pytest.raises(InputError, match="give the estimate"):
        start_line("sglang", mapping() | {"gpu_memory_utilization": 0.9})


# -- prefill and decode apart ------------------------------------------------------------------------------------------


def test_two_servers() -> None:
    prefill, decode = deepseek(tp=8), deepseek(dp=8, ep=8, batch=64)
    one, two = (read("vllm", line) for line in start_lines("vllm", prefill, decode))
    assert one["kv_transfer_config"] == {"kv_connector": "NixlConnector", "kv_role": "kv_producer"}
    assert two["kv_transfer_config"] == {"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}
    one, two = (read("sglang", line) for line in start_lines("sglang", prefill, decode, "mooncake"))
    assert (one["disaggregation_mode"], two["disaggregation_mode"]) == ("prefill", "decode")
    assert one["disaggregation_transfer_backend"] == two["disaggregation_transfer_backend"] == "mooncake"
    one, two = (read("trtllm", line)["file"] for line in start_lines("trtllm", prefill, decode))
    assert one["cache_transceiver_config"] == {"backend": "NIXL", "max_tokens_in_buffer": 4096}
    assert (one["disable_overlap_scheduler"], two["enable_attention_dp"]) == (True, True)


def test_two_servers_refused() -> None:
    pair = (qwen(hw="ascend-910b", tp=8), qwen(hw="ascend-910b", tp=4))
    with pytest.raises(DeploymentError, match="one plan at a time"):
        start_lines("mindie", *pair)
    with pytest.raises(DeploymentError, match=r"no way 'rdma'.*one of nixl"):
        start_lines("vllm", *pair, connector="rdma")
    with pytest.raises(InputError, match="cannot share KV caches"):
        start_lines("vllm", qwen(), qwen(kv_cache_dtype="fp8"))
    with pytest.raises(InputError, match="cannot share KV caches"):
        start_lines("vllm", qwen(), deepseek())


# -- where the words come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_every_word_has_a_page(engine: str) -> None:
    server = server_named(engine)
    words = [*server.flags.values(), *server.quantises.values(), *server.kv_cache.values(), *server.transfer.values()]
    assert words
    for word in words:
        assert word.text
        assert word.page.url.startswith("https://")
        assert word.page.version
        assert word.page.date == "2026-11-21"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_last_line_names_the_documentation(engine: str) -> None:
    request = qwen(hw="ascend-910b", tp=8) if engine == "mindie" else qwen(tp=8)
    last = start_line(engine, request).splitlines()[-1]
    assert last.startswith(f"# {server_named(engine).title} documentation, read 2026-11-21 when ")
    assert "https://" in last


def test_devices_beyond_a_machine_are_pointed_out() -> None:
    assert "# 16 devices: on more than one machine, see https://" in start_line("vllm", deepseek(tp=8, pp=2))
    assert "more than one machine" not in start_line("vllm", deepseek(tp=8))


def test_chosen_kernels_are_pointed_out() -> None:
    line = start_line("vllm", qwen(kernel="attention=flash"))
    assert "# kernels are the server's own choice; simulated with attention=flash" in line


# -- simulate ----------------------------------------------------------------------------------------------------------


def test_the_json_gives_the_same_line(plain_folder) -> None:
    options = {"tp": 2, "batch": 4, "kv_cache_dtype": "fp8", "quant": "fp8"}
    estimate = tc.simulate(model="qwen3-0.6b", hw="h200-sxm", **options)
    for engine in ("vllm", "sglang"):
        assert start_line(engine, estimate.to_dict()) == estimate.start_line(engine)
        request = Request.of(model="qwen3-0.6b", hw="h200-sxm", **options)
        assert estimate.start_line(engine) == start_line(engine, request) == tc.start_line(engine, request)


def test_the_option(run, plain_folder) -> None:
    ask = ("simulate", "-m", "qwen3-0.6b", "--hw", "h200", "--tp", "2")
    code, alone, _ = run(*ask, "--emit", "vllm", "--quiet")
    assert code == 0
    assert read("vllm", alone)["tensor_parallel_size"] == 2
    code, after, _ = run(*ask, "--emit", "vllm")
    assert code == 0
    assert after.endswith(alone)
    assert len(after) > len(alone)


def test_the_option_refused(run, plain_folder) -> None:
    ask = ("simulate", "-m", "qwen3-0.6b", "--hw", "h200", "--tp", "2")
    file = plain_folder / "out.json"
    code, out, err = run(*ask, "--emit", "mindie", "--json", str(file))
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "runs on huawei devices" in err
    assert not file.exists()
    code, _, err = run(*ask, "--emit", "vllm", "--json", "-")
    assert code == 2
    assert "--json and --emit both write to -" in err
    assert run(*ask, "--emit", "vlm")[0] == 2


def test_no_torch() -> None:
    code = (
        "import sys; from tensorcast.emit.line import start_line; from tensorcast.request import Request; "
        "start_line('vllm', Request.of(model='qwen3-32b', hw='h200')); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
