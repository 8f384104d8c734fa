"""What a class of transformers is run as: a decoder, an encoder, or an encoder in front of a decoder. No torch.

Told by what its forward takes and by what the configuration says, whether those are read from the library's files (for
a cached answer) or from the imported class.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tensorcast.models import native

LANGUAGE = ("prefill", "decode")
FORWARD = ("forward",)
CACHES = ("past_key_values", "cache_params", "state", "cache")
"""What forward calls that which it remembers of earlier tokens."""
CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
TOKENS, FRAMES, SAMPLES, IMAGES = "tokens", "frames", "samples", "images"
UNITS = {
    "input_ids": TOKENS, "inputs": TOKENS, "input_features": FRAMES, "input_values": SAMPLES, "audio_values": FRAMES,
    "flattened_patches": IMAGES, "pixel_values": IMAGES, "pixel_values_videos": IMAGES,
}  # fmt: skip
"""Main input of forward → what the length of the input counts; the first that forward takes decides."""
TABLES = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "")
"""Tables of transformers that name the class of a configuration without `architectures`, in the order asked."""


@dataclass(frozen=True)
class Reading:
    """How a model reads its input: what --input-len counts, its only possible value (0 = any), and whether an encoder
    reads it, in front of a decoder that starts from nothing."""

    unit: str = TOKENS
    fixed: int = 0
    encoder: bool = False


PLAIN = Reading()
"""As a decoder reads: tokens, as many as are given."""


@dataclass(frozen=True)
class Role:
    """The phases of a model and how it reads."""

    phases: tuple[str, ...] = LANGUAGE
    reading: Reading = PLAIN


def role_of(kind: str, architecture: str, arguments: Collection[str], config: Mapping[str, Any]) -> Role:
    """The role of class `architecture`, whose forward takes `arguments`, made from `config` of model type `kind`."""
    named = next((name for name in UNITS if name in arguments), "input_ids")
    cached = not set(CACHES).isdisjoint(arguments) or architecture in causal_classes()
    encoder = cached and "decoder_input_ids" in arguments and bool(_says(kind, config, "is_encoder_decoder"))
    phases = LANGUAGE if encoder or (cached and not encodes_only(kind, architecture, config)) else FORWARD
    if phases == LANGUAGE and not encoder:
        return Role()
    return Role(phases, Reading(*_length(kind, named, config), encoder))


def stated_role(config: Mapping[str, Any]) -> Role | None:
    """The role of a configuration of transformers' own, read from its files; None where only the class itself knows."""
    kind = config.get("model_type")
    architecture = class_name(config)
    causal = architecture.endswith(CAUSAL_ENDINGS) or architecture in causal_classes()
    if causal and not encodes_only(kind or "", architecture, config):
        return Role()
    if kind is None or not native.is_native(kind):
        return None
    arguments = native.forward_arguments(kind, architecture)
    return role_of(kind, architecture, arguments, config) if arguments else None


def class_name(config: Mapping[str, Any]) -> str:
    """The class that a configuration is built with: `architectures[0]`, or the first that transformers lists."""
    architectures, kind = config.get("architectures"), config.get("model_type")
    if architectures:
        return architectures[0]
    listed = (native.classes_of(table).get(kind, ("",))[0] for table in tables_for(kind or "", config))
    return next((name for name in listed if name), "")


def base_class(kind: str) -> str:
    """The class without a head that transformers has for a model type; "" where it has none."""
    return native.classes_of("").get(kind, ("",))[0]


def tables_for(kind: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """TABLES in the order that the configuration asks for: one of an encoder-decoder is not for its decoder alone."""
    if _says(kind, config, "is_encoder_decoder"):
        return tuple(sorted(TABLES, key=lambda table: "SEQ" not in table))
    return TABLES[1:] if encodes_only(kind, "", config) else TABLES


def encodes_only(kind: str, architecture: str, config: Mapping[str, Any]) -> bool:
    """Whether a class that could be a decoder runs as an encoder: `is_decoder` is false, as in every masked model, or
    there is no such field and its type is listed as a masked language model alone."""
    decoder, masked = _says(kind, config, "is_decoder"), kind in native.classes_of("MASKED_LM")
    if decoder or _says(kind, config, "is_encoder_decoder"):
        return False
    if decoder is None:
        return masked and kind not in native.classes_of("CAUSAL_LM")
    return masked or architecture.endswith(("Encoder", "EncoderModel"))


def causal_classes() -> frozenset[str]:
    """Every class that transformers lists as a causal language model."""
    return frozenset(name for names in native.classes_of("CAUSAL_LM").values() for name in names)


def _length(kind: str, named: str, config: Mapping[str, Any]) -> tuple[str, int]:
    """(unit, the only length) of the main input `named`."""
    if UNITS[named] == IMAGES:
        return IMAGES, 1
    bins, positions = (_says(kind, config, name) for name in ("num_mel_bins", "max_source_positions"))
    if named == "input_features" and bins and positions:  # a spectrogram padded to one length, whatever was said
        return FRAMES, int(positions)
    most = _says(kind, config, "max_length")
    if named == "input_values" and bins and most:
        return FRAMES, int(most)
    return UNITS[named], 0


def _says(kind: str, config: Mapping[str, Any], field: str) -> Any:
    """What the configuration says of `field`, or its class's default; None where neither does."""
    return config[field] if config.get(field) is not None else native.field_default(kind, field)
