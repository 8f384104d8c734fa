"""What a model's own image processor makes of images of given sizes: shapes of pixels, and the numbers beside them.

The processor of transformers is run on black images; nothing here knows how any of them resizes or cuts.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorcast.errors import ModelError
from tensorcast.models import native
from tensorcast.models.check import read_json
from tensorcast.vision.rules import ImageRule, Made, Sizes, image_rule

FILES = ("preprocessor_config.json", "processor_config.json")


def processed(config: Any, sizes: Sizes, folder: Path | None, name: str) -> tuple[Made, str]:
    """What becomes of the images of one request, and who says so."""
    kind = config.model_type
    rule = image_rule(kind)
    if rule.make is not None:
        return rule.make(config, sizes), rule.source
    stated, origin = _settings(rule, folder)
    made_by = _processor_class(kind, stated.get("image_processor_type"), name)
    settings = {**_sizes_of(made_by, config), **stated, **_processor_defaults(kind)}
    settings = {key: value for key, value in settings.items() if key not in ("image_processor_type", "processor_class")}
    try:
        result = made_by(**settings)(images=_black(sizes), return_tensors="pt")
    except Exception as reason:
        text = " ".join(str(reason).split())[:300]
        raise ModelError(f"{name}: {made_by.__name__} refuses the images: {type(reason).__name__}: {text}") from reason
    return _made(result), f"{made_by.__name__} of transformers, {origin}"


def _black(sizes: Sizes) -> list:
    from PIL import Image

    return [Image.new("RGB", (width, height)) for height, width in sizes]


def _made(result: Mapping[str, Any]) -> Made:
    import torch

    tensors = {name: value for name, value in result.items() if isinstance(value, torch.Tensor)}
    pixels = {name: tuple(t.shape) for name, t in tensors.items() if t.is_floating_point()}
    return Made(pixels, {name: t.tolist() for name, t in tensors.items() if name not in pixels})


def folder_settings(folder: Path | None) -> tuple[Path, Mapping[str, Any]] | None:
    """The file beside the model that has its image processor's settings, and the settings; None without one."""
    for name in FILES if folder is not None else ():
        if (folder / name).is_file():
            read = read_json(folder / name)
            found = read.get("image_processor", read if name == FILES[0] else None)
            if isinstance(found, dict):
                return folder / name, found
    return None


def _settings(rule: ImageRule, folder: Path | None) -> tuple[Mapping[str, Any], str]:
    """Settings of the processor and where they come from: the model's own folder, what is published, or nothing."""
    if (found := folder_settings(folder)) is not None:
        return found[1], f"settings of {found[0]}"
    if rule.settings:
        return rule.settings, f"settings of {rule.source}"
    return {}, "its default settings with the sizes of the vision configuration"


def _processor_class(kind: str, stated: str | None, name: str) -> type:
    """The class that works with Pillow alone, else the one that needs torchvision too, which may not be there."""
    from transformers.models.auto import image_processing_auto as auto

    known = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind) or {}
    base = (stated or known.get("torchvision") or known.get("pil") or "").removesuffix("Fast")
    if not base:
        raise ModelError(f"{name}: transformers names no image processor for model_type {kind!r}; use a folder with it")
    reason = None
    for wanted in dict.fromkeys((known.get("pil") if not stated else None, f"{base}Pil", base)):
        try:
            found = auto.get_image_processor_class_from_name(wanted) if wanted else None
            if found is not None:
                found()
                return found
        except Exception as fault:
            reason = fault
    text = " ".join(str(reason).split())[:200]
    raise ModelError(f"{name}: the image processor {base} cannot be used: {text}")


def _sizes_of(made_by: type, config: Any) -> dict[str, Any]:
    """The processor's settings that the configuration has too, under the same or a related name."""
    vision, usual = getattr(config, "vision_config", None) or config, made_by()
    settings: dict[str, Any] = {}
    for name in ("patch_size", "temporal_patch_size", "image_grid_pinpoints", "pooling_kernel_size"):
        value = next((v for part in (vision, config) if (v := getattr(part, name, None)) is not None), None)
        if value is not None and getattr(usual, name, None) is not None:
            settings[name] = value
    merge = next((v for c in (vision, config) if isinstance(v := getattr(c, "spatial_merge_size", None), int)), None)
    if merge is not None and hasattr(usual, "merge_size"):
        settings["merge_size"] = merge
    elif merge is not None and "patch_size" in settings:
        settings["patch_size"] = settings["patch_size"] * merge  # patches that are merged come in whole groups
    tokens = getattr(config, "vision_soft_tokens_per_image", None)
    if tokens is not None and hasattr(usual, "max_soft_tokens"):
        settings["max_soft_tokens"] = tokens
    side = getattr(vision, "image_size", None)
    side = side[0] if isinstance(side, (list, tuple)) else side
    if isinstance(side, int) and not hasattr(usual, "merge_size"):
        settings |= _side_settings(usual, side)
    return settings


def _side_settings(usual: Any, side: int) -> dict[str, Any]:
    """Sizes of a processor whose tower sees squares of `side` pixels."""
    size, most = getattr(usual, "size", None), getattr(usual, "max_image_size", None)
    if isinstance(most, Mapping) and size:
        tiles = size["longest_edge"] // most["longest_edge"]  # cut into squares of `side`
        return {"size": {"longest_edge": tiles * side}, "max_image_size": {"longest_edge": side}}
    if not size:
        return {}
    keys = [key for key in ("height", "width", "shortest_edge", "longest_edge") if size.get(key)]
    settings: dict[str, Any] = {"size": dict(size) | {key: side for key in keys if key != "shortest_edge"}}
    if keys == ["shortest_edge"]:
        settings["size"] = {"shortest_edge": side}
    if getattr(usual, "crop_size", None):
        settings["crop_size"] = {"height": side, "width": side}
    return settings


def _processor_defaults(kind: str) -> dict[str, Any]:
    """What the model's processor tells its image processor unless told otherwise, read from its file."""
    found: dict[str, Any] = {}
    for path in sorted((native.library_root() / "models" / native.module_of(kind)).glob("processing_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "images_kwargs":
                found |= _plain(node.value)
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_defaults":
                found |= _images_part(node.value)
    return found


def _images_part(value: ast.expr) -> dict[str, Any]:
    if not isinstance(value, ast.Dict):
        return {}
    parts = zip(value.keys, value.values, strict=True)
    found = [part for key, part in parts if isinstance(key, ast.Constant) and key.value == "images_kwargs"]
    return _plain(found[0]) if found else {}


def _plain(value: ast.expr) -> dict[str, Any]:
    """The entries of a dict in code that are plain values and say what becomes of an image."""
    if not isinstance(value, ast.Dict):
        return {}
    pairs = [p for p in zip(value.keys, value.values, strict=True) if all(isinstance(x, ast.Constant) for x in p)]
    return {k.value: v.value for k, v in pairs if k.value not in ("return_tensors", "return_row_col_info")}
