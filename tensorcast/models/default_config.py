"""A configuration class's own defaults, made whole: what they leave at None is worked out as model code elsewhere does.

Most of a class's defaults are not a published model's values, but some model of the type they must be: for looking at
every type there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tensorcast.pipelines import get_model_profile

DERIVED: Mapping[str, Callable[[Any], Any]] = {
    "num_key_value_heads": lambda c: c.num_attention_heads,
    "head_dim": lambda c: c.hidden_size // c.num_attention_heads,
    "num_experts_per_tok": lambda c: 2,
    "layer_types": lambda c: ["full_attention"] * c.num_hidden_layers,
    "pad_token_id": lambda c: 0,
}


def default_config(config_class: type, **fields: Any) -> Any:
    """An instance of `config_class`: its defaults, those of the type's profile, and DERIVED values for what is left at
    None. `fields` go before all of them."""
    config = config_class(**_nested(get_model_profile(config_class.model_type).defaults), **fields)
    for part in (config, *(getattr(config, name, None) for name in getattr(config_class, "sub_configs", None) or ())):
        for field, value in DERIVED.items():
            if part is not None and vars(part).get(field, field) is None:
                with suppress(AttributeError):  # the part has no such sizes, or one for each layer
                    setattr(part, field, value(part))
    return config


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as mappings inside mappings."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        *path, leaf = name.split(".")
        inside = found
        for part in path:
            inside = inside.setdefault(part, {})
        inside[leaf] = value
    return found
