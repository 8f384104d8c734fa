"""T5Gemma 2: a decoder layer attends to its own tokens and to what the encoder read in one softmax.

Keys of both stand in one row, of which layers with a window see a part of the first and all of the second. Here each is
an attention of its own: the pairs, and the keys and values that are read, are the same.
"""

from __future__ import annotations

import torch

from tensorcast.layers.attention import attention_interface
from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current


def own_and_encoded(
    module, hidden_states, position_embeddings, merged_attention_mask, encoder_hidden_states, past_key_values, **options
):
    """forward of a T5Gemma2MergedAttention, hidden_states [batch, tokens, width] → the same, and no probabilities."""
    from transformers.models.t5gemma2 import modeling_t5gemma2 as code

    def heads(product, states):
        return product(states).view(*states.shape[:-1], -1, module.head_dim).transpose(1, 2)

    q, k, v = (heads(product, hidden_states) for product in (module.q_proj, module.k_proj, module.v_proj))
    q, k = code.apply_rotary_pos_emb(module.q_norm(q), module.k_norm(k), *position_embeddings)
    layer, across = module.layer_idx, past_key_values.cross_attention_cache
    k, v = past_key_values.self_attention_cache.update(k, v, layer)
    if past_key_values.is_updated.get(layer):
        far = across.layers[layer].keys, across.layers[layer].values
    else:
        keys, values = (heads(product, encoder_hidden_states) for product in (module.k_proj, module.v_proj))
        far = across.update(module.k_norm(keys), values, layer)
        past_key_values.is_updated[layer] = True
    near = {"is_causal": True, "sliding_window": module.sliding_window}
    mine, _ = attention_interface(module, q, k, v, scaling=module.scaling, **near)
    theirs, _ = attention_interface(module, q, *far, scaling=module.scaling, is_causal=False)
    return module.o_proj((mine + theirs).reshape(*hidden_states.shape[:-1], -1)), None, None


def no_mask(config, inputs_embeds, **options) -> torch.Tensor:
    """Something that masks can be put together of; the rule of each attention says which pairs count."""
    with current().suspended():
        return inputs_embeds.new_empty((1, 1, 1, 1))


_MASKS = ("create_causal_mask", "create_sliding_window_causal_mask", "create_bidirectional_mask")
register_model_profile(
    ModelProfile(
        model_type="t5gemma2",
        forwards={"T5Gemma2MergedAttention.forward": own_and_encoded, **dict.fromkeys(_MASKS, no_mask)},
        # of gemma-3-4b-it, whose tower it is: the class's own sizes do not go together
        defaults={"encoder.vision_config.image_size": 896, "encoder.vision_config.patch_size": 14},
    )
)
