"""X-MOD: every layer ends in a small adapter for the language of the text. A batch is taken to be of one language."""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile


def one_language(module, lang_ids, hidden_states):
    """lang_adapter of an XmodOutput, hidden_states [batch, tokens, hidden]: one adapter reads every token."""
    residual = hidden_states
    norm = module.adapter_layer_norm
    if norm is None and module.adapter_reuse_layer_norm:
        norm = module.LayerNorm
    normed = norm(hidden_states) if norm is not None else hidden_states
    adapter = next(iter(module.adapter_modules.values()))  # all are of one size
    return adapter(normed) + (normed if module.ln_before_adapter else residual)


register_model_profile(
    ModelProfile(
        model_type="xmod",
        forwards={"XmodOutput.lang_adapter": one_language},
        defaults={"default_language": "en_XX"},  # of facebook/xmod-base, the first language of the class
    )
)
