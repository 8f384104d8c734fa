"""Model types whose configuration class leaves fields at None that its model code cannot do without.

The values are a published model's, named beside each; models that are given with a configuration never see them.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

_ROTATION = {"rope_type": "default", "rope_theta": 10000.0}

for _model_type, _defaults in {
    # dots.llm1: 128 routed and 2 shared experts, 6 of them for a token, no groups
    "dots1": dict(n_routed_experts=128, n_shared_experts=2, num_experts_per_tok=6, n_group=1, topk_group=1),
    # GLM-4.5-Air: 4096 wide, 96 heads of 128
    "glm4_moe": dict(head_dim=128),
    # xlnet-base-cased: relative positions are worked out in fp32 and multiplied with the weights as they are
    "xlnet": dict(dtype="float32"),
    # deberta-base: biases of queries and values are fp32 whatever the rest is, and are added to it as they are
    "deberta": dict(dtype="float32"),
    # fnet-base: the Fourier transforms of 16-bit numbers are no operator of torch
    "fnet": dict(dtype="float32"),
    # esm2_t6_8M_UR50D: 20 amino acids and what else may stand in a sequence
    "esm": dict(vocab_size=33, pad_token_id=1, mask_token_id=32),
    # wav2vec2-conformer-rope-large-960h-ft: letters
    "wav2vec2-conformer": dict(vocab_size=32),
    # both kinds of layer turn by the same base
    "cohere_compass_text": {
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), _ROTATION),
    },
}.items():
    register_model_profile(ModelProfile(model_type=_model_type, defaults=_defaults))
