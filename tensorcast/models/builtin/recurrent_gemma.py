"""RecurrentGemma: a convolution and a gated recurrence of every channel, beside windows of attention.

Its code keeps states on the modules and goes token by token; here the recurrence is one kernel, and the cache is told
what a layer keeps.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

RECURRENCE_FLOPS = (
    32  # an element: two biased sigmoids, the decay from its logarithm, its complement's root, the update
)


def block_forward(module, input_states, use_cache=True, **kwargs):
    """forward of a recurrent block: input_states [b, s, hidden] → the same and None."""
    from tensorcast.layers.scan import STATE_FORMAT
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    gate = module.act_fn(module.linear_y(input_states))
    x = module.linear_x(input_states).transpose(1, 2)
    weight = module.conv_1d.weight
    x = call.causal_conv1d(x, weight, weight.shape[-1]).transpose(1, 2)
    if use_cache:
        channels, taps = x.shape[-1], weight.shape[-1] - 1
        kept = channels * (taps * item_bytes(dtype_name(x)) + item_bytes(STATE_FORMAT))
        current().tracer.note_cache("state", token_bytes=0, sequence_bytes=kept, window=0)
    return module.linear_out(module.rg_lru(x) * gate), None


def recurrence(module, x):
    """forward of the recurrence: x [b, s, channels]; both gates are products of every head by itself."""
    from tensorcast.layers.scan import STATE_FORMAT
    from tensorcast.ops.base import dtype_name
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    context, (b, s, channels) = current(), x.shape
    heads, width, _ = module.input_gate_weight.shape
    with context.suspended():  # batched products read and write with strides: no copy runs
        rows = x.reshape(b * s, heads, width).transpose(0, 1)
    fmt = dtype_name(x)
    gates = [call.bmm(rows, w, fmt, fmt) for w in (module.input_gate_weight, module.recurrent_gate_weight)]
    with context.suspended():
        both = gates[0].new_empty((b, s, 2 * channels))
    return call.channel_recurrence(x, both, RECURRENCE_FLOPS, 1, context.phase == "decode", STATE_FORMAT)


register_model_profile(
    ModelProfile(
        model_type="recurrent_gemma",
        forwards={"RecurrentGemmaRecurrentBlock.forward": block_forward, "RecurrentGemmaRglru.forward": recurrence},
    )
)
