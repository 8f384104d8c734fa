"""Switch and NLLB-MoE: encoder-decoders whose experts are a dict of modules behind a router.

Both send a token to a fixed number of experts that their configuration does not state: one in Switch, two in NLLB-MoE.
Their capacity, beyond which an expert leaves tokens out, is not reached by tokens that spread evenly.
"""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile

_PARTS = {"gate": "router", "shared_experts": None, "shared_experts_gate": None}


def _tokens_use(experts: int):
    def state(config) -> None:
        for part in (config, getattr(config, "encoder", None), getattr(config, "decoder", None)):
            if part is not None:
                part.num_experts_per_tok = experts

    return state


def two_of_them(block, hidden_states, padding_mask=None):
    """forward of an NllbMoeSparseMLP, hidden_states [batch, tokens, hidden]: its router reads rows of tokens."""
    rows = hidden_states.reshape(-1, hidden_states.shape[-1])
    block.router(rows)
    return block.experts(rows).reshape(hidden_states.shape)


register_model_profile(
    ModelProfile(
        model_type="switch_transformers",
        moe_module_name="SwitchTransformersSparseMLP",
        moe_field_names_override=_PARTS,
        config_patch=_tokens_use(1),
    )
)
register_model_profile(
    ModelProfile(
        model_type="nllb-moe",
        moe_module_name="NllbMoeSparseMLP",
        moe_field_names_override=_PARTS,
        config_patch=_tokens_use(2),
        moe_block_forward=two_of_them,
    )
)
