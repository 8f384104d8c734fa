"""TensorRT-LLM: `trtllm-serve`, and the YAML file for what has no flag."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tensorcast.emit.command import command_line, only
from tensorcast.emit.launch import Launch
from tensorcast.emit.server import SERVERS, Page, Server, Start, Word, refuse

RELEASE = "1.3.0rc27"


def _doc(path: str, commit: str) -> Page:
    return Page(f"https://github.com/NVIDIA/TensorRT-LLM/blob/{commit}/{path}", f"main at {commit}")


SERVE = _doc("tensorrt_llm/commands/serve.py", "00209af")
PARALLEL = _doc("docs/source/features/parallel-strategy.md", "65b31db")
BEST = _doc("docs/source/blogs/Best_perf_practice_on_DeepSeek-R1_in_TensorRT-LLM.md", "01c4ece")
QUANT = _doc("docs/source/features/quantization.md", "09d4c79")
ARGUMENTS = Page("https://nvidia.github.io/TensorRT-LLM/llm-api/reference/TorchLlmArgs.html", "latest")
MTP = Page("https://nvidia.github.io/TensorRT-LLM/1.3.0rc27/llm-api/reference/MTPDecodingConfig.html", RELEASE)
SPLIT = _doc("docs/source/features/disagg-serving.md", "0434b98")

FLAGS = {
    "tp": Word("--tp_size", SERVE),
    "pp": Word("--pp_size", SERVE),
    "ep": Word("--ep_size", SERVE),
    "length": Word("--max_seq_len", SERVE),
    "sequences": Word("--max_batch_size", BEST),
    "step_tokens": Word("--max_num_tokens", SERVE),
    "chunked": Word("--enable_chunked_prefill", SERVE),
    "cache_share": Word("--kv_cache_free_gpu_memory_fraction", SERVE),
    "remote_code": Word("--trust_remote_code", SERVE),
}
YAML = {
    "dp_attention": Word("enable_attention_dp", PARALLEL),
    "dtype": Word("dtype", ARGUMENTS),
    "kv_cache": Word("kv_cache_config", QUANT),
    "mtp": Word("speculative_config", MTP),
    "overlap": Word("disable_overlap_scheduler", SPLIT),
    "transfer": Word("cache_transceiver_config", SPLIT),
}
"""Settings that only the file of `--config` has."""
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
KV_FORMATS = {"fp8": Word("fp8", QUANT)}


def settings(launch: Launch) -> Start:
    """`--tp_size` counts all ranks; data-parallel attention has one group for each of them.

    `--max_batch_size` is of one rank under data-parallel attention (BEST: 384 on each of 8 for 3,072 clients).
    `--ep_size` divides experts, which are cut over the tp_size / ep_size ranks that are left.
    """
    tp, dp, ep = launch.size("tp"), launch.size("dp"), launch.size("ep")
    if dp > 1 and not launch.experts:
        can = f"a dense model is copied by starting a server for each copy: {dp} of --tp {tp}; give --dp 1"
        raise refuse("TensorRT-LLM", f"--dp {dp} of one dense model", can)
    if tp > 1 and dp > 1:
        ranks = tp * dp
        can = (
            f"its attention is cut over all devices or copied to each; give --tp {ranks} --dp 1 or --tp 1 --dp {ranks}"
        )
        raise refuse("TensorRT-LLM", f"--tp {tp} with --dp {dp}", can)
    if launch.eager or launch.micro_batches:
        what = "--runtime eager" if launch.eager else "--micro-batches"
        raise refuse("TensorRT-LLM", what, f"its documentation names no setting for it; leave {what} out")
    values = only(
        tp=(launch.ranks > 1, launch.ranks),
        pp=(launch.size("pp") > 1, launch.size("pp")),
        ep=(ep > 1, ep),
        length=(True, launch.max_model_len),
        sequences=(True, launch.group_batch),
        step_tokens=(launch.chunk > 0, launch.chunk * launch.group_batch),
        chunked=(launch.chunk > 0, True),
        remote_code=(launch.trust_remote_code, True),
        dp_attention=(dp > 1, True),
        dtype=(launch.names_dtype, DTYPES[launch.dtype]),
        kv_cache=(launch.kv_cache is not None, {"dtype": launch.kv_cache and KV_FORMATS[launch.kv_cache].text}),
        mtp=(launch.mtp > 0, {"decoding_type": "MTP", "max_draft_len": launch.mtp}),
    )
    if launch.utilization < 1:
        values["cache_share"] = launch.free_share("weights")
    return Start(values)


def render(server: Server, launch: Launch, start: Start, role: str) -> str:
    """The command; before it, where a setting has no flag, the file that says it."""
    flags = {name: value for name, value in start.settings.items() if name in FLAGS}
    line = command_line(server, ("trtllm-serve", launch.weights), replace(start, settings=flags))
    in_file = {YAML[name].text: value for name, value in start.settings.items() if name in YAML}
    if not in_file:
        return line
    import yaml

    name = f"trtllm-{role}.yaml" if role else "trtllm.yaml"
    text = yaml.safe_dump(in_file, sort_keys=False)
    return f"cat > {name} <<'EOF'\n{text}EOF\n{line} --config {shlex.quote(name)}"


def roles(connector: str, role: str, launch: Launch) -> Mapping[str, Any]:
    """The buffer holds the longest prompt, as the documentation advises."""
    moved = {"transfer": {"backend": connector, "max_tokens_in_buffer": launch.input_len}}
    return {"overlap": True, **moved} if role == "prefill" else moved


SERVERS.register(
    "trtllm",
    Server(
        name="trtllm",
        title="TensorRT-LLM",
        release=RELEASE,
        memory="0.9 of what weights and buffers leave for the KV cache",
        flags=FLAGS | YAML,
        dimensions=("tp", "pp", "dp", "ep"),
        loads=("fp8", "nvfp4", "mxfp4", "int4"),
        kv_cache=KV_FORMATS,
        vendors=("nvidia",),
        settings=settings,
        render=render,
        elsewhere=PARALLEL,
        transfer={"nixl": Word("NIXL", SPLIT), "ucx": Word("UCX", SPLIT), "mpi": Word("MPI", SPLIT)},
        roles=roles,
        router=SPLIT,
    ),
    origin="builtin",
)
