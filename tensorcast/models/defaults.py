"""What a config class would silently put in where the configuration says nothing.

Most class defaults are not the published model's values. The dimensions every decoder has must be stated; for the
others, and for parts left out altogether, the default is used and said so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tensorcast.errors import ModelError
from tensorcast.models.check import COUNTS, POSITIVE, TEXT_PARTS

CORE = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
)  # fmt: skip
UNUSED = ("head_dim", "num_nextn_predict_layers", "num_mtp_layers", "max_position_embeddings")
"""Derived from other fields, or without effect on the main model's shapes."""


def require_stated(config: object, described: Mapping, name: str) -> tuple[str, ...]:
    """Notes about defaults that were used; `ModelError` where one would decide the size of the language model."""
    notes = []
    for prefix, part, stated in _parts(config, described):
        if stated is None:
            notes.append(f"{prefix} is not in the configuration: built with transformers' default dimensions")
            continue
        missing = dict(_missing(part, stated))
        text = prefix == "" or prefix in TEXT_PARTS
        core = next((field for field in CORE if field in missing), None)
        if core is not None and text:
            where = f"{prefix}.{core}" if prefix else core
            raise ModelError(
                f"{name}: {where} is missing, and the class default {missing[core]} may be another model; state {where}"
            )
        if missing:
            listed = ", ".join(f"{field}={value}" for field, value in missing.items())
            notes.append(f"{prefix or 'the configuration'} does not state {listed}: transformers' defaults")
    return tuple(notes)


def left_at_default(config: object) -> str:
    """A note about the dimensions that a configuration object leaves at its class's defaults; "" when there are none.

    They are what the user's object says, so they are used; most are no published model's.
    """
    left = [
        f"{prefix}.{field}={value}" if prefix else f"{field}={value}"
        for prefix, part, _ in _parts(config, {})
        for field, value in _missing(part, {})  # no object tells a value that was given from an equal default
    ]
    return f"{type(config).__name__} leaves {', '.join(left)} at the class's defaults" if left else ""


def _parts(config: object, described: Mapping) -> Iterator[tuple[str, object, Mapping | None]]:
    yield "", config, described
    for name in getattr(type(config), "sub_configs", None) or {}:
        part = getattr(config, name, None)
        if part is not None:
            stated = described.get(name)
            yield name, part, stated if isinstance(stated, Mapping) else None


def _missing(part: object, stated: Mapping) -> Iterator[tuple[str, int]]:
    """Dimension fields with a class default that `stated` does not give, under any of their names."""
    fields = getattr(type(part), "__dataclass_fields__", {})
    alias = getattr(type(part), "attribute_map", {})
    given = set(stated) | {alias[key] for key in stated if key in alias}
    given |= {key for key in alias if alias[key] in stated}
    for field in (*POSITIVE, *COUNTS):
        if field not in fields or field in given or field in UNUSED:
            continue
        default = fields[field].default
        if isinstance(default, int) and not isinstance(default, bool) and _value(part, field) == default:
            if stated.get(f"vt_{field}") == default:  # Kimi's vision towers spell their dimensions so
                continue
            yield field, default


def _value(part: object, field: str) -> object:
    """A field of a configuration; None for one that differs from layer to layer, which the object does not answer."""
    try:
        return getattr(part, field, None)
    except Exception:
        return None
