"""What the tensors of a checkpoint say of its quantisation, where its configuration says nothing.

Read from safetensors headers: weights stored as F8_E4M3 or F8_E5M2, and the scales beside them. A weight with scales is
multiplied with fp8 activations (quantised as they come, or with the `input_scale` that is stored); one without is only
stored so, and widened. Integer weights do not say how they are packed and scaled: they need a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

from tensorcast.errors import DeploymentError
from tensorcast.models.headers import Header
from tensorcast.quantization.checkpoint import ALL, CheckpointQuant
from tensorcast.quantization.schemes import QuantSpec

FLOAT8 = {"F8_E4M3": "fp8", "F8_E5M2": "fp8_e5m2"}
INTEGER = ("I8", "U8", "I4", "U4", "I32")
WEIGHT, SCALES, INPUT = ".weight", (".weight_scale_inv", ".weight_scale"), ".input_scale"


def read_stored(headers: Mapping[str, Header]) -> CheckpointQuant | None:
    """The quantisation that stored weights show, or None when all are 16 or 32 bits wide.

    DeploymentError for integer weights, and where weights are scaled in different ways.
    """
    for name, header in headers.items():
        packed = name.endswith((".qweight", ".weight_packed")) or (name.endswith(WEIGHT) and header.dtype in INTEGER)
        if packed and len(header.shape) > 1:
            raise DeploymentError(
                f"{header.file} stores {name} as {header.dtype}, and the configuration has no quantization_config that "
                f"says how; name the scheme with --quant, or say --quant none"
            )
    weights = {n.removesuffix(WEIGHT): h for n, h in headers.items() if n.endswith(WEIGHT) and len(h.shape) == 2}
    narrow = {path: header for path, header in weights.items() if header.dtype in FLOAT8}
    if not narrow:
        return None
    dtypes = {header.dtype for header in narrow.values()}
    if len(dtypes) > 1:
        raise DeploymentError(f"the checkpoint stores weights as {' and '.join(sorted(dtypes))}; {_ADVICE}")
    dtype = dtypes.pop()
    return CheckpointQuant(
        rules=((ALL, _spec(FLOAT8[dtype], narrow, headers)),),
        skip=tuple(path for path in weights if path not in narrow),
        source=f"tensors, {len(narrow)} weights stored as {dtype}",
        lm_head="lm_head" in narrow,
    )


_ADVICE = "the configuration has no quantization_config that explains it; name the scheme with --quant"
_BLOCKS = (128, 64, 32, 256, 512)


def _spec(fmt: str, weights: Mapping[str, Header], headers: Mapping[str, Header]) -> QuantSpec:
    """The one scheme that the scales of all `weights` have: none, one a tensor, one a row, or one a block."""
    scales = {path: _scale(path, headers) for path in weights}
    static = {f"{path}{INPUT}" in headers for path in weights}
    if {*scales.values()} == {None}:
        return QuantSpec(fmt, "bf16", weight_per_tensor=True)
    if None not in scales.values() and len(static) == 1:
        pairs = [(weights[path].shape, scale) for path, scale in scales.items()]
        options = {"dynamic": not static.pop()}
        if all(prod(scale) == 1 for _, scale in pairs):
            return QuantSpec(fmt, fmt, weight_per_tensor=True, **options)
        if all(scale in ((shape[0],), (shape[0], 1)) for shape, scale in pairs):
            return QuantSpec(fmt, fmt, **options)
        block = tuple(_block(dim, pairs) for dim in (0, 1))
        if all(block) and options["dynamic"]:
            return QuantSpec(fmt, fmt, weight_block=block, activation_group=block[1])
    shown = ", ".join(f"{path} {list(weights[path].shape)} by {scale}" for path, scale in list(scales.items())[:2])
    raise DeploymentError(f"the scales of the checkpoint's {fmt} weights follow no one scheme ({shown}); {_ADVICE}")


def _scale(path: str, headers: Mapping[str, Header]) -> tuple[int, ...] | None:
    return next((headers[path + name].shape for name in SCALES if path + name in headers), None)


def _block(dim: int, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> int | None:
    """The block size that gives every weight as many scales along `dim` as it has."""
    for size in _BLOCKS:
        if all(len(scale) == 2 and ceil(shape[dim] / size) == scale[dim] for shape, scale in pairs):
            return size
    return None
