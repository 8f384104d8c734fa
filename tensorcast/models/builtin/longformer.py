"""Longformer and LED: tokens attend within a window, and to the few tokens that the caller marks as global.

Their encoders look into the mask for global tokens. None are marked here, as in their own code when the caller says
nothing; each would cost one more row and one more column of attention, and projections of its own.
"""

from __future__ import annotations

import torch

from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current

NOTE = "attention within the window alone: no token is marked as global, and the products for such are not counted"


def through_layers(layers, hidden_states, padding: torch.Tensor):
    """hidden_states [batch, tokens, width] after all layers; `padding` [batch, tokens] is below 0 where it is."""
    notes = current().model.notes
    if NOTE not in notes:
        notes.append(NOTE)
    for layer in layers:
        hidden_states = layer(
            hidden_states, attention_mask=padding, is_index_masked=padding < 0, is_index_global_attn=None,
            is_global_attn=False,
        )[0]  # fmt: skip
    return hidden_states


def longformer_encoder(module, hidden_states, attention_mask=None, padding_len=0, **options):
    """forward of a LongformerEncoder, hidden_states [batch, tokens padded to whole windows, width]."""
    from transformers.models.longformer.modeling_longformer import LongformerBaseModelOutput

    hidden_states = through_layers(module.layer, hidden_states, attention_mask)
    return LongformerBaseModelOutput(last_hidden_state=hidden_states[:, : hidden_states.shape[1] - padding_len])


def led_encoder(module, input_ids=None, attention_mask=None, **options):
    """forward of an LEDEncoder, input_ids [batch, tokens]."""
    from transformers.models.led.modeling_led import LEDEncoderBaseModelOutput

    embedded = module.embed_tokens(input_ids)
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    padded, _, mask, embedded = module._pad_to_window_size(
        input_ids=input_ids, attention_mask=mask, inputs_embeds=embedded, pad_token_id=module.config.pad_token_id
    )
    start = module.layernorm_embedding(embedded + module.embed_positions(embedded.shape[:-1]))
    lowest = torch.finfo(embedded.dtype).min
    states = through_layers(module.layers, start, (1 - mask).to(embedded.dtype) * lowest)
    return LEDEncoderBaseModelOutput(last_hidden_state=states[:, : states.shape[1] - padded])


for _model_type, _forward in {
    "longformer": ("LongformerEncoder.forward", longformer_encoder),
    "led": ("LEDEncoder.forward", led_encoder),
}.items():
    register_model_profile(ModelProfile(model_type=_model_type, forwards=dict([_forward])))
