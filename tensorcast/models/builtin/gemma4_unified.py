"""Gemma 4 without a tower: images are scaled to at most 280 patches of 48 pixels and filled up to as many."""

from __future__ import annotations

from math import sqrt
from typing import Any

from tensorcast.models.builtin.joined_images import gemma4
from tensorcast.vision.rules import ImageRule, Made, Sizes, register_image_rule

MOST_PATCHES = 280  # max_soft_tokens of Gemma4UnifiedImageProcessor


def patches_along(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Patches of `side` pixels along height and width; a side too short for one gets one."""
    scale = sqrt(MOST_PATCHES * side**2 / (size[0] * size[1]))
    height, width = (int(scale * length / side) for length in size)
    if not height:
        return 1, min(size[1] // size[0], MOST_PATCHES)
    return (height, width) if width else (min(size[0] // size[1], MOST_PATCHES), 1)


def made_of(config: Any, sizes: Sizes) -> Made:
    """pixel_values [images, 280, 3 · side²] and (x, y) of every patch, -1 where there is none."""
    side, positions = config.vision_config.model_patch_size, []
    for height, width in (patches_along(size, side) for size in sizes):
        at = [[x, y] for y in range(height) for x in range(width)]
        positions.append(at + [[-1, -1]] * (MOST_PATCHES - len(at)))
    return Made({"pixel_values": (len(sizes), MOST_PATCHES, 3 * side**2)}, {"image_position_ids": positions})


register_image_rule("gemma4_unified", ImageRule(make=made_of, source="Gemma4UnifiedImageProcessor", together=gemma4))
