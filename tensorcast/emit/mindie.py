"""MindIE LLM: the fields of its service's config.json."""

from __future__ import annotations

import json
import re
from typing import Any

from tensorcast.emit.command import only
from tensorcast.emit.launch import Launch
from tensorcast.emit.server import SERVERS, Page, Server, Start, Word, refuse

RELEASE = "3.1.0"


def _doc(path: str) -> Page:
    return Page(f"https://github.com/Ascend/MindIE-LLM/blob/613aab5/docs/en/user_guide/{path}", RELEASE)


SERVICE = _doc("user_manual/service_parameter_configuration.md")
RANKS = _doc("user_manual/rank_table_file_configuration.md")
DATA = _doc("feature/data_parallel.md")
EXPERT = _doc("feature/expert_parallel.md")
SPLIT_FUSE = _doc("feature/split_fuse.md")
MTP = _doc("feature/mtp.md")

# A field's name is its path in the file.
FLAGS = {
    "devices": Word("BackendConfig.npuDeviceIds", SERVICE),
    "nodes": Word("BackendConfig.multiNodesInferEnabled", SERVICE),
    "length": Word("BackendConfig.ModelDeployConfig.maxSeqLen", SERVICE),
    "prompt": Word("BackendConfig.ModelDeployConfig.maxInputTokenLen", SERVICE),
    "name": Word("BackendConfig.ModelDeployConfig.ModelConfig.modelName", SERVICE),
    "weights": Word("BackendConfig.ModelDeployConfig.ModelConfig.modelWeightPath", SERVICE),
    "world": Word("BackendConfig.ModelDeployConfig.ModelConfig.worldSize", SERVICE),
    "cache": Word("BackendConfig.ModelDeployConfig.ModelConfig.npuMemSize", SERVICE),
    "backend": Word("BackendConfig.ModelDeployConfig.ModelConfig.backendType", SERVICE),
    "remote_code": Word("BackendConfig.ModelDeployConfig.ModelConfig.trustRemoteCode", SERVICE),
    "tp": Word("BackendConfig.ModelDeployConfig.ModelConfig.tp", DATA),
    "dp": Word("BackendConfig.ModelDeployConfig.ModelConfig.dp", DATA),
    "moe_tp": Word("BackendConfig.ModelDeployConfig.ModelConfig.moe_tp", DATA),
    "moe_ep": Word("BackendConfig.ModelDeployConfig.ModelConfig.moe_ep", EXPERT),
    "plugin": Word("BackendConfig.ModelDeployConfig.ModelConfig.plugin_params", MTP),
    "schedule": Word("BackendConfig.ScheduleConfig.templateType", SPLIT_FUSE),
    "chunk": Word("BackendConfig.ScheduleConfig.prefillChunkSize", SPLIT_FUSE),
    "sequences": Word("BackendConfig.ScheduleConfig.maxBatchSize", SERVICE),
    "step_tokens": Word("BackendConfig.ScheduleConfig.maxPrefillTokens", SERVICE),
    "output": Word("BackendConfig.ScheduleConfig.maxIterTimes", SERVICE),
}
LISTS = ("ModelConfig",)
"""Parts of the file that are lists with one entry a model."""


def settings(launch: Launch) -> Start:
    """worldSize = tp x dp; experts lie on moe_ep groups of moe_tp devices. A step takes one prompt at least."""
    dp, ep = launch.size("dp"), launch.size("ep")
    if launch.mtp and launch.chunk:
        raise refuse("MindIE", "--mtp with --chunk", "its MTP does not go with SplitFuse; leave one out")
    if launch.mtp > 2:
        raise refuse("MindIE", f"--mtp {launch.mtp}", "num_speculative_tokens is 1 or 2")
    for what, asked in {
        "--prefix-len": launch.prefix_len,
        "--micro-batches": launch.micro_batches,
        "--runtime eager": launch.eager,
        f"--dtype {launch.dtype}": launch.dtype != launch.own_dtype,
    }.items():
        if asked:
            raise refuse("MindIE", what, f"config.json has no field for it; leave {what.split(' ')[0]} out")
    plugin = {"plugin_type": "mtp", "num_speculative_tokens": launch.mtp}
    values = only(
        devices=(launch.devices <= 8, [list(range(launch.devices))]),
        nodes=(launch.devices > 8, True),
        length=(True, launch.max_model_len),
        prompt=(True, launch.input_len),
        name=(True, _name(launch.weights)),
        weights=(True, launch.weights),
        world=(True, launch.devices),
        cache=(True, -1),
        backend=(True, "atb"),
        remote_code=(True, launch.trust_remote_code),
        tp=(True, launch.size("tp")),
        dp=(True, dp if dp > 1 else -1),
        moe_tp=(launch.experts, launch.ranks // ep),
        moe_ep=(launch.experts, ep),
        plugin=(bool(launch.mtp or launch.chunk), _json(plugin if launch.mtp else {"plugin_type": "splitfuse"})),
        schedule=(launch.chunk > 0, "Mix"),
        chunk=(launch.chunk > 0, launch.chunk),
        sequences=(True, launch.group_batch),
        step_tokens=(True, max(launch.input_len, launch.chunk * launch.group_batch, 8192)),
        output=(True, max(launch.output_len, 1)),
    )
    return Start(values, _remarks(launch))


def _remarks(launch: Launch) -> tuple[str, ...]:
    said = ["merge into mindie_llm/conf/config.json, then start mindie_llm_server"]
    if launch.on_hub:
        said.append(f"modelWeightPath is a folder: download {launch.weights} to it first")
    if launch.utilization < 1:
        said.append(f"memory: export NPU_MEMORY_FRACTION={launch.utilization} before the start")
    return tuple(said)


def _name(weights: str) -> str:
    """A model name as the service takes it: letters, digits, - . _ inside, at most 256."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", weights.rstrip("/").rsplit("/", 1)[-1])[:256].strip("-._") or "model"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def render(server: Server, launch: Launch, start: Start, role: str) -> str:
    """The fields, each where its path says."""
    top: dict[str, Any] = {}
    for setting, value in start.settings.items():
        *way, last = server.flag(setting).split(".")
        part = top
        for step in way:
            part = part.setdefault(step, [{}] if step in LISTS else {})
            part = part[0] if step in LISTS else part
        part[last] = value
    return json.dumps(top, indent=2, ensure_ascii=False)


SERVERS.register(
    "mindie",
    Server(
        name="mindie",
        title="MindIE",
        release=RELEASE,
        memory="0.8 of it",
        flags=FLAGS,
        dimensions=("tp", "dp", "ep"),
        loads=("int8", "int4"),
        vendors=("huawei",),
        settings=settings,
        render=render,
        elsewhere=RANKS,
    ),
    origin="builtin",
)
