"""The arithmetic that stands in for image processors that need torchvision, beside theirs."""

from __future__ import annotations

import ast
import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from tensorcast.models import native
from tensorcast.models.builtin import gemma4_unified, kimi_k25, muse
from tensorcast.models.recipes import VISION
from tensorcast.models.reference import resolve_model
from tensorcast.trace.run import trace_step
from tensorcast.vision.tiles import least_enlarged
from tests.models.towers import TOWERS, deployed


def own_functions(model_type: str, *names: str, **known) -> dict:
    """Functions of transformers' image processor file, whose imports need not work."""
    path = native.library_root() / "models" / model_type / f"image_processing_{model_type}.py"
    tree = ast.parse(path.read_text("utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    for node in wanted:
        node.decorator_list, node.returns = [], None
        for argument in node.args.args:
            argument.annotation = None
    space = {"math": math, "torch": torch, "np": np, "defaultdict": defaultdict, **known}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), space)
    return space


SIZES = [(h, w) for h in (1, 27, 100, 336, 337, 672, 1000, 1024, 2000, 4096) for w in (28, 150, 448, 700, 1344, 5000)]


def test_kimi_patches_are_those_of_its_processor():
    resize = own_functions("kimi_k25", "navit_resize")["navit_resize"]
    for size in SIZES:
        _, (height, width) = resize(*size, 14, 2, 16384, 512)
        assert kimi_k25.patches_along(size, 14, 2) == (height // 14, width // 14), size


def test_llama4_tiles_are_those_of_its_processor():
    class Square:
        height = width = 336

    own = own_functions("llama4", "get_factors", "find_supported_resolutions", "get_best_fit")
    canvases = torch.tensor(own["find_supported_resolutions"](16, Square))
    for size in SIZES:
        height, width = own["get_best_fit"](size, canvases).tolist()
        tiles = height * width // 336**2
        assert least_enlarged(size, 336, 16) == tiles + (tiles > 1), size


def test_cohere_tiles_are_those_of_its_processor():
    own = own_functions("cohere2_vision", "get_all_supported_aspect_ratios", "get_optimal_tiled_canvas")
    for size in SIZES:
        width, height = own["get_optimal_tiled_canvas"](size, (512, 512), 1, 12)
        assert least_enlarged(size, 512, 12) == width * height + (width * height > 1), size


@pytest.mark.parametrize(("size", "tiles"), [((1024, 1024), 9 + 1), ((448, 448), 1), ((448, 896), 2 + 1)])
def test_internvl_cuts_images_as_its_processor_says(size, tiles):
    """The image processor alone would scale every image to one square; the model's processor tells it to cut."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    vision = {**TOWERS["internvl"]["vision_config"], "image_size": [448, 448]}
    model = deployed(resolve_model({**TOWERS["internvl"], "vision_config": vision, "image_seq_length": 256}), (size,))
    trace_step(model, VISION, 1, 1, 0)
    stock = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448})
    assert stock.get_number_of_image_patches(*size, {"crop_to_patches": True}) == tiles
    assert model.image_tokens == 256 * tiles


def test_gemma_patches_are_those_of_its_processor():
    own = own_functions("gemma4_unified", "get_aspect_ratio_preserving_size")["get_aspect_ratio_preserving_size"]
    for size in SIZES:
        height, width = own(*size, 16, 280 * 9, 3)
        assert gemma4_unified.patches_along(size, 48) == (height // 48, width // 48), size


def test_muse_patches_are_those_of_its_processor():
    own = own_functions("muse_glimmer", "smart_resize", itertools=itertools)["smart_resize"]
    for size in SIZES:
        height, width = own(*size, 28, 4096)
        assert muse.tokens_along(size, 28) == (height // 28, width // 28), size


def test_minimax_sides_are_those_of_its_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    own = own_functions("minimax_m3_vl", "smart_resize")["smart_resize"]
    for size in (size for size in SIZES if max(size) / min(size) < 200):
        limits = {"min_pixels": 4 * 28 * 28, "max_pixels": 672 * 672}
        assert own(*size, factor=28, **limits) == smart_resize(*size, factor=28, **limits), size
