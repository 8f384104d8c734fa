"""What the structure of a vision-language model does not show: its processor's published settings, or its own rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorcast.catalog import Catalog, normalize_model_type
from tensorcast.errors import InputError

Sizes = tuple[tuple[int, int], ...]
"""(height, width) in pixels of every image of one request."""

IMAGE, IMAGES, PROMPT = "image", "images", "prompt"
"""Tokens that see each other in both directions: those of one image, those of all images, the whole prompt."""


@dataclass(frozen=True)
class Made:
    """Arguments of `get_image_features` for the images of one request, without their values.

    `pixels`: name → shape; `numbers`: name → nested lists of whole numbers, which the model's code reads.
    """

    pixels: Mapping[str, tuple[int, ...]]
    numbers: Mapping[str, list] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """`settings`: what the published preprocessor_config.json says beside the sizes that the configuration has.

    `make(config, sizes)`: in place of the processor of transformers, where that needs more than transformers.
    `source`: where either comes from. `together(text_config, kind)`: which tokens of a prompt with images see each
    other in both directions in decoder layers of a kind: IMAGE, IMAGES, PROMPT, or "" where all see earlier ones only.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    make: Callable[[Any, Sizes], Made] | None = None
    source: str = ""
    together: Callable[[Any, str], str] | None = None


IMAGE_RULES: Catalog[ImageRule] = Catalog("image rule", patterns=True, normalize=normalize_model_type)


def register_image_rule(model_type: str, rule: ImageRule, *, replace: bool = False) -> ImageRule:
    """Make `rule` known for a model type (a name, or a pattern with `*`)."""
    if not isinstance(rule, ImageRule):
        raise InputError(f"register_image_rule takes an ImageRule, not {rule!r:.80}")
    return IMAGE_RULES.register(model_type, rule, replace=replace)


def image_rule(model_type: str) -> ImageRule:
    """The rule of a model type; an empty one where none is registered."""
    from tensorcast.pipelines import load_builtin

    load_builtin()
    return IMAGE_RULES.find(model_type) or ImageRule()


def together(model, kind: str | None) -> str:
    """Which tokens of a prompt with images see each other in layers of `kind` (None: the usual one) of a model."""
    if not model.deployment.images:
        return ""
    rule = image_rule(model.blueprint.model_type)
    return rule.together(model.text_config, kind or "full_attention") if rule.together is not None else ""


def all_together(model) -> str:
    """The widest of `together` over the kinds of layers that a model has."""
    kinds = getattr(model.text_config, "layer_types", None) or (None,)
    found = {together(model, kind) for kind in kinds}
    return next((name for name in (PROMPT, IMAGES, IMAGE) if name in found), "")


def pairs_ahead(counts: tuple[int, ...], joined: str) -> int:
    """Pairs (query, later key) of a prompt whose images have `counts` tokens, beside the pairs with earlier keys."""
    counts = (sum(counts),) if joined == IMAGES else counts
    return sum(n * (n - 1) // 2 for n in counts) if joined in (IMAGE, IMAGES) else 0
