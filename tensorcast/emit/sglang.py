"""SGLang: `python -m sglang.launch_server`."""

from __future__ import annotations

from math import ceil

from tensorcast.emit.command import command_line, only
from tensorcast.emit.launch import Launch
from tensorcast.emit.server import SERVERS, Page, Server, Start, Word, refuse

RELEASE = "0.5.21"


def _doc(path: str, commit: str) -> Page:
    return Page(f"https://github.com/sgl-project/sglang/blob/{commit}/docs/{path}", f"main at {commit}")


ARGUMENTS = _doc("advanced_features/server_arguments.md", "004813e")
ATTENTION = _doc("advanced_features/tp_dp_dp_attention_explainer.md", "51907e2")
QUANT = _doc("advanced_features/quantization.md", "0f4513c")
MTP = _doc("basic_usage/deepseek_v3.md", "0f4513c")
CHECKS = Page("https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/server_args.py", "main")
SPLIT = _doc("advanced_features/pd_disaggregation.md", "08edc50")

FLAGS = {
    "tp": Word("--tp-size", ARGUMENTS),
    "pp": Word("--pp-size", ARGUMENTS),
    "dp": Word("--dp-size", ARGUMENTS),
    "dp_attention": Word("--enable-dp-attention", ATTENTION),
    "dp_head": Word("--enable-dp-lm-head", ARGUMENTS),
    "dense_tp": Word("--moe-dense-tp-size", ARGUMENTS),
    "ep": Word("--ep-size", ARGUMENTS),
    "micro_batch": Word("--pp-max-micro-batch-size", ARGUMENTS),
    "scheme": Word("--quantization", QUANT),
    "dtype": Word("--dtype", ARGUMENTS),
    "kv_cache": Word("--kv-cache-dtype", ARGUMENTS),
    "length": Word("--context-length", ARGUMENTS),
    "sequences": Word("--max-running-requests", ATTENTION),
    "step_tokens": Word("--chunked-prefill-size", CHECKS),
    "static": Word("--mem-fraction-static", ARGUMENTS),
    "mtp": Word("--speculative-algorithm", MTP),
    "mtp_steps": Word("--speculative-num-steps", MTP),
    "mtp_topk": Word("--speculative-eagle-topk", MTP),
    "mtp_tokens": Word("--speculative-num-draft-tokens", MTP),
    "eager": Word("--disable-cuda-graph", ARGUMENTS),
    "remote_code": Word("--trust-remote-code", ARGUMENTS),
    "role": Word("--disaggregation-mode", SPLIT),
    "transfer": Word("--disaggregation-transfer-backend", SPLIT),
}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
QUANTISES = {"fp8": Word("fp8", QUANT)}
KV_FORMATS = {
    "fp8": Word("fp8_e4m3", ARGUMENTS),
    "fp8_e5m2": Word("fp8_e5m2", ARGUMENTS),
    "bf16": Word("bf16", ARGUMENTS),
}


def settings(launch: Launch) -> Start:
    """`--tp-size` counts all ranks that share experts; data-parallel attention divides them into `--dp-size` groups.

    Limits of sequences and of step tokens are those of all groups under data-parallel attention, of one copy where
    the whole model is copied. A draft of n tokens is n steps and n + 1 tokens to verify; CHECKS has that a pipeline
    does not speculate, and that the chunk is divided by dp_size.
    """
    tp, dp, pp = launch.size("tp"), launch.size("dp"), launch.size("pp")
    if launch.mtp and pp > 1:
        raise refuse("SGLang", f"--mtp {launch.mtp} with --pp {pp}", "it speculates with --pp 1 only")
    shared = launch.experts and dp > 1
    together = dp if shared else 1
    values = only(
        tp=(tp * together > 1, tp * together),
        pp=(pp > 1, pp),
        dp=(dp > 1, dp),
        dp_attention=(shared, True),
        dp_head=(shared, True),
        dense_tp=(shared and tp == 1, 1),
        ep=(launch.size("ep") > 1, launch.size("ep")),
        micro_batch=(launch.micro_batches > 0, ceil(launch.group_batch / max(launch.micro_batches, 1))),
        scheme=(launch.scheme is not None, launch.scheme and QUANTISES[launch.scheme].text),
        dtype=(launch.names_dtype, DTYPES[launch.dtype]),
        kv_cache=(launch.kv_cache is not None, launch.kv_cache and KV_FORMATS[launch.kv_cache].text),
        length=(True, launch.max_model_len),
        sequences=(True, launch.group_batch * together),
        step_tokens=(launch.chunk > 0, launch.chunk * launch.group_batch * together),
        mtp=(launch.mtp > 0, "EAGLE"),
        mtp_steps=(launch.mtp > 0, launch.mtp),
        mtp_topk=(launch.mtp > 0, 1),
        mtp_tokens=(launch.mtp > 0, launch.mtp + 1),
        eager=(launch.eager, True),
        remote_code=(launch.trust_remote_code, True),
    )
    if launch.utilization < 1:
        values["static"] = launch.free_share("nothing")
    wider = f"dense layers are cut over all {tp * dp} devices; simulated over the {tp} of an attention group"
    return Start(values, (wider,) if shared and tp > 1 else ())


def render(server: Server, launch: Launch, start: Start, role: str) -> str:
    return command_line(server, ("python", "-m", "sglang.launch_server", "--model-path", launch.weights), start)


def roles(connector: str, role: str, launch: Launch) -> dict:
    return {"role": role, "transfer": connector}


SERVERS.register(
    "sglang",
    Server(
        name="sglang",
        title="SGLang",
        release=RELEASE,
        memory="a share that it chooses itself",
        flags=FLAGS,
        dimensions=("tp", "pp", "dp", "ep"),
        quantises=QUANTISES,
        kv_cache=KV_FORMATS,
        settings=settings,
        render=render,
        elsewhere=ARGUMENTS,
        transfer={name: Word(name, SPLIT) for name in ("nixl", "mooncake", "ascend")},
        roles=roles,
        router=SPLIT,
    ),
    origin="builtin",
)
