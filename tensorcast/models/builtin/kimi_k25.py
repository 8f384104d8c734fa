"""Kimi-K2.5: images keep their size unless they have too many patches, and are filled up to whole merged patches.

At most 16,384 patches an image and 512 along a side, as the processor of transformers has it. That processor needs
torchvision, so its arithmetic is here.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.vision.rules import ImageRule, Made, Sizes, register_image_rule

MOST_PATCHES = 16_384
MOST_ALONG_A_SIDE = 512


def patches_along(size: tuple[int, int], patch: int, merge: int) -> tuple[int, int]:
    """Patches along height and width of an image of `size` pixels."""
    whole = max(1, size[0] // patch) * max(1, size[1] // patch)
    longest = MOST_ALONG_A_SIDE * patch
    scale = min(1.0, sqrt(MOST_PATCHES / whole), *(longest / side for side in size))
    fitted = (min(longest, max(1, int(side * scale))) for side in size)
    unit = patch * merge
    height, width = (-(-side // unit) * merge for side in fitted)
    return height, width


def made_of(config: Any, sizes: Sizes) -> Made:
    """pixel_values [patches, 3, patch, patch] of all images, and the grid of each."""
    vision = config.vision_config
    patch, merge = vision.patch_size, vision.merge_kernel_size
    patch, merge = (size[0] if isinstance(size, (list, tuple)) else size for size in (patch, merge))
    grids = [[1, *patches_along(size, patch, merge)] for size in sizes]
    return Made(
        pixels={"pixel_values": (sum(h * w for _, h, w in grids), 3, patch, patch)}, numbers={"image_grid_thw": grids}
    )


def with_published_names(config: Any) -> None:
    """The published configuration has other names for the tower's sizes than the class of transformers."""
    for part, names in ((config.vision_config, _TOWER), (config, _PROJECTOR)):
        for name, published in names.items():
            value = getattr(config.vision_config, published, None)
            if value is not None:
                setattr(part, name, value)


_TOWER = {
    **{name: f"vt_{name}" for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")},
    **{f"pos_emb_{axis}": f"init_pos_emb_{axis}" for axis in ("height", "width", "time")},
}
_PROJECTOR = {"projection_hidden_size": "mm_hidden_size"}

register_model_profile(ModelProfile(model_type="kimi_k25", config_patch=with_published_names))
register_image_rule("kimi_k25", ImageRule(make=made_of, source="Kimi_K25ImageProcessor"))
