"""Changes to a configuration asked for by the user: `--set KEY=VALUE` and `--layers N`."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping

from tensorcast.errors import InputError, near_names
from tensorcast.models.check import TEXT_PARTS

DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
BLOCK_LISTS = (
    *DEPTH, "depth", "dit_depth", "mmdit_layers", "num_single_layers", "num_refiner_layers", "n_refiner_layers",
    "num_decoder_layers", "num_mmdit_layers", "num_single_dit_layers", "num_visual_blocks", "num_text_blocks",
    "num_layerwise_text_blocks", "num_refiner_text_blocks",
)  # fmt: skip
"""Fields that state how long a list of blocks of a denoiser is; one may have several lists."""
STACK = "num_layers_per_stack"
"""Field of stacks that run several times: the layers held, of which the fields of DEPTH count every run."""
SAME_DEPTH = ("num_blocks",)
"""Fields that repeat the depth in some configurations and say something else in others."""
PER_LAYER = (
    "layer_types", "mlp_layer_types", "layers_block_type", "block_configs", "hybrid_override_pattern", "moe_layer_freq",
    "attn_type_list", "indexer_types", "compress_ratios", "attn_layer_pattern", "hybrid_layer_pattern",
    "no_rope_layers", "sliding_window_pattern_list", "intermediate_size", "num_key_value_heads", "use_index_layers",
)  # fmt: skip
"""Fields that may hold one entry a layer (a list, or one letter a layer)."""
LAYER_NUMBERS = (
    "moe_layers", "full_attn_idxs", "mlp_only_layers", "full_attention_layers", "dual_attention_layers", "vace_layers",
)  # fmt: skip
"""Fields that may hold the numbers of some layers."""


def parse_override(text: str) -> tuple[str, object]:
    """`a.b=3` → ("a.b", 3): the value is JSON, or a plain string where it is not."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"--set {text!r}: write KEY=VALUE, for example num_hidden_layers=4")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value.strip()


def apply_overrides(config: Mapping, overrides: Mapping[str, object], name: str) -> dict:
    """A copy of `config` with each dotted key of `overrides` replaced; an unknown key is an `InputError`."""
    changed = copy.deepcopy(dict(config))
    for key, value in overrides.items():
        *path, last = key.split(".")
        target = changed
        for step in path:
            target = target.get(step) if isinstance(target, dict) else None
        if not isinstance(target, dict) or (last not in target and not _has_field(target, last)):
            raise InputError(_unknown_key(changed, key, name))
        target[last] = copy.deepcopy(value)
    return changed


def keep_layers(config: Mapping, layers: int, name: str) -> dict:
    """A copy of `config` with the first `layers` decoder layers only, and every per-layer list cut to match.

    Of a denoiser, every list of blocks is cut to `layers` at most.
    """
    if isinstance(layers, bool) or not isinstance(layers, int) or layers < 1:
        raise InputError(f"layers is {layers!r}; it must be a positive whole number")
    changed = copy.deepcopy(dict(config))
    part = next((changed[key] for key in TEXT_PARTS if isinstance(changed.get(key), dict)), changed)
    lists = _block_lists(part) if "_class_name" in part else {}
    depth = max(lists.values()) if lists else depth_of(part)
    if depth is None:
        raise InputError(f"layers={layers}: the configuration of {name} does not state its number of layers")
    runs = depth // part[STACK] if isinstance(part.get(STACK), int) else 1
    depth //= runs
    if layers > depth:
        raise InputError(f"layers={layers}: {name} has {depth} layers; give 1 to {depth}")
    for field in PER_LAYER:
        value = part.get(field)
        if isinstance(value, (list, str)) and len(value) >= depth:
            part[field] = value[:layers]
    for field in LAYER_NUMBERS:
        if isinstance(part.get(field), list):
            part[field] = [number for number in part[field] if number < layers]
    for field in DEPTH:
        if part.get(field) is not None:
            part[field] = layers * runs
    part.update({field: layers for field in (STACK, *SAME_DEPTH) if part.get(field) == depth})
    part.update({field: min(blocks, layers) for field, blocks in lists.items()})
    return changed


def _block_lists(part: Mapping) -> dict[str, int]:
    """Field → blocks of every list of a denoiser, those that its class states where the configuration does not."""
    from tensorcast.diffusion.pipelines import class_numbers

    stated = {**class_numbers(str(part["_class_name"])), **part}
    return {field: stated[field] for field in BLOCK_LISTS if isinstance(stated.get(field), int)}


def depth_of(part: Mapping) -> int | None:
    """The number of decoder layers a configuration states, or None."""
    for field in DEPTH:
        if isinstance(part.get(field), int):
            return part[field]
    for field in ("hybrid_override_pattern", "layers_block_type", "layer_types", "block_configs"):
        if isinstance(part.get(field), (list, str)):
            return len(part[field])
    return None


def _has_field(part: Mapping, field: str) -> bool:
    """Whether the config class (or the class) of `part` has `field` although the published file leaves it out."""
    from tensorcast.diffusion.pipelines import class_fields
    from tensorcast.models.native import config_fields

    kind = part.get("model_type")
    if kind is None and "_class_name" in part:
        return field in class_fields(str(part["_class_name"]))
    return isinstance(kind, str) and field in config_fields(kind)


def _unknown_key(config: Mapping, key: str, name: str) -> str:
    keys = list(_dotted(config))
    last = key.rpartition(".")[2]
    near = [known for known in keys if known.rpartition(".")[2] == last] or near_names(key, keys)
    hint = f"; nearest: {', '.join(near[:3])}" if near else "; see them with `tensorcast show model NAME`"
    return f"unknown configuration key {key!r} of {name}{hint}"


def _dotted(config: Mapping, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        key = str(key)  # tables of labels have numbers
        yield prefix + key
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
