"""Model types that transformers lists as language models and that cannot be traced faithfully: why."""

from __future__ import annotations

from tensorcast.errors import ModelError
from tensorcast.pipelines import ModelProfile, register_model_profile

_DRAFT = "a draft model: every layer reads keys and values of the model it drafts for, so it does not run alone"
_PATCHES = (
    "its large model reads patches of bytes, which end where a small model finds the next byte hard to guess: how many "
    "there are depends on the text, and costing one patch a byte would be another model"
)
_LOOP = (
    "its indexer picks blocks of keys in a loop over every token, by the values of a mask; "
    "that sparse attention is not modelled yet"
)
_SMALL_TEXT = {
    "text_config.hidden_size_per_layer_input": 0,
    "text_config.vocab_size_per_layer_input": 0,
    "text_config.enable_moe_block": False,
    "text_config.use_double_wide_mlp": False,
}


def _refuse(model_type: str, reason: str):
    def refuse(config) -> None:
        raise ModelError(f"{model_type}: {reason}")

    return refuse


for _model_type, _reason, _defaults in (
    ("blt", _PATCHES, {}),
    ("gemma4_assistant", _DRAFT, _SMALL_TEXT),
    ("gemma4_unified_assistant", _DRAFT, {}),
    ("qwen4_exp", _LOOP, {}),
    ("qwen4_exp_text", _LOOP, {}),
):
    _profile = ModelProfile(model_type=_model_type, config_patch=_refuse(_model_type, _reason), defaults=_defaults)
    register_model_profile(_profile)
