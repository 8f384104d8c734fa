"""The algorithms of NVIDIA Model Optimizer: `quant_algo` of a checkpoint or of one layer in its `quantized_layers`.

Source: Model Optimizer `export/quant_utils.py` (names and scale layout) and vLLM `layers/quantization/modelopt.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tensorcast.errors import DeploymentError, near_names
from tensorcast.formats import format_named
from tensorcast.quantization.schemes import QuantSpec

ALGORITHMS = {
    "FP8": QuantSpec("fp8", "fp8", dynamic=False, weight_per_tensor=True),
    "FP8_PER_CHANNEL_PER_TOKEN": QuantSpec("fp8", "fp8"),
    "NVFP4": QuantSpec("nvfp4", "nvfp4"),
    "W4A16_NVFP4": QuantSpec("nvfp4", "bf16"),
    "W4A8_NVFP4_FP8": QuantSpec("nvfp4", "fp8", dynamic=False),
    "MXFP8": QuantSpec("mxfp8", "mxfp8"),
    "MXFP4": QuantSpec("mxfp4", "mxfp4"),
    "W4A8_MXFP4_FP8": QuantSpec("mxfp4", "fp8", dynamic=False),
    "W8A16": QuantSpec("int8", "bf16", scale="bf16"),
    "W8A8_SQ_PER_CHANNEL": QuantSpec("int8", "int8", dynamic=False),
    "W4A16_AWQ": QuantSpec("int4", "bf16", weight_group=128, scale="bf16"),
    "W4A8_AWQ": QuantSpec("int4", "fp8", weight_group=128, dynamic=False, scale="bf16"),
}
"""`quant_algo` of NVIDIA Model Optimizer; a stated group_size replaces the group of the int4 ones. The pre_quant_scale
of AWQ (2 bytes an input) is folded into the layer before, as engines do where they can, and not counted."""


def algorithm(name: object, group: object = None, zero_point: object = False) -> QuantSpec:
    """The spec of a `quant_algo`. Raises DeploymentError for an unknown one, or a group the format cannot have."""
    spec = ALGORITHMS.get(str(name).upper())
    if spec is None:
        near = near_names(str(name), ALGORITHMS)
        nearest = f"nearest: {', '.join(near)}; " if near else ""
        raise DeploymentError(
            f"modelopt: unknown quant_algo {name!r}; {nearest}we read MIXED_PRECISION, {', '.join(ALGORITHMS)}"
        )
    own = format_named(spec.weight).scale_block
    if own and group not in (None, own):
        raise DeploymentError(f"modelopt: {name} has groups of {own} by definition, not {group}")
    if zero_point:
        spec = replace(spec, weight_zero_point=True)
    return replace(spec, weight_group=int(group)) if spec.weight_group and group else spec


def layer_table(layers: object) -> tuple[tuple[tuple[str, QuantSpec], ...], bool]:
    """Rules of a `quantized_layers` table, and whether it lists lm_head."""
    if not isinstance(layers, Mapping) or not all(isinstance(v, Mapping) for v in layers.values()):
        raise DeploymentError("quantized_layers must map module names to {quant_algo, group_size}")
    keys = ("quant_algo", "group_size", "has_zero_point")
    rules = tuple((str(name), algorithm(*map(entry.get, keys))) for name, entry in layers.items())
    return rules, any(name.rpartition(".")[2] in ("lm_head", "head") for name in layers)
