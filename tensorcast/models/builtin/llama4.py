"""Llama 4: transformers runs every expert on every token, scaled by a score that is zero for all but the chosen ones.

What a serving engine runs, and what the published model is, is a router, the chosen experts and one shared expert. The
score (a sigmoid of the router's logit) multiplies the expert's input, which grouped experts do while they gather it.

Images are cut into at most 16 square tiles, and seen once more as a whole where that is more than one.
"""

from __future__ import annotations

from typing import Any

from tensorcast.pipelines import ModelProfile, register_model_profile
from tensorcast.trace.context import current
from tensorcast.vision.rules import ImageRule, Made, Sizes, register_image_rule
from tensorcast.vision.tiles import least_enlarged

MOST_TILES = 16  # max_patches of the published preprocessor_config.json


def routed_and_shared(block, hidden_states):
    """forward of a Llama4TextMoe: hidden_states [batch, tokens, hidden] → ([batch · tokens, hidden], router logits)."""
    tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
    scores, logits = block.router(tokens)
    with current().suspended():
        chosen = scores.new_empty((tokens.shape[0], block.router.top_k), dtype=int)
    shared = block.shared_expert(tokens)
    return shared + block.experts(tokens, chosen), logits


# The parts of the class's own tower do not go together; those of Llama-4-Scout do.
_TOWER = {
    "vision_config.hidden_size": 1408,
    "vision_config.image_size": 336,
    "vision_config.vision_output_dim": 4096,
}

for _model_type, _defaults in {"llama4": _TOWER, "llama4_text": {}}.items():
    register_model_profile(
        ModelProfile(model_type=_model_type, moe_block_forward=routed_and_shared, defaults=_defaults)
    )


def made_of(config: Any, sizes: Sizes) -> Made:
    """pixel_values [tiles, 3, side, side] of all images."""
    side = config.vision_config.image_size
    return Made(pixels={"pixel_values": (sum(least_enlarged(size, side, MOST_TILES) for size in sizes), 3, side, side)})


register_image_rule("llama4", ImageRule(make=made_of, source="Llama4ImageProcessor"))
