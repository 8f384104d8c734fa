"""Images of vision-language models: what they become, and what tower and projector compute, beside the stock code."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tensorcast as tc
from tensorcast.errors import InputError, ModelError
from tensorcast.models.build import build_blueprint
from tensorcast.models.recipes import VISION, Step
from tensorcast.models.reference import resolve_model
from tensorcast.ops import operator_named
from tensorcast.plan import ParallelPlan
from tensorcast.trace.run import trace_images, trace_step
from tensorcast.vision.encode import feature_method, vision_inputs
from tensorcast.vision.rules import ImageRule, Made, register_image_rule
from tests.models.towers import IMAGES, TOWERS, deployed
from tests.verify.deployed import matrix_flops

WIDTH = 64  # of a token in every text part of TOWERS
ALL_AT_ONCE = ("mistral3",)  # stock eager code masks the pairs of different images; packed kernels leave them out


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


# -- the answer --------------------------------------------------------------------------------------------------------

TWO = ["1024x1024", "448x448"]


def simulate(model="qwen3-vl-8b", **options):
    return tc.simulate(
        model=model, hw="h100-sxm", layers=2, **{"input_len": 200, "output_len": 20, **options}
    ).to_dict()


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
    def made(config, sizes):
        return Made({"pixel_values": (4 * len(sizes), 1536)}, {"image_grid_thw": [[1, 2, 2]] * len(sizes)})

    register_image_rule("qwen3_vl", ImageRule(make=made, source="mine"), replace=True)
    answer = tc.simulate(model=TOWERS["qwen3_vl"], hw="h100-sxm", image="64x64", input_len=9, output_len=2).to_dict()
    assert answer["workload"]["image_tokens"] == 1
    with pytest.raises(InputError, match="takes an ImageRule"):
        register_image_rule("mine", made)


def test_a_tower_that_needs_values_says_so():
    model = deployed(resolve_model(TOWERS["gemma3"]), plan=ParallelPlan())
    model.__dict__["_images"] = {IMAGES: Made({"pixel_values": (1, 3, 96, 96)})}
    with pytest.raises(ModelError, match="get_image_features does not run on the meta device"):
        trace_step(model, VISION, 1, 1, 0)


# -- how images and text come together ---------------------------------------------------------------------------------


def test_features_take_the_place_of_embeddings_and_are_added_behind_the_first_layers():
    traced = trace_step(deployed(resolve_model(TOWERS["qwen3_vl"]), ((320, 320),)), VISION, 3, 1, 0)
    met = [(c.module, c.attrs["adds"], c.dims) for c in traced.calls if c.op == "join_images"]
    sizes = {"rows": 3 * 100, "width": WIDTH}
    text = "model.language_model"
    assert met == [(text, False, sizes), (f"{text}.layers.0", True, sizes), (f"{text}.layers.1", True, sizes)]
    plain = trace_step(deployed(resolve_model(TOWERS["qwen2_5_vl"])), VISION, 1, 1, 0)
    assert [c.attrs["adds"] for c in plain.calls if c.op == "join_images"] == [False]


def test_three_axes_of_positions_cost_what_one_does():
    """M-RoPE: positions come for time, height and width; what rotates queries and keys is as large as for text."""
    model = deployed(resolve_model(TOWERS["qwen3_vl"]))
    rows = {c.op: c.dims for c in trace_step(model, "prefill", 2, 50, 0).calls}
    assert rows["rotary"]["elements"] == 2 * 50 * 16 * (4 + 2) and rows["rotary"]["table"] == 2 * 2 * 50 * 16


def stock_pairs(kind: str, text: list[int], images: list[int], window: int) -> dict[str, int]:
    """Pairs that the model's own mask lets through, by kind of layer: an image of `images` tokens before each text."""
    import importlib

    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    source = resolve_model({**TOWERS[kind], "text_config": {**TOWERS[kind]["text_config"], "sliding_window": window}})
    config = build_blueprint(source, attn_implementation="eager").config.get_text_config()
    types = [t for n, m in zip(images, text, strict=True) for t in [1] * n + [0] * m]
    given = torch.tensor([types])
    config._attn_implementation = "eager"
    masks = module.create_masks_for_vision_model(
        config=config,
        inputs_embeds=torch.zeros(1, len(types), 8),
        attention_mask=None,
        past_key_values=None,
        position_ids=torch.arange(len(types))[None],
        block_sequence_ids=module.get_block_sequence_ids_for_mask(given, given.device),
    )
    return {layers: int((mask == 0).sum()) for layers, mask in masks.items()}


