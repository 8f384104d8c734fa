"""Vision-language types whose decoders let tokens of images see each other in both directions, as their masks have it.

The processors are those of transformers.
"""

from __future__ import annotations

from typing import Any

from tensorcast.vision.rules import IMAGE, IMAGES, PROMPT, ImageRule, register_image_rule


def gemma4(text_config: Any, kind: str) -> str:
    """The larger models only, and of their layers those with a window only."""
    joins = text_config.use_bidirectional_attention == "vision" and kind == "sliding_attention"
    return IMAGE if joins else ""


for _model_type, _together in {
    "gemma3": lambda text_config, kind: IMAGE,
    "shieldgemma2": lambda text_config, kind: IMAGE,
    "gemma4": gemma4,
    "molmo2": lambda text_config, kind: IMAGES,
    "paligemma": lambda text_config, kind: PROMPT,  # the answer alone is read from left to right
}.items():
    register_image_rule(_model_type, ImageRule(together=_together))
