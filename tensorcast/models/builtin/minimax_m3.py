"""MiniMax-M3-VL: sides are rounded to whole merged patches as Qwen2-VL's are, with at most 451,584 pixels in all."""

from __future__ import annotations

from tensorcast.vision.rules import ImageRule, register_image_rule

_SETTINGS = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 672 * 672},
}

register_image_rule("minimax_m3_vl", ImageRule(settings=_SETTINGS, source="MiniMaxM3VLImageProcessor"))
