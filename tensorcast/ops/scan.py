"""Linear attention and state-space layers: causal convolution, gated delta rule, scans of Mamba 1 and 2, recurrences.

Chunked forms count the algorithm that runs over chunks of `chunk` tokens with matrix products inside a chunk and one
state update between chunks; single-token steps are vector work on the state.
"""

from __future__ import annotations

import numpy as np

from tensorcast.ops.base import Work, dtype_name, item_bytes, operator

SELECTIVE_CHUNK = 2048  # tokens that a block of the Mamba-1 kernel scans together before it hands its state on


@operator("causal_conv1d(Tensor x, Tensor w, int kernel_size) -> Tensor", family="scan")
class CausalConv1d:
    """Depthwise causal convolution and activation over x [b, channels, s]."""

    def meta(x, w, kernel_size):
        return x.new_empty(x.shape)

    def dims(x, w, kernel_size):
        return {
            "elements": x.numel(),
            "sequences": x.shape[0],
            "channels": x.shape[1],
            "attrs": {"format": dtype_name(x), "rule": "conv"},
        }

    def work(d, a):
        size, k = item_bytes(a["format"]), a["kernel_size"]
        state = d["sequences"] * d["channels"] * k
        return Work(
            vector_flops=(2 * k + 4) * d["elements"],
            read_bytes=(d["elements"] + state + d["channels"] * k) * size,
            write_bytes=(d["elements"] + state) * size,
        )


@operator("regroup_heads(Tensor qkvz, Tensor ba) -> (Tensor, Tensor)", family="copy")
class RegroupHeads:
    """Projections that lie head by head, regrouped to queries, keys, values and gates: read once, written once."""

    def meta(qkvz, ba):
        return qkvz.new_empty(qkvz.shape), ba.new_empty(ba.shape)

    def dims(qkvz, ba):
        return {"elements": qkvz.numel() + ba.numel(), "attrs": {"format": dtype_name(qkvz)}}

    def work(d, a):
        nbytes = d["elements"] * item_bytes(a["format"])
        return Work(read_bytes=nbytes, write_bytes=nbytes)


@operator("delta_gates(Tensor beta, Tensor g) -> (Tensor, Tensor)", family="elementwise")
class DeltaGates:
    """Update strength sigmoid(b) and log decay -exp(A)·softplus(a + bias), fp32, of every head [b, s, heads]."""

    def meta(beta, g):
        return beta.new_empty(beta.shape), g.new_empty(g.shape)

    def dims(beta, g):
        attrs = {"format": dtype_name(beta), "decay_format": dtype_name(g)}
        return {"elements": beta.numel(), "heads": beta.shape[-1], "attrs": attrs}

    def work(d, a):
        size = item_bytes(a["format"])
        return Work(
            vector_flops=16 * d["elements"],  # sigmoid 4, softplus 8, bias, exponential, product
            read_bytes=2 * d["elements"] * size + 2 * d["heads"] * size,
            write_bytes=d["elements"] * (size + item_bytes(a["decay_format"])),
        )


@operator(
    "gated_delta_rule(Tensor q, Tensor k, Tensor v, Tensor g, int chunk, bool recurrent, str state_format, str math)"
    " -> Tensor",
    family="scan",
)
class GatedDeltaRule:
    """Gated delta rule over q, k [b, s, k_heads, dk], v [b, s, v_heads, dv] with a state [b, v_heads, dk, dv].

    Chunked, per value head and chunk of C tokens: k·kᵀ and q·kᵀ (2·C²·dk each), the triangular solve applied to values
    and decayed keys (2·C²·(dv + dk) as products with the inverse), the intra-chunk output (2·C²·dv), and three products
    with the state (2·C·dk·dv each).
    """

    def meta(q, k, v, g, chunk, recurrent, state_format, math):
        return v.new_empty(v.shape)

    def dims(q, k, v, g, chunk, recurrent, state_format, math):
        b, s, heads, dv = v.shape
        return {
            "b": b,
            "s": s,
            "heads": heads,
            "dk": q.shape[-1],
            "dv": dv,
            "io": q.numel() + k.numel() + 2 * v.numel() + 2 * g.numel(),
            "attrs": {"format": dtype_name(v), "rule": "kda" if g.dim() > 3 else "gdn"},
        }

    def work(d, a):
        return _state_scan_work(
            d, a, per_chunk=lambda c: 2 * c * c * (3 * d["dk"] + 2 * d["dv"]) + 6 * c * d["dk"] * d["dv"], step_flops=7
        )


@operator(
    "mamba2_scan(Tensor x, Tensor b_proj, Tensor c_proj, Tensor dt, int state, int chunk, bool recurrent,"
    " str state_format, str math) -> Tensor",
    family="scan",
)
class Mamba2Scan:
    """State-space duality scan over x [b, s, heads, dv] with B and C [b, s, groups, state].

    Chunked, per head and chunk of C tokens: C·Bᵀ (2·C²·state), its product with x (2·C²·dv), the chunk state and the
    output from the carried state (2·C·state·dv each).
    """

    def meta(x, b_proj, c_proj, dt, state, chunk, recurrent, state_format, math):
        return x.new_empty(x.shape)

    def dims(x, b_proj, c_proj, dt, state, chunk, recurrent, state_format, math):
        b, s, heads, dv = x.shape
        return {
            "b": b,
            "s": s,
            "heads": heads,
            "dk": state,
            "dv": dv,
            "io": 2 * x.numel() + b_proj.numel() + c_proj.numel() + dt.numel(),
            "attrs": {"format": dtype_name(x), "rule": "mamba2"},
        }

    def work(d, a):
        return _state_scan_work(
            d, a, per_chunk=lambda c: 2 * c * c * (d["dk"] + d["dv"]) + 4 * c * d["dk"] * d["dv"], step_flops=6
        )


