"""mla_module_prefill, mla_module_decode: whole latent attention modules with their projections.

Columns: model, gemm_dtype (format of the projections), dtype, kv_dtype, batch, q_len, kv_len, heads (of this rank). A
row is priced as the sum of its kernels, each with its own coefficients; the other sizes come from the model's published
configuration. Prefill expands keys and values from the latents; decode, and prefill by a kernel of absorbed attention,
moves the expansion into queries and results, two batched products over the heads.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.pricing import time_of
from tensorcast.cost.tables import Table, groups, ours, sizes, table
from tensorcast.errors import InputError
from tensorcast.ops.base import Work

WIDTHS = ("hidden_size", "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
ABSORBED = "MLA"  # in the name of a kernel that works on the latents themselves
KERNELS = {"FLASH_ATTN_MLA": "fa3_sglang", "FLASHINFER_MLA": "trtllm_gen", "TRTLLM_RAGGED": "trtllm_gen"}
"""Attention inside the module → the kernel of its coefficients, where it is not the default one."""
SMALL = (("vllm:FLASHMLA", 23), ("vllm:FLASH_ATTN*", 17), ("vllm:*", 1), ("*", 0))
"""Elementwise kernels around the attention (rotation, concatenation, copies) that each engine leaves unfused."""
FUSED_FROM, FUSED = 100, 1  # compute capability from which engines fuse them, all but so many
QUANTIZERS = {("trtllm", "nvfp4"): 2}
"""Kernels before a projection that its coefficients do not hold."""
ROUNDED = ("fp8_block",)
"""Formats to which a projection's input is rounded in one more pass, before Blackwell."""
GAP = 0.4e-6  # seconds a kernel that follows another in a captured graph starts sooner than one alone
LONGEST_START = 6.5e-6  # seconds; a longer start-up in a table of single kernels is the host's, not the kernel's


def module_seconds(phase: str, frame, hw) -> np.ndarray:
    """Seconds of every row of a table of modules."""
    seconds = np.empty(len(frame))
    for group, rows in _modules(frame):
        seconds[rows] = _module(phase, group, frame.iloc[rows].reset_index(drop=True), hw)
    return seconds


def _modules(frame):
    """Rows that share a model, formats and kernels."""
    keys = frame[["model", "gemm_dtype"]].astype(str).agg("\n".join, axis=1)
    for value in keys.unique():
        at = np.flatnonzero(keys == value)
        model, fmt = value.split("\n")
        for group, rows in groups(frame.iloc[at]):
            yield {**group, "model": model, "gemm_dtype": fmt}, at[rows]


def _widths(model: str) -> list[int]:
    from tensorcast.models.reference import resolve_model

    config = resolve_model(model).config
    config = config.get("text_config", config)
    missing = [name for name in WIDTHS if not isinstance(config.get(name), int)]
    if missing:
        raise InputError(
            f"{model} has no latent attention of known sizes: its configuration lacks {', '.join(missing)}"
        )
    if config.get("index_topk"):
        raise InputError(
            f"{model} chooses its keys with an indexer, which tables of latent attention modules leave out"
        )
    return [config[name] for name in WIDTHS]


def _module(phase: str, group, frame, hw) -> np.ndarray:
    parts = _parts(phase, group, frame, hw)
    touched = sum(np.asarray(call.work.read_bytes + call.work.write_bytes, dtype=float) for _, call in parts)
    return sum(_inside(c, replace(call, loop_bytes=touched), hw) for c, call in parts) + GAP


def _inside(coefficient, call: Call, hw) -> np.ndarray:
    """Seconds of a kernel among others in a captured graph."""
    time = time_of(call, coefficient, hw)
    host = max(0.0, coefficient["t0"] - LONGEST_START) if coefficient.family == "gemm" else 0.0
    return time.seconds - np.minimum(host + GAP, time.overhead)


def _parts(phase: str, group, frame, hw):
    """(coefficients, call) of every kernel of the module, in the order they run."""
    hidden, q_rank, rank, rope, nope, v = _widths(group["model"])
    b, q, heads = sizes(frame, "batch", "q_len", "heads")
    tokens, fmt = b * q, group["gemm_dtype"]
    absorbed = phase == "decode" or group.get("kernel", "").endswith(ABSORBED)

    def product(n, k, batch=None):
        return _product(hw, fmt if batch is None else "bfloat16", tokens, n, k, batch)

    down = [product(q_rank + rank + rope, hidden), _stream(hw, "norm", 4 * tokens * q_rank),
            _stream(hw, "norm", 4 * tokens * rank), product(heads * (nope + rope), q_rank)]  # fmt: skip
    kind = table("mla_decode" if absorbed else "mla_prefill")
    columns = frame.assign(kv_lora=rank, rope_dim=rope, qk_nope=nope, v_dim=v)
    same = {"dtype": group["dtype"], "kv_dtype": group.get("kv_dtype", ""), "backend": "module"}
    kernel = KERNELS.get(group.get("kernel", ""), "")
    attention = hw.coefficient(kind.family, kind.format(same), kernel), kind.call(columns, same, hw)
    if absorbed:
        inner = [product(rank, nope, heads), attention, product(v, rank, heads)]
    else:
        inner = [product(heads * (nope + v), rank), attention]
    label = f"{group.get('backend', '')}:{group.get('kernel', '')}"
    fused = (hw.compute_capability or 0) >= FUSED_FROM
    small = next(count for pattern, count in SMALL if fnmatchcase(label, pattern))
    small = min(small, FUSED) if fused else small
    small += QUANTIZERS.get((group.get("backend", ""), fmt), 0) * (3 if absorbed else 4)
    around = [_stream(hw, "elementwise", 4 * tokens * (heads + 1) * rope)] * small
    last = [product(hidden, heads * v)]
    if fmt in ROUNDED and not fused:
        widths = [hidden, q_rank, heads * v] + ([] if absorbed else [rank])
        around += [_without_start(_stream(hw, "norm", 3 * tokens * width)) for width in widths]
    return [*down, *inner, *last, *around]


def _product(hw, fmt: str, m, n, k, batch):
    """A projection, or the products of all heads."""
    import pandas as pd

    name = "gemm" if batch is None else "bmm"
    frame = pd.DataFrame({"m": m, "n": n, "k": k} | ({} if batch is None else {"bmm": batch}))
    kind, group = table(name), {"dtype": fmt}
    return hw.coefficient(name, ours(fmt)), kind.call(frame, group, hw)


def _stream(hw, family: str, nbytes):
    return hw.coefficient(family), Call(Work(0.0, 0.0, nbytes / 2, nbytes / 2), vector="bf16")


def _without_start(part):
    """A pass inside another kernel's launch."""
    coefficient, call = part
    return replace(coefficient, values=dict(coefficient.values) | {"t0": 0.0}), call


_COLUMNS = ("model", "gemm_dtype", "dtype", "batch", "q_len", "kv_len", "heads")
TABLES = {
    f"mla_module_{phase}": Table(
        f"mla_module_{phase}", _COLUMNS, seconds=lambda frame, hw, phase=phase: module_seconds(phase, frame, hw)
    )
    for phase in ("prefill", "decode")
}
