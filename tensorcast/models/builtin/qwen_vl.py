"""Vision-language models of Qwen: how many pixels their published image processors let through."""

from __future__ import annotations

from tensorcast.vision.rules import ImageRule, register_image_rule

_TYPE = "Qwen2VLImageProcessor"
_SECOND = {"image_processor_type": _TYPE, "size": {"shortest_edge": 56 * 56, "longest_edge": 3584 * 3584}}
_THIRD = {"image_processor_type": _TYPE, "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096}}

for _kinds, _settings, _name in (
    (("qwen2_vl", "qwen2_5_vl", "qwen2_5_omni_thinker"), _SECOND, "Qwen2-VL"),
    (("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_omni_moe_thinker"), _THIRD, "Qwen3-VL"),
):
    for _kind in _kinds:
        source = f"the published preprocessor_config.json of {_name}"
        register_image_rule(_kind, ImageRule(settings=_settings, source=source))
