"""Linear attention and state-space layers: the functions their code calls become one operator each."""

from __future__ import annotations

import re

from tensorcast.layers.patching import GlobalPatch
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call

# States are kept in fp32 by every engine: the recurrence sums many small terms.
STATE_FORMAT = "fp32"


def install_scans(model) -> int:
    """Patches for the scan functions in the model's code. Returns how many modules hold such a layer."""
    count = sum(hasattr(m, "A_log") for m in model.module.modules())
    if count:
        model.patches += [
            GlobalPatch(re.compile(r"^torch_chunk_gated_delta_rule$"), _delta_rule(False)),
            GlobalPatch(re.compile(r"^torch_recurrent_gated_delta_rule$"), _delta_rule(True)),
            GlobalPatch(re.compile(r"^causal_conv1d_fn$"), _convolution),
            GlobalPatch(re.compile(r"^causal_conv1d_update$"), _convolution_step),
            GlobalPatch(re.compile(r"^mamba2_chunk_scan$"), _mamba_chunks),
            GlobalPatch(re.compile(r"^mamba2_selective_state_update$"), _mamba_step),
        ]
    return count


def _delta_rule(recurrent):
    def make(original, module_name):
        def rule(query, key, value, g, beta, chunk_size=64, output_final_state=False, **kwargs):
            out = call.gated_delta_rule(query, key, value, g, chunk_size, recurrent, STATE_FORMAT, dtype_name(value))
            b, _, heads, dv = value.shape
            return out, _state(value, b, heads, query.shape[-1], dv) if output_final_state else None

        return rule

    return make


def _state(like, *shape):
    """A recurrent state: resident memory like the KV cache, so it is made unseen."""
    with current().suspended():
        return like.new_empty(shape)


def _convolution(original, module_name):
    def conv(hidden_states, weight, *args, **kwargs):
        return call.causal_conv1d(hidden_states, weight, weight.shape[-1])

    return conv


def _convolution_step(original, module_name):
    def conv(hidden_states, conv_state, weight, *args, **kwargs):
        return call.causal_conv1d(hidden_states, weight, weight.shape[-1])

    return conv


def _mamba_chunks(original, module_name):
    def scan(x, dt, A, B, C, chunk_size, *args, return_final_states=False, **kwargs):
        state = B.shape[-1]
        out = call.mamba2_scan(x, B, C, dt, state, chunk_size, False, STATE_FORMAT, dtype_name(x))
        if return_final_states:
            return out, _state(x, x.shape[0], x.shape[2], x.shape[3], state)
        return out

    return scan


def _mamba_step(original, module_name):
    def step(state, x, dt, A, B, C, *args, **kwargs):
        one = (t.unsqueeze(1) for t in (x, B, C, dt[..., :1].squeeze(-1)))
        x, B, C, dt = one
        return call.mamba2_scan(x, B, C, dt, B.shape[-1], 1, True, STATE_FORMAT, dtype_name(x)).squeeze(1)

    return step
