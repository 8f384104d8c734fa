"""Start lines read back: what a server would see of them."""

from __future__ import annotations

import argparse
import json
import shlex
from functools import cache

import yaml

from tensorcast.request import Request

SWITCH = object()
# Flag → type of its value, as each engine's documentation has them.
DOCUMENTED = {
    "vllm": {
        "--tensor-parallel-size": int, "--pipeline-parallel-size": int, "--data-parallel-size": int,
        "--decode-context-parallel-size": int, "--enable-expert-parallel": SWITCH, "--quantization": str,
        "--dtype": str, "--kv-cache-dtype": str, "--max-model-len": int, "--max-num-seqs": int,
        "--max-num-batched-tokens": int, "--gpu-memory-utilization": float, "--speculative-config": json.loads,
        "--kv-transfer-config": json.loads, "--enforce-eager": SWITCH, "--trust-remote-code": SWITCH,
    },
    "sglang": {
        "--model-path": str, "--tp-size": int, "--pp-size": int, "--dp-size": int, "--ep-size": int,
        "--enable-dp-attention": SWITCH, "--enable-dp-lm-head": SWITCH, "--moe-dense-tp-size": int,
        "--pp-max-micro-batch-size": int, "--quantization": str, "--dtype": str, "--kv-cache-dtype": str,
        "--context-length": int, "--max-running-requests": int, "--chunked-prefill-size": int,
        "--mem-fraction-static": float, "--speculative-algorithm": str, "--speculative-num-steps": int,
        "--speculative-eagle-topk": int, "--speculative-num-draft-tokens": int, "--disable-cuda-graph": SWITCH,
        "--trust-remote-code": SWITCH, "--disaggregation-mode": str, "--disaggregation-transfer-backend": str,
    },
    "trtllm": {
        "--tp_size": int, "--pp_size": int, "--ep_size": int, "--max_batch_size": int, "--max_num_tokens": int,
        "--max_seq_len": int, "--kv_cache_free_gpu_memory_fraction": float, "--trust_remote_code": SWITCH,
        "--enable_chunked_prefill": SWITCH, "--config": str,
    },
}  # fmt: skip
PROGRAMS = {"vllm": ["vllm", "serve"], "sglang": ["python", "-m", "sglang.launch_server"], "trtllm": ["trtllm-serve"]}


def read(engine: str, line: str) -> dict:
    """The settings a server would see: flag → value, `model`, and under `file` what the YAML file says."""
    body = "\n".join(text for text in line.splitlines() if not text.startswith("# "))
    if engine == "mindie":
        return json.loads(body)
    file = {}
    if body.startswith("cat > "):
        head, _, rest = body.partition("\n")
        content, _, body = rest.partition("\nEOF\n")
        file = yaml.safe_load(content)
        assert f"--config {head.split()[2]}" in body
    words = shlex.split(body)
    assert words[: len(PROGRAMS[engine])] == PROGRAMS[engine]
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    if "--model-path" not in DOCUMENTED[engine]:
        parser.add_argument("model")
    for flag, kind in DOCUMENTED[engine].items():
        parser.add_argument(flag, **({"action": "store_true"} if kind is SWITCH else {"type": kind}))
    said = vars(parser.parse_args(words[len(PROGRAMS[engine]) :]))
    said["model"] = said.pop("model_path", None) or said.get("model")
    return {name: value for name, value in said.items() if value not in (None, False)} | {"file": file}


def command(line: str) -> str:
    return "\n".join(text for text in line.splitlines() if not text.startswith("# "))


@cache
def deepseek(**options) -> Request:
    return Request.of(model="deepseek-v3", hw="h200-sxm", **options)


@cache
def qwen(hw: str = "h200-sxm", **options) -> Request:
    return Request.of(model="qwen3-32b", hw=hw, **options)


def mapping(**plan: int) -> dict:
    """What simulate's JSON says of a deployment."""
    return {
        "model": {"name": "qwen3-32b", "origin": "catalogue; transformers Qwen3ForCausalLM"},
        "hardware": {"name": "h200-sxm", "asked": "h200"},
        "plan": {"tp": 1, "ep": 1, "dp": 1, "pp": 1, "sp": 1, **plan},
        "quant": {"source": "none", "modules": {}, "kv_cache": "bf16", "attention": "bf16"},
        "workload": {"phase": "auto", "batch": 8, "input_len": 4096, "output_len": 1024, "chunk": 0, "mtp": 0},
    }