@operator(
    "selective_scan(Tensor x, Tensor dt, Tensor b_proj, Tensor c_proj, int state, bool recurrent, str state_format)"
    " -> Tensor",
    family="scan",
)
class SelectiveScan:
    """Mamba-1 scan over x and dt [b, channels, s] with B and C [b, state, s], a state [b, channels, state], the gate
    and the skip inside.

    Vector work, 9 FLOP a token, channel and element of the state: decay (product, exponential), input (two products),
    update (product, sum), output (product, sum).
    """

    def meta(x, dt, b_proj, c_proj, state, recurrent, state_format):
        return x.new_empty(x.shape)

    def dims(x, dt, b_proj, c_proj, state, recurrent, state_format):
        b, channels, s = x.shape
        return {
            "b": b,
            "s": s,
            "heads": channels,
            "dk": state,
            "dv": 1,
            "io": 4 * x.numel() + b_proj.numel() + c_proj.numel(),
            "attrs": {"format": dtype_name(x), "rule": "mamba1", "chunk": SELECTIVE_CHUNK, "math": ""},
        }

    def work(d, a):
        states = d["b"] * d["heads"] * d["dk"] * item_bytes(a["state_format"])
        moved = d["io"] * item_bytes(a["format"])
        written = d["b"] * d["heads"] * d["s"] * item_bytes(a["format"])
        return Work(
            vector_flops=d["b"] * d["heads"] * d["s"] * (9 * d["dk"] + 16),
            read_bytes=moved - written + states,
            write_bytes=written + states,
        )


@operator(
    "decay_attention(Tensor q, Tensor k, Tensor v, int gates, int sums, int chunk, bool recurrent, str state_format,"
    " str math) -> Tensor",
    family="scan",
)
class DecayAttention:
    """Linear attention whose heads forget: q, k [b, s, heads, dk], v [b, s, heads, dv].

    A head carries a state [dk, dv + sums] from token to token.

    `gates`: numbers a token and head that decide what is forgotten (0: constants of the head); `sums`: columns of the
    state that add up keys, to divide by. Chunked, per head and chunk of C tokens: q·kᵀ (2·C²·dk), its product with v
    (2·C²·dv), the output from the carried state and what the chunk adds to it (2·C·dk·dv each).
    """

    def meta(q, k, v, gates, sums, chunk, recurrent, state_format, math):
        return v.new_empty(v.shape)

    def dims(q, k, v, gates, sums, chunk, recurrent, state_format, math):
        b, s, heads, dv = v.shape
        return {
            "b": b,
            "s": s,
            "heads": heads,
            "dk": q.shape[-1],
            "dv": dv,
            "io": q.numel() + k.numel() + 2 * v.numel() + gates * b * s * heads,
            "attrs": {"format": dtype_name(v), "rule": "decay"},
        }

    def work(d, a):
        state = d["b"] * d["heads"] * d["dk"] * a["sums"]
        sums = Work(
            vector_flops=4 * state * d["s"],
            read_bytes=state * item_bytes(a["state_format"]),
            write_bytes=state * item_bytes(a["state_format"]),
        )
        return sums + _state_scan_work(
            d, a, per_chunk=lambda c: 2 * c * c * (d["dk"] + d["dv"]) + 4 * c * d["dk"] * d["dv"], step_flops=5
        )


@operator(
    "channel_recurrence(Tensor x, Tensor y, int flops, int states, bool recurrent, str state_format) -> Tensor",
    family="scan",
)
class ChannelRecurrence:
    """A recurrence of every channel by itself: x and y [b, s, channels], `flops` vector FLOP an element.

    `states` numbers a channel are carried from token to token.
    """

    def meta(x, y, flops, states, recurrent, state_format):
        return x.new_empty(x.shape)

    def dims(x, y, flops, states, recurrent, state_format):
        b, s, channels = x.shape
        return {
            "b": b,
            "s": s,
            "heads": channels,
            "dk": states,
            "dv": 1,
            "io": 2 * x.numel() + y.numel(),
            "attrs": {"format": dtype_name(x), "rule": "channel", "chunk": SELECTIVE_CHUNK, "math": ""},
        }

    def work(d, a):
        elements, size = d["b"] * d["s"] * d["heads"], item_bytes(a["format"])
        states = d["b"] * d["heads"] * d["dk"] * item_bytes(a["state_format"])
        return Work(
            vector_flops=a["flops"] * elements,
            read_bytes=(d["io"] - elements) * size + states,
            write_bytes=elements * size + states,
        )


def _state_scan_work(d, a, per_chunk, step_flops):
    """Work of a scan: chunks of matrix products, or one vector step per token when `recurrent`."""
    size, state_size = item_bytes(a["format"]), item_bytes(a["state_format"])
    state = d["b"] * d["heads"] * d["dk"] * d["dv"]
    moved = d["io"] * size / 2 + state * state_size
    traffic = {"read_bytes": moved, "write_bytes": moved}
    if a["recurrent"]:
        return Work(vector_flops=step_flops * state * d["s"], **traffic)
    chunks = np.ceil(np.asarray(d["s"], dtype=float) / a["chunk"])
    return Work(
        matrix_flops=d["b"] * d["heads"] * chunks * per_chunk(a["chunk"]),
        vector_flops=d["b"] * d["heads"] * d["s"] * (a["chunk"] + d["dk"] + d["dv"]) * 4,
        workspace_bytes=4 * d["b"] * d["heads"] * chunks * d["dk"] * d["dv"],
        **traffic,
    )
