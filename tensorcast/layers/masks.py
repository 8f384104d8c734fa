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
_FUNCTIONS = re.compile(r"^create_(\w+_)?mask$")


def install_masks(model) -> None:
    """Replace the mask functions of code that does not use the attention interface."""
    model.patches.append(GlobalPatch(_FUNCTIONS, _mask))


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
