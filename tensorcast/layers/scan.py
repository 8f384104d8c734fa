"""Linear attention and state-space layers: the functions their code calls become one operator each.

What their code does between projections, convolution and scan (splitting heads apart, gates, decay) engines do inside
of those kernels, or in one kernel of its own where the decay of a delta rule needs one.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from tensorcast.layers.linear import product
from tensorcast.layers.patching import GlobalPatch
from tensorcast.layers.state import install, original_forward, state_of
from tensorcast.ops.base import dtype_name
from tensorcast.trace.context import current
from tensorcast.trace.library import call

# States are kept in fp32 by every engine: the recurrence sums many small terms.
STATE_FORMAT = "fp32"


OUTPUTS = ("out_proj", "o_proj", "linear_out")  # what scan layers call the product behind their scan


def is_scan(module: nn.Module) -> bool:
    """A state-space, linear-attention or short-convolution layer: a causal convolution of every channel by itself, and
    the product behind it."""
    convolved = any(isinstance(m, nn.Conv1d) and 1 < m.groups == m.in_channels for m in module.children())
    return convolved and any(isinstance(module._modules.get(name), nn.Linear) for name in OUTPUTS)


def install_scans(model) -> int:
    """Scan layers with a decay, their own or of a gate inside, and patches for the functions that such layers, and
    those with a short convolution alone, call. Returns how many."""
    count = 0
    for path, module in model.module.named_modules():
        if not is_scan(module) or not any(hasattr(part, "A_log") for part in (module, *module.children())):
            continue
        install(module, path, scan_forward)
        if hasattr(module, "fix_query_key_value_ordering"):
            module.__dict__["fix_query_key_value_ordering"] = _regroup(module.fix_query_key_value_ordering)
        count += 1
    model.patches += [GlobalPatch(re.compile(pattern), make) for pattern, make in _FUNCTIONS.items()]
    return count


def scan_forward(module, *args, **kwargs):
    """forward of a scan layer: its projections, convolution, scan and norm are operators, the rest is part of them."""
    with current().fused(), _Products(module):
        return original_forward(module, *args, **kwargs)


class _Products(torch.overrides.TorchFunctionMode):
    """Products that a scan layer writes with its weights in front of the tokens: those of time steps."""

    def __init__(self, module) -> None:
        super().__init__()
        self.linears = {id(m.weight): m for m in module.children() if isinstance(m, nn.Linear)}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _MATMULS:
            linear, y = self.linears.get(id(args[0])), args[1]
            if linear is not None:  # weight · x [b, inputs, s]
                with current().scope(state_of(linear).path):
                    return product(y.transpose(-1, -2), linear.weight, None, state_of(linear).quant).transpose(-1, -2)
            if (
                args[0].dim() == 4 and args[0].shape[1] == 1
            ):  # weights [heads, 1, outputs, inputs] · x [heads, b, inputs, s]
                return _by_head(args[0].squeeze(1), y)
        return func(*args, **(kwargs or {}))


_MATMULS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


def _by_head(weights, x):
    """weights [heads, outputs, inputs] · x [heads, b, inputs, s]: a product a head, over all sequences' tokens."""
    heads, b, inputs, s = x.shape
    with current().suspended():  # batched products read and write with strides: no copy runs
        tokens = x.transpose(-1, -2).reshape(heads, b * s, inputs)
    fmt = dtype_name(weights)
    y = call.bmm(tokens, weights.transpose(1, 2), fmt, fmt)
    return y.view(heads, b, s, -1).transpose(-1, -2)


def _regroup(original):
    """Projections that lie head by head are regrouped to queries, keys, values and gates by one kernel."""

    def regroup(mixed_qkvz, mixed_ba):
        call.regroup_heads(mixed_qkvz, mixed_ba)
        return original(mixed_qkvz, mixed_ba)

    return regroup


def _delta_rule(recurrent):
    def make(original, module_name):
        def rule(query, key, value, g, beta, chunk_size=64, output_final_state=False, **kwargs):
            step = recurrent or current().phase == "decode"  # draft tokens are verified one after another
            call.delta_gates(beta, g)
            out = call.gated_delta_rule(query, key, value, g, chunk_size, step, STATE_FORMAT, dtype_name(value))
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
        state, step = B.shape[-1], current().phase == "decode"
        out = call.mamba2_scan(x, B, C, dt, state, 1 if step else chunk_size, step, STATE_FORMAT, dtype_name(x))
        if return_final_states:
            return out, _state(x, x.shape[0], x.shape[2], x.shape[3], state)
        return out

    return scan


def _selective_scan(original, module_name):
    """Mamba-1: x, dt [b, channels, s], A [channels, state], B, C [b, state, s]; the gate z and the skip are inside."""

    def scan(x, dt, A, B, C, *args, return_last_state=False, **kwargs):
        step = current().phase == "decode"
        out = call.selective_scan(x, dt, B, C, A.shape[-1], step, STATE_FORMAT)
        return (out, _state(x, *x.shape[:2], A.shape[-1])) if return_last_state else out

    return scan


def _selective_step(original, module_name):
    def step(state, x, dt, A, B, C, *args, **kwargs):
        x, dt, B, C = (t.unsqueeze(-1) for t in (x, dt, B, C))
        return call.selective_scan(x, dt, B, C, A.shape[-1], True, STATE_FORMAT).squeeze(-1)

    return step


def _mamba_step(original, module_name):
    def step(state, x, dt, A, B, C, *args, **kwargs):
        one = (t.unsqueeze(1) for t in (x, B, C, dt[..., :1].squeeze(-1)))
        x, B, C, dt = one
        return call.mamba2_scan(x, B, C, dt, B.shape[-1], 1, True, STATE_FORMAT, dtype_name(x)).squeeze(1)

    return step


# Functions of transformers' own code, by their names, which models of a kind share.
_FUNCTIONS = {
    r"^(torch_chunk_gated_delta_rule|chunk_kimi_delta_attention)$": _delta_rule(False),
    r"^(torch_recurrent_gated_delta_rule|recurrent_kimi_delta_attention)$": _delta_rule(True),
    r"^causal_conv1d_fn$": _convolution,
    r"^causal_conv1d_update$": _convolution_step,
    r"^mamba2_chunk_scan$": _mamba_chunks,
    r"^mamba2_selective_state_update$": _mamba_step,
    r"^mamba_selective_scan$": _selective_scan,
    r"^mamba_selective_state_update$": _selective_step,
}
