"""Vision-language models of GLM: their published image processor lets 9,633,792 pixels of two equal frames through."""

from __future__ import annotations

from tensorcast.vision.rules import ImageRule, register_image_rule

_SIZE = {"size": {"shortest_edge": 112 * 112, "longest_edge": 6144 * 2 * 28 * 28}}

for _kind, _type in (("glm4v", "Glm4v"), ("glm4v_moe", "Glm4v"), ("glm46v", "Glm46V"), ("glm_ocr", "Glm46V")):
    _settings = {"image_processor_type": f"{_type}ImageProcessor", **_SIZE}
    register_image_rule(
        _kind, ImageRule(settings=_settings, source="the published preprocessor_config.json of GLM-4.1V")
    )
