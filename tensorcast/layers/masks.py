"""Attention masks for models whose own code adds one to its scores.

Models that call transformers' attention interface need none: our rule says which pairs count. The others get a mask of
the right shape, which costs what their code does with it; making it costs nothing, as it is made once for all layers.
"""

from __future__ import annotations

import re
import sys

from tensorcast.layers.patching import GlobalPatch
from tensorcast.trace.context import current

INTERFACE_TABLE = "ALL_ATTENTION_FUNCTIONS"
# Recurrent layers mask padding alone, of which there is none.
_FUNCTIONS = re.compile(r"^create_(?!recurrent)(\w+_)?mask$")

LONGEST = 1 << 24
"""Tokens that a causal mask kept as a buffer has room for: code that slices one out of it runs at every length."""


def install_masks(model) -> None:
    """Replace the mask functions of code that does not use the attention interface, and widen masks kept as buffers."""
    for module in model.module.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and _is_square(buffer.shape):
                module._buffers[name] = buffer.new_empty(1).expand(1, 1, LONGEST, LONGEST)
    model.patches.append(GlobalPatch(_FUNCTIONS, _mask))


def _is_square(shape) -> bool:
    return len(shape) == 4 and shape[0] == shape[1] == 1 and shape[2] == shape[3] > 1


def _mask(original, module_name):
    if INTERFACE_TABLE in vars(sys.modules[module_name]):
        return original

    def mask(config, inputs_embeds, attention_mask=None, past_key_values=None, encoder_hidden_states=None, **kwargs):
        batch, tokens = inputs_embeds.shape[:2]
        if encoder_hidden_states is not None:
            keys = encoder_hidden_states.shape[1]
        else:
            keys = tokens + (past_key_values.get_seq_length() if past_key_values is not None else 0)
        with current().suspended():
            return inputs_embeds.new_empty((batch, 1, tokens, keys))

    return mask
