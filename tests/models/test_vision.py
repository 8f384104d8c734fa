"""Images of vision-language models: what they become, and what tower and projector compute, beside the stock code."""

from __future__ import annotations

import ast
import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tensorcast as tc
from tensorcast.errors import InputError, ModelError
from tensorcast.models import native
from tensorcast.models.build import build_blueprint
from tensorcast.models.builtin import gemma4_unified, kimi_k25, muse
from tensorcast.models.recipes import VISION, Step
from tensorcast.models.reference import resolve_model
from tensorcast.plan import ParallelPlan
from tensorcast.trace.run import trace_step
from tensorcast.transformer_model import Deployment, deployed_model
from tensorcast.vision.encode import feature_method, vision_inputs
from tensorcast.vision.rules import ImageRule, register_image_rule
from tensorcast.vision.tiles import least_enlarged
from tests.models.towers import TOWERS
from tests.verify.deployed import matrix_flops

IMAGES = ((100, 150), (230, 120))
WIDTH = 64  # of a token in every text part of TOWERS
ALL_AT_ONCE = ("mistral3",)  # stock eager code masks the pairs of different images; packed kernels leave them out


def deployed(source, images=IMAGES, **options):
    from tensorcast.layers.attention import INTERFACE, register_interface

    register_interface()
    return deployed_model(build_blueprint(source, attn_implementation=INTERFACE), Deployment(images=images, **options))


def stock_run(source, model, batch: int) -> tuple[int, int]:
    """(tokens, FLOPs) of the untouched model on a CPU, with random weights and pixels."""
    blueprint = build_blueprint(source, attn_implementation="eager")
    module = type(blueprint.module)._from_config(blueprint.config, dtype=torch.float32, attn_implementation="eager")
    given = vision_inputs(model, Step(VISION, batch, 1, 0))
    given = {name: torch.randn(t.shape) if t.is_meta else t for name, t in given.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        result = feature_method(module.eval())(**given)
        features = getattr(result, "pooler_output", None)
        features = result.last_hidden_state if features is None else features
        features = [features] if isinstance(features, torch.Tensor) else list(features)
        if features[0].shape[-1] != WIDTH:
            features = [module.multi_modal_projector(f.reshape(-1, f.shape[-1])) for f in features]
    return sum(f.numel() for f in features) // WIDTH, counter.get_total_flops()


@pytest.mark.parametrize("name", TOWERS)
def test_tower_and_projector_compute_what_torch_counts(name):
    source, batch = resolve_model(TOWERS[name]), 1 if name in ALL_AT_ONCE else 2
    model = deployed(source, IMAGES[:1] if name in ALL_AT_ONCE else IMAGES)
    traced = trace_step(model, VISION, batch, 1, 0)
    assert (model.image_tokens, matrix_flops(traced.calls)) == stock_run(source, model, batch)
    assert model.image_tokens > 0 and not traced.uncosted
    assert not any(call.attrs.get("causal") for call in traced.calls)


@pytest.mark.parametrize("name", TOWERS)
def test_reuse_of_layers_changes_nothing(name):
    source = resolve_model(TOWERS[name])
    once, every = (trace_step(deployed(source, reuse=reuse), VISION, 2, 1, 0) for reuse in (True, False))
    assert matrix_flops(once.calls) == matrix_flops(every.calls)
    assert sum(len(call.layers or [0]) for call in once.calls) == len(every.calls)
    assert len(once.calls) < len(every.calls) or name == "gemma4"


@pytest.mark.parametrize("name", TOWERS)
def test_a_request_costs_the_same_beside_others(name):
    model = deployed(resolve_model(TOWERS[name]))
    flops = [matrix_flops(trace_step(model, VISION, batch, 1, 0).calls) for batch in (1, 3)]
    assert flops[1] == 3 * flops[0]


def pairs(traced) -> int:
    calls = [c for c in traced.calls if c.op == "attention"]
    return sum(c.dims["b"] * c.dims["q"] * c.dims["kv"] * len(c.layers or [0]) for c in calls)


def test_attention_stays_within_each_image():
    source = resolve_model(TOWERS["qwen3_vl"])
    seen = [
        pairs(trace_step(deployed(source, (size,) * n), VISION, 1, 1, 0))
        for size, n in (((320, 320), 1), ((320, 320), 3))
    ]
    assert seen == [4 * 400**2, 3 * 4 * 400**2]  # 4 blocks, 20 x 20 patches of 16 pixels


def test_windows_of_qwen2_5_vl():
    """Windows of 112 pixels are 8 x 8 patches of 14; blocks 1 and 3 attend to the whole image."""
    model = deployed(resolve_model(TOWERS["qwen2_5_vl"]), ((280, 224),))  # 20 x 16 patches
    windows = [8 * 8] * 4 + [4 * 8] * 2
    assert pairs(trace_step(model, VISION, 1, 1, 0)) == 2 * sum(n**2 for n in windows) + 2 * (20 * 16) ** 2


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("qwen3-vl-8b", (1024, 1024), 32 * 32),
        ("qwen3-vl-8b", (1000, 700), 31 * 22),  # 992 x 704: both sides go to the nearest multiple of 32
        ("qwen3-vl-8b", (64, 64), 8 * 8),  # no less than 65,536 pixels
        ("qwen3.5-27b", (448, 448), 14 * 14),
        ("gemma-3-4b", (1024, 1024), 256),
        ("llama-4-scout", (1024, 1024), (4 * 4 + 1) * 144),
        ("llama-4-scout", (336, 336), 144),
        ("kimi-k2.5", (1024, 1024), 37 * 37),  # filled up to 1,036 pixels, multiples of 28
    ],
)
def test_tokens_of_published_models(model, size, tokens):
    found = deployed(resolve_model(model, layers=1), (size,))
    trace_step(found, VISION, 2, 1, 0)
    assert found.image_tokens == 2 * tokens


