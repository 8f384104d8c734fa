"""Muse Glimmer and Spark: images of at most 4,096 merged patches, in the whole numbers nearest to their own shape."""

from __future__ import annotations

from itertools import product
from math import ceil, floor, sqrt
from typing import Any

from tensorcast.vision.rules import ImageRule, Made, Sizes, register_image_rule

MOST_TOKENS = 4096  # max_image_tokens of MuseGlimmerImageProcessor


def tokens_along(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Merged patches of `side` pixels along height and width."""
    height, width = (length / side for length in size)
    if height * width > MOST_TOKENS:
        height, width = sqrt(MOST_TOKENS * height / width), sqrt(MOST_TOKENS * width / height)
    near = product((floor(height), ceil(height)), (floor(width), ceil(width)))
    fitting = [(h, w) for h, w in near if h and w and h * w <= MOST_TOKENS]
    if not fitting:
        return max(1, round(height)), max(1, round(width))
    return min(fitting, key=lambda grid: abs(grid[0] / grid[1] - size[0] / size[1]))


def made_of(config: Any, sizes: Sizes) -> Made:
    """pixel_values [patches, frames · 3 · patch²] of all images, and the grid of each."""
    vision = config.vision_config
    patch, merge, frames = vision.patch_size, vision.merge_size, vision.patch_temporal
    along = (tokens_along(size, patch * merge) for size in sizes)
    grids = [[1, height * merge, width * merge] for height, width in along]
    patches = sum(height * width for _, height, width in grids)
    return Made({"pixel_values": (patches, frames * 3 * patch**2)}, {"image_grid_thw": grids})


for _kind in ("muse_glimmer", "muse_spark"):
    register_image_rule(_kind, ImageRule(make=made_of, source="MuseGlimmerImageProcessor"))
