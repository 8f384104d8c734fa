"""BigBird: block-sparse attention is for long inputs. Its code makes new, full attention modules at the first short
one, so a decoder, whose steps are one token, has full attention from then on."""

from __future__ import annotations

from tensorcast.pipelines import ModelProfile, register_model_profile


def full_when_decoding(config) -> None:
    if config.is_decoder:
        config.attention_type = "original_full"


register_model_profile(ModelProfile(model_type="big_bird", config_patch=full_when_decoding))