@pytest.mark.parametrize("kind", ["gemma3", "gemma4"])
@pytest.mark.parametrize("window", [1000, 20])
def test_pairs_are_those_of_the_models_own_mask(kind, window):
    fields = {"sliding_window": window, "use_bidirectional_attention": "vision"} if kind == "gemma4" else {}
    text = {**TOWERS[kind]["text_config"], "sliding_window": window, **fields}
    text["layer_types"] = ["sliding_attention", "sliding_attention", "full_attention"]
    sizes = ((96, 96), (240, 144))
    model = deployed(resolve_model({**TOWERS[kind], "text_config": text}), sizes, reuse=False)
    trace_images(model)
    counts = list(model.image_counts)
    assert sum(counts) == model.image_tokens and min(counts) > 1
    tokens = sum(counts) + 12
    calls = [c for c in trace_step(model, "prefill", 2, tokens, 0).calls if "attention" in c.op]
    expected = stock_pairs(kind, [5, 7], counts, window)
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    found = [operator_named(c.op).work(c.dims, c.attrs).matrix_flops / (4 * c.dims["d"] * 2 * 4) for c in calls]
    assert found == [expected[name] for name in kinds]
    chunk = [c for c in trace_step(model, "chunked", 2, 8, tokens).calls if "attention" in c.op]
    assert {c.op for c in chunk} == {"attention"}


def test_an_image_that_is_read_in_both_directions():
    answer, text = (simulate("gemma-3-4b", image=image, input_len=300) for image in (["896x896"], None))
    used = [{op["op"] for op in phase["ops"]} for phase in (*answer["phases"].values(), text["phases"]["prefill"])]
    assert ["joined_attention" in names for names in used] == [False, True, False, False]
    more = simulate("gemma-3-4b", image=None, input_len=556)["phases"]["prefill"]["matrix_flops"]
    seen = 2 * 8 * 2 * (256 + 256) * (256 * 255 // 2)  # 2 layers, 8 heads of 256
    assert answer["phases"]["prefill"]["matrix_flops"] - more == pytest.approx(seen, rel=1e-9)
    with pytest.raises(InputError, match="--chunk 100 cuts 256 tokens of gemma-3-4b apart that see each other in both"):
        simulate("gemma-3-4b", image=["896x896"], input_len=300, chunk=100)


# -- what is in memory only --------------------------------------------------------------------------------------------


def test_a_tower_that_nothing_runs_is_named():
    text = simulate(image=None)
    (said,) = (note for note in text["warnings"] if note.startswith("in memory but not in the time"))
    assert "model.visual (" in said and said.endswith("; --image HxW runs what images need")
    assert not any("in memory but not in the time" in note for note in simulate(image=TWO)["warnings"])
    assert not any("in memory" in note for note in simulate("qwen3-0.6b", image=None)["warnings"])


def test_sound_that_cannot_be_asked_for_is_named():
    config = {
        "model_type": "qwen2_audio",
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "text_config": {
            "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
        },
        "audio_config": {
            "model_type": "qwen2_audio_encoder", "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64, "num_mel_bins": 16,
        },
    }  # fmt: skip
    answer = tc.simulate(model=config, hw="h100-sxm", input_len=20, output_len=4, dtype="bf16").to_dict()
    (said,) = (note for note in answer["warnings"] if note.startswith("in memory but not in the time"))
    assert "model.audio_tower (" in said and "model.multi_modal_projector (" in said and "--image" not in said


def test_published_names_of_a_tower_count():
    """Kimi-K2.5's configuration says vt_hidden_size where transformers' class says hidden_size."""
    vision = {"vt_num_hidden_layers": 2, "vt_hidden_size": 64, "vt_intermediate_size": 80, "vt_num_attention_heads": 4}
    vision |= {"patch_size": 14, "merge_kernel_size": [2, 2], "mm_hidden_size": 64}
    fields = {name: value for name, value in TOWERS["kimi_k25"].items() if name != "projection_hidden_size"}
    tower = deployed(resolve_model({**fields, "vision_config": vision})).module.model.vision_tower
    sizes = {tuple(p.shape) for p in tower.parameters()}
    assert (80, 64) in sizes and not any(1152 in size for size in sizes)
    assert sum(isinstance(m, torch.nn.ModuleList) and len(m) == 2 for m in tower.modules()) == 1


@pytest.mark.nightly
def test_image_text_types_of_transformers():
    """The survey: how many types take an image, tower and language model both. At least those that did."""
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).resolve().parents[2] / "benchmarks" / "vision.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    ran, of = (int(word) for word in done.stdout.splitlines()[-1].split()[:3:2])
    assert (ran, of) >= (55, 97) and "Traceback" not in done.stderr
