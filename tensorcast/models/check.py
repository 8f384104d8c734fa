"""Is this a configuration a model can be built from? Checked at the edge, before anything heavy is imported.

Every refusal is a `ModelError` of one line: the file, the field, the value, and what would work. The rules are only
those that every published configuration keeps; what a single family demands is left to its own config class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tensorcast.errors import ModelError
from tensorcast.models.native import config_fields

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where composite models keep the configuration of their language model."""

POSITIVE = (
    "num_hidden_layers", "num_layers", "n_layer", "n_layers", "hidden_size", "n_embd", "d_model", "vocab_size",
    "num_attention_heads", "n_head", "num_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "max_position_embeddings", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "qk_head_dim",
    "v_head_dim", "linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim",
    "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "global_head_dim", "num_global_key_value_heads",
    "attention_chunk_size",
)  # fmt: skip
"""Whole numbers above zero (or null, or a list of them with one entry a layer)."""

COUNTS = (
    "num_experts", "n_routed_experts", "num_local_experts", "n_shared_experts", "num_experts_per_tok", "top_k_experts",
    "moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
    "first_k_dense_replace", "num_nextn_predict_layers", "num_mtp_layers", "n_group", "topk_group", "index_topk",
    "index_n_heads", "index_head_dim", "sliding_window",
)  # fmt: skip
"""Whole numbers, zero allowed: dense members of a family publish zero experts, those without windows a window of 0."""

MOST = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers"), 10_000),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "num_key_value_heads"), 1 << 20),
}
"""Above these no model can be built in reasonable time; every other size must fit 31 bits, as tensor sizes do."""

FACTS = {
    "number of layers": (
        "num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers", "encoder_layers", "hybrid_override_pattern",
        "layers_block_type", "layer_types", "depth", "depths", "block_configs", "decoder_layers", "num_decoder_layers",
    ),
    "width": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "hidden_sizes", "model_dim", "emb_dim"),
}  # fmt: skip
"""What every transformer states under one of these names; a class default in its place would be another model."""

HEADS = (
    "num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "attention_heads",
    "decoder_attention_heads", "num_decoder_attention_heads",
)  # fmt: skip
HEAD_WIDTHS = ("head_dim", "attention_head_size", "kv_channels", "d_kv", "d_head", "qk_rope_head_dim")
VOCABULARY = ("vocab_size",)
TOWERS = re.compile("vision|visual|image|audio|speech|video")
HEADLESS = ("mamba", "rwkv", "xlstm", "falcon_mamba", "mamba2")
EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")
TOP_K = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k")
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type")


def read_json(path: Path) -> dict:
    """The JSON object in `path`; `ModelError` when it is missing, empty, cut short, not JSON or not an object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; give a folder with a config.json or the path of one") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path}: not a text file; a model configuration is JSON in UTF-8") from None
    except OSError as reason:
        raise ModelError(f"{path}: cannot be read ({reason.strerror}); give a readable config.json") from None
    if not text.strip():
        raise ModelError(f"{path}: the file is empty; download the model's config.json again")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise ModelError(f"{path}: {_json_reason(text, reason)}") from None
    if not isinstance(found, dict):
        raise ModelError(f'{path}: holds a JSON {_kind(found)}, not an object such as {{"model_type": …}}')
    return found


def check_config(config: Mapping, where: str) -> None:
    """Raise `ModelError` when `config`, which came from `where`, cannot describe a model."""
    if not config:
        raise ModelError(f"{where}: the configuration is empty; it needs at least model_type and its dimensions")
    if "_class_name" in config:
        _check_diffusers(config, where)
        return
    _check_identity(config, where)
    for prefix, part in parts(config, where):
        for field in POSITIVE:
            _check_whole(part, prefix, field, 1, where)
        for field in COUNTS:
            _check_whole(part, prefix, field, 0, where)
        _check_per_layer(part, prefix, where)
        _check_heads(part, prefix, where)
        _check_experts(part, prefix, where)
    _check_facts(config, where)


def parts(config: Mapping, where: str = "config") -> Iterator[tuple[str, Mapping]]:
    """The configuration itself and its language-model part, each with the dotted prefix of its fields."""
    yield "", config
    for name in TEXT_PARTS:
        if config.get(name) is None:
            continue
        if not isinstance(config[name], Mapping):
            raise ModelError(f"{where}: {name} is {config[name]!r}; it must be an object with the text model's fields")
        yield f"{name}.", config[name]


def text_part(config: Mapping) -> tuple[str, Mapping]:
    """The part that states the decoder's layers, with its prefix: `text_config` of a composite, else the whole."""
    *_, last = parts(config)
    return last


def _check_identity(config: Mapping, where: str) -> None:
    kind, architectures = config.get("model_type"), config.get("architectures")
    if kind is None and not architectures:
        raise ModelError(f"{where}: neither model_type nor architectures is given; state which model this is")
    if kind is not None and (not isinstance(kind, str) or not kind.strip()):
        raise ModelError(f'{where}: model_type is {kind!r}; it must be a name such as "llama"')
    names_ok = isinstance(architectures, list) and all(isinstance(name, str) and name for name in architectures)
    if architectures is not None and not names_ok:
        how = 'it must be a list such as ["LlamaForCausalLM"]'
        raise ModelError(f"{where}: architectures is {architectures!r}; {how}")


