"""linear_attention: op (gdn, kda, mamba2), phase (context, generation, verify), batch, seq_len and the layer's sizes.

Each row is one kernel: the scan over the heads' states, or the short convolution before it.
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.scan import convolution, scan
from tensorcast.cost.tables import Table, sizes
from tensorcast.ops.base import Work

CHUNK = 64  # tokens of a chunk of every delta rule kernel
MAMBA_CHUNK = 256  # the same of Mamba-2 where a row does not tell
STEP_FLOPS = {"mamba2": 6}  # FLOP a token and element of the state; 7 for delta rules

# The one kernel whose benchmark keeps states in two bytes an element, not four.
HALF_STATES = "fused_recurrent_gated_delta_rule"


def _rule(group) -> str:
    return group.get("op") or "gdn"


def _is_convolution(group) -> bool:
    return "conv1d" in group.get("kernel", "")


def _is_step(group) -> bool:
    return group.get("phase", "context") != "context"


def _format(group) -> str:
    """conv_qkv: queries, keys and values convolved by a launch each, as KDA's layers do."""
    name = _rule(group)
    if _is_convolution(group):
        name = "conv_qkv" if name == "kda" else "conv"
    return f"{name}_step" if _is_step(group) else name


def _call(frame, group, hw) -> Call:
    if _is_convolution(group):
        return _convolution(frame, group)
    return _step(frame, group) if _is_step(group) else _chunks(frame, group)


def _heads(frame, group):
    """(key heads, dk, value heads, dv); of Mamba-2 the groups, the state, the heads and their size."""
    if _rule(group) == "mamba2":
        return sizes(frame, "n_groups", "d_state", "nheads", "head_dim")
    return sizes(frame, "num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")


def _stream_bytes(b, s, k_heads, dk, heads, dv, rule):
    """Queries, keys, values, gates and the output. KDA decays every element of a key, the others a head."""
    gates = {"gdn": 2, "kda": 1 + dk, "mamba2": 1}[rule]
    return 2 * b * s * (2 * k_heads * dk + 2 * heads * dv + heads * gates)


def _chunks(frame, group) -> Call:
    b, s = sizes(frame, "batch", "seq_len")
    k_heads, dk, heads, dv = _heads(frame, group)
    rule = _rule(group)
    if rule == "mamba2":
        c = sizes(frame, "chunk_size")[0]
        c = np.where(c > 0, c, MAMBA_CHUNK)
        flops = 2 * c * c * (dk + dv) + 4 * c * dk * dv
    else:
        c = np.full_like(s, CHUNK)
        flops = 2 * c * c * (3 * dk + 2 * dv) + 6 * c * dk * dv
    states, streamed = 2 * b * heads * dk * dv * 4, _stream_bytes(b, s, k_heads, dk, heads, dv, rule)
    work = Work(
        matrix_flops=b * heads * np.ceil(s / c) * flops,
        read_bytes=(streamed + states) / 2,
        write_bytes=(streamed + states) / 2,
    )
    return scan(work, b * heads, s, chunk=c, states=states, math="bf16", loop_bytes=streamed + states)


def _step(frame, group) -> Call:
    b, s = sizes(frame, "batch", "seq_len")
    k_heads, dk, heads, dv = _heads(frame, group)
    rule, drafts = _rule(group), group["phase"] == "verify"
    one = b * heads * dk * dv * _state_bytes(group)
    written = one * s if drafts else one  # drafts may be taken back, so the state after each of them is kept
    streamed = _stream_bytes(b, s, k_heads, dk, heads, dv, rule)
    work = Work(
        vector_flops=STEP_FLOPS.get(rule, 7) * b * heads * dk * dv * s,
        read_bytes=one + streamed / 2,
        write_bytes=written + streamed / 2,
    )
    loop = streamed + one + (written if drafts else 0)  # without drafts a state is written where it was read
    return scan(work, b * heads, s, chunk=1, states=one + written, loop_bytes=loop)


def _state_bytes(group) -> int:
    """Bytes of a state's element in that kernel's benchmark."""
    return 2 if group.get("kernel") == HALF_STATES else 4


def _convolution(frame, group) -> Call:
    b, s, width = sizes(frame, "batch", "seq_len", "d_conv")
    channels = _channels(frame, group)
    states, streamed = 4 * b * channels * width, 4 * b * s * channels
    weight = 2 * channels * width
    work = Work(
        vector_flops=(2 * width + 4) * b * s * channels,
        read_bytes=(streamed + states) / 2 + weight,
        write_bytes=(streamed + states) / 2,
    )
    padded = (2 * width + 4) * b * channels * _padded(frame, group, s)
    return convolution(work, s, states=states, flops=padded, loop_bytes=streamed + states)


def _channels(frame, group):
    """Channels convolved: queries, keys and values; two benchmarks of the gated delta net leave all but keys out."""
    k_heads, dk, heads, dv = _heads(frame, group)
    keys_only = (_rule(group) == "gdn") & _per_channel(frame, group)
    return np.where(keys_only, k_heads * dk, 2 * k_heads * dk + heads * dv)


def _padded(frame, group, s):
    """Tokens of a channel that a kernel computes. Kernels that give a block of threads one channel of one sequence fill
    whole blocks, lose half a block at the start, and load element by element where lengths are no multiple of 8."""
    if _is_step(group):
        return s
    block = 512 if group.get("backend") == "trtllm" else 1024
    filled = block * (np.ceil(s / block) + 0.5) * np.where(s % 8, 1.3, 1.0)
    return np.where(_per_channel(frame, group), filled, 8 * np.ceil(s / 8))


def _per_channel(frame, group):
    """Rows of the CUDA kernels that work channel by channel: TensorRT-LLM's, and SGLang's up to 0.5.10."""
    old = group.get("backend") == "sglang" and "version" in frame.columns
    versions = frame["version"].astype(str) if old else [""] * len(frame)
    return np.array([group.get("backend") == "trtllm" or str(v).startswith("0.5.10") for v in versions])


# The first kernel of a format is the one that a machine runs when nobody names one.
KERNELS = (
    ("sglang:causal_conv1d*", "sglang"),
    ("vllm:causal_conv1d*", "vllm"),
    ("trtllm:causal_conv1d*", "trtllm"),
    ("sglang:chunk_gated_delta_rule", "fla"),
    ("trtllm:chunk_gated_delta_rule", "fla_trtllm"),
    ("*:chunk_gated_delta_rule", "fla"),
    ("*:chunk_kda", "fla"),
    ("*_flashinfer", "flashinfer"),
    ("*:flashkda_fwd", "flashkda"),
    ("*packed_decode", "packed"),
    ("*:fused_recurrent_*", "recurrent"),
    ("*:fused_sigmoid_gating_delta_rule_update", "gating"),
    ("*:fused_kda_decode", "packed"),
    ("*:kda_fused_decode", "packed"),
    ("*_dspark", "drafts"),
)

TABLES = {
    "linear_attention": Table(
        "linear_attention", ("op", "phase", "batch", "seq_len"), "scan", _format, _call, "scan", KERNELS
    ),
}
