"""vLLM: `vllm serve`."""

from __future__ import annotations

from tensorcast.emit.command import command_line, only
from tensorcast.emit.launch import Launch
from tensorcast.emit.server import SERVERS, Page, Server, Start, Word, refuse

RELEASE = "0.31.0"
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def _doc(path: str, commit: str) -> Page:
    return Page(f"https://github.com/vllm-project/vllm/blob/{commit}/docs/{path}", f"main at {commit}")


CLI = Page("https://docs.vllm.ai/en/v0.31.0/cli/", RELEASE)
ARGUMENTS = Page("https://docs.vllm.ai/en/v0.8.5/serving/engine_args.html", "0.8.5")
CACHE = Page("https://docs.vllm.ai/en/stable/api/vllm/config/cache/", "stable")
SCALING = _doc("serving/parallelism_scaling.md", "096bd6a")
DATA = _doc("serving/data_parallel_deployment.md", "01e4fce")
EXPERT = _doc("serving/expert_parallel_deployment.md", "13642f1")
CONTEXT = _doc("serving/context_parallel_deployment.md", "020505c")
ONLINE = _doc("features/quantization/online.md", "00b64d1")
KV_CACHE = _doc("features/quantization/quantized_kvcache.md", "0609ba1")
MTP = Page("https://docs.vllm.ai/en/stable/features/speculative_decoding/mtp/", "stable")
NIXL = _doc("features/nixl_connector_usage.md", "026c83f")

FLAGS = {
    "tp": Word("--tensor-parallel-size", SCALING),
    "pp": Word("--pipeline-parallel-size", SCALING),
    "dp": Word("--data-parallel-size", DATA),
    "ep": Word("--enable-expert-parallel", EXPERT),
    "dcp": Word("--decode-context-parallel-size", CONTEXT),
    "scheme": Word("--quantization", ONLINE),
    "dtype": Word("--dtype", ARGUMENTS),
    "kv_cache": Word("--kv-cache-dtype", KV_CACHE),
    "length": Word("--max-model-len", CLI),
    "sequences": Word("--max-num-seqs", DATA),
    "step_tokens": Word("--max-num-batched-tokens", CLI),
    "utilization": Word("--gpu-memory-utilization", CACHE),
    "mtp": Word("--speculative-config", MTP),
    "eager": Word("--enforce-eager", CONTEXT),
    "remote_code": Word("--trust-remote-code", ARGUMENTS),
    "transfer": Word("--kv-transfer-config", NIXL),
}
QUANTISES = {"fp8": Word("fp8_per_tensor", ONLINE), "fp8-block": Word("fp8_per_block", ONLINE)}
KV_FORMATS = {
    "fp8": Word("fp8", KV_CACHE),
    "fp8_e5m2": Word("fp8_e5m2", KV_CACHE),
    "bf16": Word("bfloat16", Page("https://docs.vllm.ai/en/v0.16.0/api/vllm/config/cache/", "0.16.0")),
}
ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}


def settings(launch: Launch) -> Start:
    """Experts are divided over all tp x dp ranks or over none; sequences count per attention group."""
    ep, ranks = launch.size("ep"), launch.ranks
    if ep not in (1, ranks):
        can = f"--enable-expert-parallel divides them over all tp x dp = {ranks}; give --ep 1 or --ep {ranks}"
        raise refuse("vLLM", f"experts divided over {ep} devices", can)
    if launch.micro_batches:
        raise refuse("vLLM", "--micro-batches", "it cuts a pipeline's batches itself; leave --micro-batches out")
    values = only(
        **{name: (launch.size(name) > 1, launch.size(name)) for name in ("tp", "pp", "dp", "dcp")},
        ep=(ep > 1, True),
        scheme=(launch.scheme is not None, launch.scheme and QUANTISES[launch.scheme].text),
        dtype=(launch.names_dtype, DTYPES[launch.dtype]),
        kv_cache=(launch.kv_cache is not None, launch.kv_cache and KV_FORMATS[launch.kv_cache].text),
        length=(True, launch.max_model_len),
        sequences=(True, launch.group_batch),
        step_tokens=(launch.chunk > 0, launch.chunk * launch.group_batch),
        utilization=(launch.utilization < 1, launch.utilization),
        mtp=(launch.mtp > 0, {"method": "mtp", "num_speculative_tokens": launch.mtp}),
        eager=(launch.eager, True),
        remote_code=(launch.trust_remote_code, True),
    )
    return Start(values)


def render(server: Server, launch: Launch, start: Start, role: str) -> str:
    return command_line(server, ("vllm", "serve", launch.weights), start)


def roles(connector: str, role: str, launch: Launch) -> dict:
    return {"transfer": {"kv_connector": connector, "kv_role": ROLES[role]}}


SERVERS.register(
    "vllm",
    Server(
        name="vllm",
        title="vLLM",
        release=RELEASE,
        memory="0.92 of it",
        flags=FLAGS,
        dimensions=("tp", "pp", "dp", "ep", "dcp"),
        quantises=QUANTISES,
        kv_cache=KV_FORMATS,
        settings=settings,
        render=render,
        elsewhere=SCALING,
        transfer={"nixl": Word("NixlConnector", NIXL)},
        roles=roles,
        router=NIXL,
    ),
    origin="builtin",
)
