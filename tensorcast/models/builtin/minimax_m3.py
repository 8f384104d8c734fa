"""MiniMax-M3: layers in which an indexer picks blocks of keys, and images of at most 451,584 pixels.

Every rank runs the whole indexer. Sides of images are rounded to whole merged patches as those of Qwen2-VL are.
"""

from __future__ import annotations

from typing import Any

from tensorcast.models.builtin.serving_plans import ATTENTION
from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.vision.rules import ImageRule, register_image_rule

SPARSE = "minimax_m3_sparse"


def sparse_layer(options: Any, past: int):
    """What a sparse layer remembers: keys, values, and the indexer's keys."""
    from tensorcast.layers.cache import KvLayer

    return KvLayer(past)


for _model_type in ("minimax_m3_vl_text", "minimax_m3_vl"):
    register_model_profile(
        ModelProfile(
            model_type=_model_type,
            tp_plan={**ATTENTION, **dict.fromkeys(("*.indexer.q_proj", "*.indexer.k_proj"), "replicated")},
            caches={SPARSE: sparse_layer},
        )
    )

_SETTINGS = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 672 * 672},
}

register_image_rule("minimax_m3_vl", ImageRule(settings=_SETTINGS, source="MiniMaxM3VLImageProcessor"))
