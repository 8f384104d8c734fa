"""What a checkpoint says about its own quantisation, in one form.

Read: `quantization_config` of a transformers config (also inside `text_config`), or the side file
`hf_quant_config.json`. Methods: fp8, fbgemm_fp8, compressed-tensors, modelopt, mxfp4, gptq, awq. The fields are those
the methods' own writers document: transformers `utils/quantization_config.py`, compressed-tensors
`QuantizationScheme`, NVIDIA Model Optimizer `hf_quant_config.json`, the DeepSeek-V4 model card (`expert_dtype` fp4:
experts in fp4 with one e8m0 scale per 32). Scales of 128 x 128 blocks are counted as fp32, also where a file stores
them as e8m0 (DeepSeek-V4: 3 bytes more per 16,384).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorcast.errors import DeploymentError
from tensorcast.formats import format_named
from tensorcast.quantization.modelopt import algorithm, layer_table
from tensorcast.quantization.patterns import refuse_partial_experts
from tensorcast.quantization.schemes import QuantSpec

ALL, EXPERTS = "*", "kind:experts"
INNER = ("text_config", "language_config", "llm_config")
Rules = tuple[tuple[str, "QuantSpec | None"], ...]


@dataclass(frozen=True)
class CheckpointQuant:
    """A checkpoint's quantisation: `rules`, `skip`, `language_only` as in QuantPlan; KV-cache format (None: not
    stated)."""

    rules: Rules
    skip: tuple[str, ...]
    source: str
    kv_cache: str | None = None
    lm_head: bool = False
    language_only: bool = False
    notes: tuple[str, ...] = ()


def read_checkpoint(config: Mapping[str, object], side: Mapping[str, object] | None = None) -> CheckpointQuant | None:
    """The checkpoint's quantisation, or None when it has none.

    The config decides; the side file is read where the config is silent (as vLLM does), and gives the KV-cache format
    where the config states none. Raises DeploymentError for a method that is not read, or an entry that cannot be
    honoured.
    """
    body, inner = _of_config(config)
    sided = (side or {}).get("quantization") if isinstance(side, Mapping) else None
    where = "quantization_config"
    if body is None:
        body, inner, where = sided, False, "hf_quant_config.json"
    if not isinstance(body, Mapping) or not body:
        return None
    method = _method(body, where)
    rules, skip, notes, lm_head = _READERS[method](body, config)
    kv, said = _kv_cache(body), "kv_cache_scheme" in body or "kv_cache_quant_algo" in body
    if not said and sided and where == "quantization_config":
        kv = _kv_cache(sided)
        notes += (f"KV-cache format {kv} from hf_quant_config.json",) if kv else ()
    experts = expert_count(config)
    refuse_partial_experts(skip, experts, "the checkpoint's exclude list")
    refuse_partial_experts([p for p, _ in rules], experts, "the checkpoint's list of quantised layers")
    return CheckpointQuant(rules, tuple(skip), f"{where} ({method})", kv, lm_head, inner, tuple(notes))


def _of_config(config: Mapping[str, object]) -> tuple[Mapping[str, object] | None, bool]:
    """The quantisation part of a config, and whether it stands in the language model's own config (and governs only
    that)."""
    for holder in (config, *(config.get(key) for key in INNER)):
        if isinstance(holder, Mapping):
            for key in ("quantization_config", "compression_config"):
                if isinstance(holder.get(key), Mapping) and holder[key]:
                    return holder[key], holder is not config
    return None, False


def _method(body: Mapping[str, object], where: str) -> str:
    """Name of the method, as stated or, for files that leave it out, by the fields only one method has."""
    stated = body.get("quant_method")
    if stated is None:
        if "quant_algo" in body:
            stated = "modelopt"
        elif "config_groups" in body:
            stated = "compressed-tensors"
        elif "weight_block_size" in body or "activation_scheme" in body:
            stated = "fp8"
        else:
            raise DeploymentError(
                f"{where} names no quant_method and has only {', '.join(map(str, body))}; we read "
                f"{', '.join(_READERS)}; use --quant none or a scheme by name"
            )
    name = str(stated).lower().replace("_", "-")
    name = {
        "fbgemm-fp8": "fbgemm_fp8",
        "modelopt-fp4": "modelopt",
        "modelopt-mixed": "modelopt",
        "compressed-tensors": "compressed-tensors",
        "gpt-oss-mxfp4": "mxfp4",
    }.get(name, name)
    if name in _REFUSED:
        raise DeploymentError(f"{where}: {stated} {_REFUSED[name]}")
    if name not in _READERS:
        raise DeploymentError(
            f"{where}: unknown quant_method {stated!r}; we read {', '.join(_READERS)}; "
            "use --quant none or a scheme by name"
        )
    return name


_REFUSED = {
    "bitsandbytes": "splits activations by outlier (int8) or uses a code book with nested scales (nf4), which no "
    "scheme here computes faithfully; use --quant w8a16 or w4a16 for a figure near it, or --quant none",
}


def _names(body: Mapping[str, object], *keys: str) -> list[str]:
    """The first list among `keys`; None and absent are empty."""
    for key in keys:
        value = body.get(key)
        if value:
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise DeploymentError(f"{key} must be a list of module names, not {value!r}")
            return [str(entry) for entry in value]
    return []


# -- one reader per method: (body, config) -> rules, skip, notes, lm_head -------------------------------------------


def _fp8(body, config):
    weight = format_named(body.get("fmt") or "e4m3").name
    block, scheme = body.get("weight_block_size"), body.get("activation_scheme", "dynamic")
    if scheme not in ("dynamic", "static"):
        raise DeploymentError(f"fp8: unknown activation_scheme {scheme!r}; dynamic or static")
    if block is not None and scheme == "static":
        raise DeploymentError("fp8: weight_block_size goes with dynamic activations; activation_scheme is static")
    if block is None:
        spec = QuantSpec(weight, weight, dynamic=scheme == "dynamic", weight_per_tensor=True)
    else:
        spec = QuantSpec(weight, weight, weight_block=tuple(block), activation_group=int(block[1]))
    rules: list = [(ALL, spec)]
    notes: tuple[str, ...] = ()
    if _text(config).get("expert_dtype") == "fp4":
        rules.insert(0, (EXPERTS, QuantSpec("mxfp4", weight, activation_group=spec.activation_group)))
    if body.get("quantized_layers"):  # experts requantised by modelopt; everything else stays as the fp8 checkpoint was
        table, _ = layer_table(body["quantized_layers"])
        skip = [name for name in _names(body, "ignore", "exclude_modules") if name in ("head", "lm_head")]
        return (*table, *rules), skip, notes, False
    return tuple(rules), _names(body, "modules_to_not_convert", "ignored_layers"), notes, False


def _fbgemm(body, config):
    return ((ALL, QuantSpec("fp8", "fp8")),), _names(body, "modules_to_not_convert"), (), False


def _mxfp4(body, config):
    """gpt-oss: the stacks of experts only, whatever else is a linear."""
    return ((EXPERTS, QuantSpec("mxfp4", "bf16")),), _names(body, "modules_to_not_convert"), (), False


def _gptq(body, config):
    bits, group = int(body.get("bits", 4)), int(body.get("group_size", 128))
    if bits not in (4, 8):
        raise DeploymentError(f"gptq with {bits} bits is not simulated; 4 and 8 are")
    spec = QuantSpec(
        f"int{bits}", "fp16", weight_group=max(group, 0), scale="fp16", weight_zero_point=not body.get("sym", True)
    )
    skip = _names(body, "modules_to_not_convert")
    for pattern in body.get("dynamic") or ():
        if not str(pattern).startswith("-:"):
            raise DeploymentError(f"gptq: per-module override {pattern!r} is not read; only exclusions ('-:…') are")
        skip.append("re:" + str(pattern)[2:])
    notes = ("gptq desc_act: the input order (4 bytes an input) is not counted",) if body.get("desc_act") else ()
    return ((ALL, spec),), skip, notes, bool(body.get("lm_head", False))


def _awq(body, config):
    bits = int(body.get("bits", body.get("w_bit", 4)))
    if bits != 4:
        raise DeploymentError(f"awq with {bits} bits is not simulated; 4 is")
    group = int(body.get("group_size", body.get("q_group_size", 128)))
    spec = QuantSpec(
        "int4", "fp16", weight_group=max(group, 0), scale="fp16", weight_zero_point=bool(body.get("zero_point", True))
    )
    return ((ALL, spec),), _names(body, "modules_to_not_convert"), (), False


def _compressed(body, config):
    groups = body.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise DeploymentError("compressed-tensors: no config_groups")
    named, general = [], []
    for name, group in groups.items():
        if not isinstance(group, Mapping) or not group.get("weights"):
            continue  # a group without weights only quantises activations of modules that hold none (KV cache)
        spec = _from_arguments(group["weights"], group.get("input_activations"), f"config_groups.{name}")
        for target in _names(group, "targets") or ["Linear"]:
            (general if target in ("Linear", "FusedMoE", "MoE") else named).append((target, spec))
    general = list(dict.fromkeys((ALL, spec) for _, spec in general))
    if len(general) > 1:
        raise DeploymentError("compressed-tensors: several groups target Linear with different formats")
    return (*named, *general), _names(body, "ignore"), (), False


def _from_arguments(weights: Mapping, activations: Mapping | None, where: str) -> QuantSpec:
    """QuantSpec from a compressed-tensors pair of QuantizationArgs."""
    bits, kind, group = weights.get("num_bits"), weights.get("type", "int"), weights.get("group_size")
    strategy = weights.get("strategy") or ("group" if group and group > 0 else None)
    weight = {("int", 8): "int8", ("int", 4): "int4", ("float", 8): "fp8"}.get((kind, bits))
    if (kind, bits) == ("float", 4):
        weight = {16: "nvfp4", 32: "mxfp4"}.get(group)
    if (kind, bits, group) == ("float", 8, 32):
        weight = "mxfp8"
    if weight is None:
        raise DeploymentError(f"{where}: {bits}-bit {kind} weights with group_size {group} are not simulated")
    own = format_named(weight).block_scaled
    block = weights.get("block_structure") if strategy == "block" else None
    if strategy == "block" and not block:
        raise DeploymentError(f"{where}: strategy block without block_structure")
    activation, dynamic, agroup = "bf16", True, 0
    if activations:
        abits, akind = activations.get("num_bits"), activations.get("type", "int")
        activation = {
            ("int", 8): "int8",
            ("float", 8): "fp8",
            ("float", 4): weight,
            ("int", 4): "int4",
            ("int", 16): "bf16",
            ("float", 16): "bf16",
        }.get((akind, abits))
        if activation is None:
            raise DeploymentError(f"{where}: {abits}-bit {akind} activations are not simulated")
        agroup = int(activations.get("group_size") or 0)
        if weight == "mxfp8" or (activation == "fp8" and agroup == 32):
            activation, agroup = "mxfp8", 0
        own_scales = format_named(activation).block_scaled
        dynamic, agroup = (True, 0) if own_scales else (bool(activations.get("dynamic", False)), max(agroup, 0))
    return QuantSpec(
        weight,
        activation,
        dynamic=dynamic,
        activation_group=agroup,
        weight_group=0 if own or strategy != "group" or not group or group < 0 else int(group),
        weight_block=tuple(block) if block else None,
        weight_per_tensor=not own and strategy in ("tensor", None),
        weight_zero_point=weight.startswith("int") and not weights.get("symmetric", True),
        scale="bf16" if (weight.startswith("int") and activation == "bf16") or weight == "int4" else "fp32",
    )


def _modelopt(body, config):
    skip = _names(body, "exclude_modules", "ignore")
    stated, layers = body.get("quant_algo"), body.get("quantized_layers")
    if layers:
        rules, lm_head = layer_table(layers)
        return rules, skip, (), lm_head
    if stated is None and isinstance(body.get("config_groups"), Mapping):
        return _compressed(body, config)
    if str(stated).upper() == "MIXED_PRECISION":
        raise DeploymentError(
            "modelopt: MIXED_PRECISION without quantized_layers does not say which layer has "
            "which format; use a scheme by name"
        )
    notes = (
        ()
        if skip
        else (
            f"the checkpoint's {stated} lists no excluded modules: every linear but lm_head, routers "
            "and embeddings is taken as quantised",
        )
    )
    return ((ALL, algorithm(stated, body.get("group_size"), body.get("has_zero_point"))),), skip, notes, False


_READERS = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm,
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "mxfp4": _mxfp4,
    "gptq": _gptq,
    "awq": _awq,
}


def _kv_cache(body: Mapping[str, object]) -> str | None:
    """Format of the KV cache, or None. Forms: "FP8", {"num_bits": 8, "type": "float"}, null."""
    stated = body.get("kv_cache_scheme") or body.get("kv_cache_quant_algo")
    if not stated:
        return None
    if isinstance(stated, Mapping):
        pair = stated.get("type", "int"), stated.get("num_bits")
        name = {("float", 8): "fp8", ("int", 8): "int8", ("float", 4): "nvfp4", ("int", 4): "int4"}.get(pair)
        if name is None:
            raise DeploymentError(
                f"kv_cache_scheme: {pair[1]}-bit {pair[0]} is not simulated; name a format with --kv-cache-dtype"
            )
        return name
    return format_named(str(stated)).name


def _text(config: Mapping[str, object]) -> Mapping[str, object]:
    """The language model's part of a config."""
    return next((config[key] for key in INNER if isinstance(config.get(key), Mapping)), config)


def expert_count(config: Mapping[str, object]) -> int:
    """Routed experts a layer, 0 where the config does not say."""
    for key in ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"):
        value = _text(config).get(key)
        if isinstance(value, int) and value > 0:
            return value
    return 0