# -- the arithmetic that stands in for processors that need torchvision, beside theirs ---------------------------------


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


# -- the answer --------------------------------------------------------------------------------------------------------

TWO = ["1024x1024", "448x448"]


def simulate(model="qwen3-vl-8b", **options):
    return tc.simulate(
        model=model, hw="h100-sxm", layers=2, **{"input_len": 200, "output_len": 20, **options}
    ).to_dict()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path_factory.getbasetemp() / "vision-cache"))


def test_images_take_a_phase_of_their_own_and_part_of_the_prompt():
    answer, text = simulate(image=TWO), simulate(input_len=200 + 1220)
    assert list(answer["phases"]) == ["vision", "prefill", "decode"]
    assert (answer["workload"]["input_len"], answer["workload"]["image_tokens"]) == (200, 1220)
    assert answer["workload"]["images"] == TWO
    assert answer["phases"]["prefill"] == text["phases"]["prefill"]
    assert answer["phases"]["decode"] == text["phases"]["decode"]
    assert answer["memory"]["kv_cache_bytes"] == text["memory"]["kv_cache_bytes"]
    seen = answer["phases"]["vision"]["step_time_s"]
    assert answer["metrics"]["ttft_s"] == pytest.approx(seen + text["metrics"]["ttft_s"], rel=1e-12)
    assert seen > 0 and "images" not in text["workload"] and "vision" not in text["phases"]


def test_a_cached_answer_is_the_same():
    first, second = (simulate(image=TWO, batch=3) for _ in range(2))
    assert first == second


def test_a_table_holds_for_every_batch():
    one, many = (simulate(image="448x448", batch=batch)["phases"]["vision"]["matrix_flops"] for batch in (1, 17))
    assert many == pytest.approx(17 * one, rel=1e-12)


def test_decode_alone_has_the_images_in_its_context_only():
    answer = simulate(image=TWO, phase="decode")
    assert list(answer["phases"]) == ["decode"] and answer["workload"]["image_tokens"] == 1220


