"""A deployment in the terms that serving engines share: what `simulate` was asked, without its figures. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from typing import Any

from tensorcast.errors import DeploymentError, InputError
from tensorcast.formats import format_named
from tensorcast.models.reference import LANGUAGE, ModelSource, resolve_model
from tensorcast.plan import TRAIN, ParallelPlan, checked
from tensorcast.quantization.checkpoint import expert_count
from tensorcast.quantization.plan import QuantPlan, plan_from_request
from tensorcast.request import Request
from tensorcast.units import bytes_

CHANGES = {"overrides": "--set", "layers": "--layers"}
"""Options after which the model is no longer the published one."""
NEEDED = {
    "model": ("name",),
    "plan": (),
    "quant": ("modules", "kv_cache", "attention"),
    "workload": ("batch", "input_len", "output_len"),
}
"""What of an estimate's JSON must be there."""
ENGINES_CHOICE = {"w:mxfp4 a:mxfp8": "mxfp4"}
"""Schemes that differ only in the activation format, which engines choose by the machine."""


@dataclass(frozen=True)
class Launch:
    """What a server is started with. Lengths in tokens, `batch` in sequences of all attention groups together.

    `weights`: hub id (`on_hub`) or absolute folder. `plan`: dimension → size, as in `ParallelPlan`. `experts`:
    whether the model has routed experts. `dtype`, `own_dtype`: number format of what is not quantised, and what the
    checkpoint says of it. `scheme`: quantisation that the server has to do itself, None = as the checkpoint is;
    `stored`: weight formats of that. `kv_cache`: its format where the server must be told, None = it follows by itself.
    `utilization`: share of the device's memory. `memory`: the figures of the estimate, where there are any.
    """

    weights: str
    on_hub: bool
    plan: Mapping[str, Any]
    experts: bool
    dtype: str
    own_dtype: str | None
    scheme: str | None
    stored: tuple[str, ...]
    kv_cache: str | None
    batch: int
    input_len: int
    output_len: int
    max_model_len: int
    chunk: int = 0
    prefix_len: int = 0
    mtp: int = 0
    micro_batches: int = 0
    utilization: float = 1.0
    trust_remote_code: bool = False
    eager: bool = False
    machine: str = ""
    vendor: str = ""
    memory: Mapping[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def size(self, dimension: str) -> int:
        return int(self.plan.get(dimension, 1))

    @property
    def ranks(self) -> int:
        """Devices of one pipeline stage, which experts are divided over: tp x dp."""
        return self.size("tp") * self.size("dp")

    @property
    def devices(self) -> int:
        return self.ranks * self.size("pp")

    @property
    def group_batch(self) -> int:
        """Sequences of the fullest attention group."""
        return ceil(self.batch / self.size("dp"))

    @property
    def names_dtype(self) -> bool:
        """Whether the server must be told the number format: engines run fp32 checkpoints in 16 bit by themselves."""
        return self.dtype != self.own_dtype or self.dtype == "fp32"

    def free_share(self, of: str) -> float:
        """`utilization` as a share of the memory after `of` ("nothing", "weights"), activations counted apart.

        static = (u M - activations - workspace - reserved) / M for "nothing" (weights and cache);
        cache  = (u M - rest) / (M - rest), with rest = weights + activations + workspace + reserved, for "weights".
        InputError where there are no figures.
        """
        if not self.memory:
            raise InputError("gpu_memory_utilization: this server counts in other shares; give the estimate's `memory`")
        whole = self.memory["capacity_bytes"] / self.utilization
        apart = sum(self.memory[f"{name}_bytes"] for name in ("activation_peak", "workspace", "reserved"))
        if of == "weights":
            rest = apart + self.memory["weights_bytes"]
            share = (self.memory["capacity_bytes"] - rest) / (whole - rest) if whole > rest else 0.0
        else:
            share = (self.memory["capacity_bytes"] - apart) / whole
        if share <= 0:
            raise DeploymentError(f"--gpu-memory-utilization {self.utilization}: nothing is left for the KV cache")
        return int(share * 1000) / 1000  # never more than was asked


def launch_of(given: Request | Mapping[str, Any]) -> Launch:
    """The launch that a request, or the JSON of an estimate, describes.

    Of a mapping, `model`, `plan`, `quant` and `workload` are needed, as in the JSON of `simulate`; `hardware`,
    `memory`, `dtype`, `max_model_len`, `max_num_seqs`, `gpu_memory_utilization`, `trust_remote_code` and `runtime` are
    read where they are there. What a mapping does not say (a changed configuration, excluded modules) is not known.
    InputError or DeploymentError for what no server is started with: a changed model, training, a precision that
    contradicts the checkpoint.
    """
    if isinstance(given, Request):
        given = fields_of(given)
    if not isinstance(given, Mapping):
        raise InputError(
            f"a start line is made of a Request or an estimate's dictionary, not of {type(given).__name__}"
        )
    _check_keys(given)
    source, work, quant = given.get("source") or _source(given["model"]), given["workload"], given["quant"]
    if source.custom is not None or work.get("phase") == TRAIN or source.phases != LANGUAGE:
        raise InputError(f"{source.name}: a start line is for a published language model that generates text")
    if work.get("encoder"):
        raise InputError(f"{source.name}: an encoder reads the prompt; a start line is for decoders alone")
    if work.get("images") and not (work.get("image_tokens") or given.get("max_model_len")):
        raise InputError("--image: how long the prompts become is not known here; give --max-model-len")
    own = _own_dtype(source)
    dtype = format_named(given.get("dtype") or own or "bf16").name
    stored = plan_from_request("auto", source.config, source.quant_side, dtype=dtype, folder=source.folder)
    prompt, output = work["input_len"] + work.get("image_tokens", 0), work["output_len"]
    weights, on_hub = _weights(source)
    machine, vendor = _machine(given)
    return Launch(
        weights=weights,
        on_hub=on_hub,
        plan=_plan(given["plan"]),
        experts=expert_count(source.config) > 0,
        dtype=dtype,
        own_dtype=own,
        scheme=_scheme(source, quant, stored),
        stored=tuple(dict.fromkeys(spec.weight for _, spec in stored.rules if spec is not None)),
        kv_cache=None if quant["kv_cache"] == stored.kv_cache == dtype else quant["kv_cache"],
        batch=checked("max_num_seqs", given.get("max_num_seqs") or work["batch"]),
        input_len=checked("input_len", prompt),
        output_len=checked("output_len", output),
        max_model_len=checked("max_model_len", given.get("max_model_len") or prompt + output),
        **{name: checked(name, work.get(name) or 0, 0) for name in ("chunk", "prefix_len", "mtp", "micro_batches")},
        utilization=share_of(given.get("gpu_memory_utilization")),
        trust_remote_code=bool(given.get("trust_remote_code")),
        eager=given.get("runtime") == "eager",
        machine=machine,
        vendor=vendor,
        memory=given.get("memory") or {},
        remarks=(*given.get("remarks", ()), *_warnings(work, given.get("memory") or {})),
    )


def _check_keys(given: Mapping[str, Any]) -> None:
    """InputError that names what is missing."""
    for part, keys in NEEDED.items():
        if not isinstance(given.get(part), Mapping):
            raise InputError(f"a start line needs `{part}`, as in the JSON of simulate")
        missing = [key for key in keys if key not in given[part]]
        if missing and not (part == "workload" and given[part].get("phase") == TRAIN):
            raise InputError(f"a start line needs `{part}.{missing[0]}`, as in the JSON of simulate")


def _plan(given: Mapping[str, Any]) -> dict[str, Any]:
    """Every dimension of the plan; InputError or DeploymentError as ParallelPlan raises."""
    try:
        return asdict(ParallelPlan(**given))
    except TypeError:
        known = ", ".join(field.name for field in fields(ParallelPlan))
        raise InputError(f"plan {dict(given)!r}: its dimensions are {known}") from None


def share_of(value: Any) -> float:
    """A share of the memory, 1 where none is given; InputError."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise InputError(f"gpu_memory_utilization {value!r}: a share above 0, at most 1")
    return float(value)


def fields_of(request: Request) -> dict[str, Any]:
    """A request in the form of an estimate's JSON, with what that leaves out."""
    quant = request.quant
    if changed := [flag for name, flag in CHANGES.items() if request.given.get(name)]:
        how = "start lines are for the model as it is published"
        raise InputError(f"{', '.join(changed)}: the server would load the unchanged model; {how}")
    own = plan_from_request("auto", request.source.config, request.source.quant_side, folder=request.source.folder)
    if quant.exclude or quant.quant_lm_head != own.quant_lm_head:
        flag = "--exclude" if quant.exclude else "--quant-lm-head"
        raise DeploymentError(f"{flag}: servers take modules as the checkpoint has them; give one that is quantised so")
    chosen = [f"{kernel.op}={kernel.name}" for kernel in request.kernels]
    return {
        "source": request.source,
        "model": {"name": request.source.name, "origin": request.source.origin},
        "hardware": {"profile": request.hw},
        "plan": asdict(request.plan),
        "quant": {
            "modules": dict.fromkeys(quant.schemes, 0),
            "kv_cache": quant.kv_cache,
            "attention": quant.attention or quant.dtype,
        },
        "workload": request.work.to_dict(),
        "dtype": request.dtype,
        "max_model_len": request.max_model_len,
        "gpu_memory_utilization": request.utilization,
        "trust_remote_code": request.trust_remote_code,
        "runtime": "eager" if request.eager else "graph",
        "remarks": [f"kernels are the server's own choice; simulated with {', '.join(chosen)}"] if chosen else [],
    }


def _warnings(work: Mapping[str, Any], memory: Mapping[str, Any]) -> list[str]:
    """What a person should know before starting the server."""
    said = []
    if memory and not memory["fits"]:
        needed, capacity = bytes_(memory["total_bytes"]), bytes_(memory["capacity_bytes"])
        said.append(f"does not fit: needs {needed} per device, has {capacity}")
    if (overlap := work.get("overlap", "none")) != "none":
        said.append(f"communication overlaps as the server does it; simulated with --overlap {overlap}")
    return said


def _source(model: Mapping[str, Any]) -> ModelSource:
    """The model that an estimate names: its `origin` says where it came from, and then how it was built."""
    where = str(model.get("origin", "")).split(";")[0].strip()
    for head in ("path ", "hub id "):
        if where.startswith(head):
            return resolve_model(where.removeprefix(head).split(" at ")[0])
    if where != "catalogue":
        raise InputError(f"{model.get('name')}: a start line is for a model of the catalogue, a folder or a hub id")
    return resolve_model(model["name"])


def _weights(source: ModelSource) -> tuple[str, bool]:
    """(what a server loads, whether that is a hub id)."""
    if source.hub_id is not None:
        return source.hub_id, True
    if source.folder is None:
        raise InputError(f"{source.name}: a server needs a folder with config.json and weights, or a hub id")
    return str(source.folder.absolute()), False  # absolute: a name that starts with - is no flag


def _machine(given: Mapping[str, Any]) -> tuple[str, str]:
    """(name, vendor) of the machine, "" where none is named."""
    said = given.get("hardware") or {}
    profile = said.get("profile")
    if profile is None and (name := said.get("asked") or said.get("name")):
        from tensorcast.hardware.load import hardware

        profile = hardware(name)
    return (profile.name, profile.vendor) if profile is not None else ("", "")


def _own_dtype(source: ModelSource) -> str | None:
    """The number format that the configuration states."""
    text = source.config.get("text_config") or {}
    said = next((v for c in (source.config, text) for k in ("dtype", "torch_dtype") if (v := c.get(k))), None)
    return None if said in (None, "auto") else format_named(said).name


def _scheme(source: ModelSource, quant: Mapping[str, Any], stored: QuantPlan) -> str | None:
    """The scheme that 16-bit weights must be turned into, None when the checkpoint is as it was simulated."""
    if format_named(quant["attention"]).is_quantised:
        raise DeploymentError(f"--attention-quant {quant['attention']}: servers have no setting for it; leave it out")
    wanted = {ENGINES_CHOICE.get(label, label) for label in quant["modules"]}
    as_stored = {ENGINES_CHOICE.get(label, label) for label in stored.schemes}
    if wanted == as_stored:
        return None
    if as_stored or len(wanted) != 1:
        simulated, has = " and ".join(sorted(wanted)) or "16 bit", " and ".join(sorted(as_stored)) or "16 bit"
        how = "a server loads what is stored; simulate with --quant auto on a machine that computes it"
        raise DeploymentError(f"{source.name} is stored in {has} and was simulated in {simulated}: {how}")
    return wanted.pop()