def _check_diffusers(config: Mapping, where: str) -> None:
    """A module of diffusers names its class; sizes it does not state are its class's own."""
    name = config["_class_name"]
    if not isinstance(name, str) or not name.isidentifier():
        raise ModelError(f'{where}: _class_name is {name!r}; it must be a name such as "FluxTransformer2DModel"')
    if name.endswith("Pipeline"):
        what = f"describes the pipeline {name}, not one of its modules"
        raise ModelError(f"{where}: {what}; give the pipeline's folder, or the configuration of its denoiser")
    for field in POSITIVE:
        if field != "num_layers" and not isinstance(config.get(field), list):
            _check_whole(config, "", field, 1, where)


def _check_whole(part: Mapping, prefix: str, field: str, least: int, where: str) -> None:
    value = part.get(field)
    if value is None:
        return
    kind = "a positive whole number" if least else "a whole number, zero or more"
    for item in value if isinstance(value, list) and value else [value]:
        if isinstance(item, bool) or not isinstance(item, int):
            fix = f"; write {item} without quotes" if isinstance(item, str) and item.strip().isdigit() else ""
            raise ModelError(f"{where}: {prefix}{field} is {item!r} ({_kind(item)}); it must be {kind}{fix}")
        if item < least:
            raise ModelError(f"{where}: {prefix}{field} is {item}; it must be {kind}")
        most = MOST.get(field, (1 << 31) - 1)
        if item > most:
            raise ModelError(f"{where}: {prefix}{field} is {item}; it must be {kind}, at most {most}")


def _check_per_layer(part: Mapping, prefix: str, where: str) -> None:
    layers = part.get("num_hidden_layers")
    for field in PER_LAYER:
        value = part.get(field)
        if value is None:
            continue
        if not isinstance(value, list):
            raise ModelError(f"{where}: {prefix}{field} is a {_kind(value)}; it must be a list with one entry a layer")
        if layers is not None and len(value) != layers:
            raise ModelError(
                f"{where}: {prefix}{field} has {len(value)} entries but {prefix}num_hidden_layers is {layers}; "
                "there must be one entry a layer"
            )


def _check_heads(part: Mapping, prefix: str, where: str) -> None:
    heads, shared = part.get("num_attention_heads"), part.get("num_key_value_heads")
    if not isinstance(heads, int):
        return
    for count in shared if isinstance(shared, list) else [shared]:
        if count is not None and heads % count:
            near = [n for n in range(1, heads + 1) if heads % n == 0]
            raise ModelError(
                f"{where}: {prefix}num_attention_heads {heads} is not a multiple of "
                f"{prefix}num_key_value_heads {count}; possible are {', '.join(map(str, near))}"
            )
    width, stated = part.get("hidden_size"), any(part.get(name) is not None for name in HEAD_WIDTHS)
    if not stated and isinstance(width, int) and width % heads:
        raise ModelError(
            f"{where}: {prefix}hidden_size {width} is not a multiple of {prefix}num_attention_heads {heads} "
            "and no head_dim is given; state head_dim"
        )


def _check_experts(part: Mapping, prefix: str, where: str) -> None:
    experts = next(((name, part[name]) for name in EXPERTS if isinstance(part.get(name), int)), None)
    chosen = next(((name, part[name]) for name in TOP_K if isinstance(part.get(name), int)), None)
    if experts and experts[1] and chosen and not chosen[1]:
        count = f"{experts[1]} {experts[0]}"
        raise ModelError(f"{where}: {prefix}{chosen[0]} is 0 of {count}; it must be at least 1")
    if experts and chosen and chosen[1] > experts[1]:
        raise ModelError(
            f"{where}: {prefix}{chosen[0]} {chosen[1]} is more than {prefix}{experts[0]} {experts[1]}; "
            f"a token can use at most {experts[1]} experts"
        )


def _check_facts(config: Mapping, where: str) -> None:
    """The dimensions that decide a model's size must be stated: a class default would silently be another model."""
    stated = [config, *(v for k, v in config.items() if isinstance(v, Mapping) and not TOWERS.search(k))]
    needed = dict(FACTS)
    kind = str(config.get("model_type", "")).lower()
    convolves = "depths" in config and config_fields(kind).isdisjoint(HEADS)
    if not convolves and not any(name in kind for name in HEADLESS):
        needed["number of attention heads"] = HEADS
    if any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ()):
        needed["vocabulary"] = VOCABULARY
    for fact, names in needed.items():
        if not any(part.get(name) is not None for part in stated for name in names):
            raise ModelError(f"{where}: {names[0]} is missing, so the {fact} is unknown; state {names[0]}")


def _json_reason(text: str, reason: Exception) -> str:
    if isinstance(reason, RecursionError):
        return "nested too deeply to be a model configuration"
    if not isinstance(reason, json.JSONDecodeError):
        return "holds a number of thousands of digits; download the file again"
    if text.lstrip().startswith("version https://git-lfs"):
        return "a git-lfs pointer, not the file itself; run `git lfs pull` in that folder"
    if text.lstrip().startswith("<"):
        return "an HTML page, not JSON; download the raw config.json"
    if reason.pos >= len(text.rstrip()) or reason.msg.startswith("Unterminated"):
        return f"the file ends in the middle (line {reason.lineno}); it was cut short, download it again"
    return f"not JSON: {reason.msg} at line {reason.lineno}, column {reason.colno}"


def _kind(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