def test_every_rank_runs_the_whole_tower():
    whole, cut = simulate(image=TWO), simulate(image=TWO, tp=2)
    assert cut["phases"]["vision"]["matrix_flops"] == whole["phases"]["vision"]["matrix_flops"]
    assert any("every rank runs the whole vision tower (model.visual)" in text for text in cut["warnings"])
    assert any("64x64, 28x28 patches" in text for text in whole["warnings"])


def test_each_group_sees_its_own_images_and_the_first_stage_alone_runs_the_tower():
    whole, groups = simulate(image=TWO, batch=4), simulate(image=TWO, batch=4, dp=2)
    flops = [answer["phases"]["vision"]["matrix_flops"] for answer in (whole, groups)]
    assert flops[0] == pytest.approx(2 * flops[1], rel=1e-12)
    staged = simulate(image=TWO, batch=4, pp=2)["phases"]["vision"]
    assert staged == whole["phases"]["vision"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"model": "qwen3-0.6b", "image": "64x64"},
            "--image does not go with qwen3-0.6b: its configuration has no vision",
        ),
        ({"image": "big"}, "--image 'big': height x width"),
        ({"image": []}, "--image names no size"),
        ({"image": 7}, "--image 7: height x width"),
        ({"image": ["448x448", "0x8"]}, "--image '0x8'"),
        ({"image": "9000x100"}, "--image 9000x100: give at most 8192 pixels a side"),
        ({"image": ["28x28"] * 257}, "--image: 257 images a request; give at most 256"),
        ({"image": "448x448", "prefix_len": 10}, "--image does not go with --prefix-len"),
        ({"image": "448x448", "concurrency": 4}, "--image does not go with --concurrency"),
        ({"image": "448x448", "max_model_len": 230}, "--max-model-len 230: input [+] output are 416 tokens"),
        (
            {"image": "448x448", "input_len": 262000, "output_len": 140},
            "= 262336 tokens are more than qwen3-vl-8b takes",
        ),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(InputError, match=said.replace("(", "[(]")):
        simulate(**options)


def test_what_the_processor_refuses_is_one_line():
    with pytest.raises(
        ModelError, match="Qwen2VLImageProcessorPil refuses the images: ValueError: absolute aspect ratio"
    ):
        simulate(image="28x8000")


def test_settings_beside_the_model_come_before_published_ones(tmp_path):
    import json

    (tmp_path / "config.json").write_text(json.dumps(TOWERS["qwen3_vl"]))
    settings = {"image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 16, "merge_size": 2}
    settings["size"] = {"shortest_edge": 1024, "longest_edge": 64 * 64}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    answer = tc.simulate(model=str(tmp_path), hw="h100-sxm", image="640x640", input_len=9, output_len=2).to_dict()
    assert answer["workload"]["image_tokens"] == 2 * 2
    settings["size"]["longest_edge"] = 128 * 128
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    answer = tc.simulate(model=str(tmp_path), hw="h100-sxm", image="640x640", input_len=9, output_len=2).to_dict()
    assert answer["workload"]["image_tokens"] == 4 * 4


def test_a_rule_of_the_users_own():
    from tensorcast.vision.rules import Made

    def made(config, sizes):
        return Made({"pixel_values": (4 * len(sizes), 1536)}, {"image_grid_thw": [[1, 2, 2]] * len(sizes)})

    register_image_rule("qwen3_vl", ImageRule(make=made, source="mine"), replace=True)
    answer = tc.simulate(model=TOWERS["qwen3_vl"], hw="h100-sxm", image="64x64", input_len=9, output_len=2).to_dict()
    assert answer["workload"]["image_tokens"] == 1
    with pytest.raises(InputError, match="takes an ImageRule"):
        register_image_rule("mine", made)


def test_a_tower_that_needs_values_says_so():
    model = deployed(resolve_model(TOWERS["gemma3"]), plan=ParallelPlan())
    model.__dict__["_images"] = type("Made", (), {"pixels": {"pixel_values": (1, 3, 96, 96)}, "numbers": {}})()
    with pytest.raises(ModelError, match="get_image_features does not run on the meta device"):
        trace_step(model, VISION, 1, 1, 0)
