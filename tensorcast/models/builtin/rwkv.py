"""RWKV-4: time mixing is one kernel over channels; layers are scaled down once, when the model is loaded.

A layer keeps the last token of both of its mixings and, for every channel, a numerator, a denominator and a maximum.
transformers' code mixes up the sequences of a batch when it decodes one token of each, so that the mixings are ours.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

WKV_FLOPS = 35  # an element: four exponentials, three maxima, and the sums and products of output and state
STATES = 3


def time_mixing(module, hidden, state=None, use_cache=False):
    """forward of RwkvSelfAttention: hidden [b, s, hidden] → the same, and the state, which stays where it lies."""
    from tensorcast.layers.scan import STATE_FORMAT
    from tensorcast.ops.base import item_bytes
    from tensorcast.trace.context import current
    from tensorcast.trace.library import call

    before = _token_before(hidden)
    key = module.key(_mixed(hidden, before, module.time_mix_key))
    value = module.value(_mixed(hidden, before, module.time_mix_value))
    gate = module.receptance(_mixed(hidden, before, module.time_mix_receptance)).sigmoid()
    recurrent = current().phase == "decode"
    out = call.channel_recurrence(key, value, WKV_FLOPS, STATES, recurrent, STATE_FORMAT)
    if use_cache:
        _note(STATES * key.shape[-1] * item_bytes(STATE_FORMAT))
    return module.output(gate * out), state


def channel_mixing(module, hidden, state=None):
    """forward of RwkvFeedForward, as above."""
    before = _token_before(hidden)
    key = module.key(_mixed(hidden, before, module.time_mix_key)).relu().square()
    gate = module.receptance(_mixed(hidden, before, module.time_mix_receptance)).sigmoid()
    return gate * module.value(key), state


def _mixed(hidden, before, weight):
    """hidden · weight + before · (1 - weight), by element."""
    import torch

    return torch.lerp(before, hidden, weight)


def _token_before(hidden):
    """The token before each one; the first one's is a state. Kernels read it where it lies."""
    from tensorcast.ops.base import dtype_name, item_bytes
    from tensorcast.trace.context import current

    _note(hidden.shape[-1] * item_bytes(dtype_name(hidden)))
    with current().suspended():
        return hidden.new_empty(hidden.shape)


def _note(nbytes: float) -> None:
    from tensorcast.trace.context import current

    current().tracer.note_cache("state", token_bytes=0, sequence_bytes=nbytes, window=0)


def rescaled(module) -> None:
    """Done when the checkpoint is loaded: no step of serving pays for it."""
    module.layers_are_rescaled = not module.training


register_model_profile(
    ModelProfile(
        model_type="rwkv",
        forwards={
            "RwkvSelfAttention.forward": time_mixing,
            "RwkvFeedForward.forward": channel_mixing,
            "RwkvModel._rescale_layers": rescaled,
        },
        tp_plan={
            **dict.fromkeys(("*.attention.key", "*.attention.value", "*.attention.receptance"), "column"),
            **{"*.attention.output": "row", "*.feed_forward.key": "column", "*.feed_forward.value": "row"},
            "*.feed_forward.receptance": "replicated",  # a gate of the whole result
        },
    )
)
