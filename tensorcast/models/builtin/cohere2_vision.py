"""Command A Vision: images are cut into at most 12 square tiles, and seen once more as a whole."""

from __future__ import annotations

from typing import Any

from tensorcast.vision.rules import ImageRule, Made, Sizes, register_image_rule
from tensorcast.vision.tiles import least_enlarged

MOST_TILES = 12  # max_patches of Cohere2VisionImageProcessor


def made_of(config: Any, sizes: Sizes) -> Made:
    """pixel_values [tiles, 3, side, side] of all images."""
    side = config.vision_config.image_size
    return Made(pixels={"pixel_values": (sum(least_enlarged(size, side, MOST_TILES) for size in sizes), 3, side, side)})


register_image_rule("cohere2_vision", ImageRule(make=made_of, source="Cohere2VisionImageProcessor"))
