"""Denoisers of diffusers: how they are found, what they are given, and that their work is what torch counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tensorcast as tc
from tensorcast.diffusion.canvas import Canvas, Grid, Ratios, grid_for, patch_of, ratios
from tensorcast.diffusion.inputs import arguments
from tensorcast.diffusion.pipelines import facts_for, ratios_of
from tensorcast.diffusion.scene import Scene, axes_of
from tensorcast.errors import DeploymentError, InputError, ModelError
from tests.models.counting import counted, real
from tests.models.denoisers import FLUX_SMALL, SMALL, WAN_TINY

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "model_configs" / "diffusers"
VIDEO = ("wan", "wan from a picture", "cogvideox", "ltx", "hunyuan-video", "mochi")
KINDS = list(SMALL)


def denoise(config, **options):
    """The simulated step of a small picture or video."""
    asked = {"hw": "h100-sxm", "image": "128x128", **options}
    return tc.simulate(model=config, **asked)


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_what_torch_counts(kind):
    """Every multiply-add of the real forward on the CPU, for every kind of argument list."""
    config = SMALL[kind]
    sizes, _ = ratios(config, {})
    frames = 2 * sizes.time + 1 if kind in VIDEO else 1
    estimate = denoise(config, input_len=20, batch=2, **({"frames": frames} if frames > 1 else {}))
    module = real(config)
    inputs = arguments(Scene(module, Canvas(128, 128, frames, 20), sizes, 2))
    inputs = {k: torch.ones_like(v) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    products, attention = counted(module, inputs)
    phase = estimate.phases["denoise"]
    assert phase["matrix_flops"] == products + attention
    assert estimate.to_dict()["uncosted_ops"] == []
    ops = phase.ops
    assert ops[ops.op == "attention"].matrix_flops.sum() == attention


def test_latents_take_the_shape_that_forward_takes_apart():
    axes = {name: axes_of(real(SMALL[name])) for name in ("flux", "ltx", "wan", "cogvideox", "sd3", "unet")}
    assert axes == {"flux": "bnc", "ltx": "bnc", "wan": "bcfhw", "cogvideox": "bfchw", "sd3": "bchw", "unet": "bchw"}


def test_pipelines_say_how_long_prompts_are_and_how_large_latents():
    flux, wan, ltx = (
        facts_for(f"{n}") for n in ("FluxTransformer2DModel", "WanTransformer3DModel", "LTXVideoTransformer3DModel")
    )
    assert (flux.text_tokens, flux.steps, flux.frames, flux.space, flux.merged) == (512, 28, None, 8, 4)
    assert (wan.text_tokens, wan.frames, wan.space, wan.time) == (512, 81, 8, 4)
    assert (ltx.text_tokens, ltx.frames, ltx.space, ltx.time) == (128, 161, 32, 8)
    assert facts_for("SD3Transformer2DModel").text_tokens == 256 + 77
    assert facts_for("NoSuchModel").names == ()
    assert ratios_of({"dim_mult": [1, 2, 4, 4], "temperal_downsample": [False, True, True]}) == (8, 4)
    assert ratios_of({"block_out_channels": [128, 256, 512, 512]}) == (8, None)


def test_sizes_become_tokens():
    assert patch_of({"patch_size": [1, 2, 2]}) == (1, 2)
    assert patch_of({"patch_size": 2, "patch_size_t": None}) == (1, 2)
    grid = grid_for(Canvas(480, 832, 81, 512), Ratios(8, 4), (1, 2), "Wan")
    assert grid == Grid(21, 60, 104, (1, 2))
    assert grid.tokens == 32_760
    assert grid_for(Canvas(1024, 1024, 1, 512), Ratios(8, 1, 2), (1, 2), "Flux").tokens == 4096


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (FLUX_SMALL, {"image": "1000x1024"}, "multiples of 16 for FluxTransformer2DModel; nearest: 992 and 1008"),
        (WAN_TINY, {"image": "64x64", "frames": 80}, "one more than a multiple of 4 .* nearest: 77 and 81"),
        (FLUX_SMALL, {"frames": 9}, "--frames 9: FluxTransformer2DModel makes single images"),
        (FLUX_SMALL, {"image": "big"}, "--image 'big': height x width"),
        (FLUX_SMALL, {"image": "0x16"}, "--image '0x16'"),
        (FLUX_SMALL, {"steps": 0}, "--steps 0"),
        (FLUX_SMALL, {"output_len": 4}, "--output-len does not go with FluxTransformer2DModel"),
        (FLUX_SMALL, {"phase": "prefill"}, "--phase prefill: this model has"),
        ("qwen3-0.6b", {"image": "64x64"}, "--image does not go with qwen3-0.6b"),
        ({"_class_name": "MotionAdapter"}, {"frames": 8}, "not run by itself: its weights are loaded into"),
        ({"_class_name": "MultiControlNetModel"}, {}, "not run by itself: it holds several ControlNets"),
    ],
)  # fmt: skip
def test_work_that_cannot_be(config, options, message):
    with pytest.raises((InputError, ModelError), match=message):
        tc.simulate(model=config, hw="h100-sxm", **options)


def test_plans_that_cannot_be():
    with pytest.raises(DeploymentError, match="use --tp for a language model"):
        tc.simulate(model="qwen3-0.6b", hw="h100-sxm", sp=2)
    with pytest.raises(DeploymentError, match="a denoiser runs as one stage"):
        denoise(FLUX_SMALL, pp=2)
    with pytest.raises(DeploymentError, match="encoder_hidden_states has 77 tokens; values that divide: 1, 7, 11, 77"):
        denoise(FLUX_SMALL, sp=2, input_len=77)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": 3}, "_class_name is 3"),
        ({"_class_name": "FluxPipeline"}, "give the pipeline's folder"),
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL is no denoiser"),
        ({**FLUX_SMALL, "num_attention_heads": "8"}, "num_attention_heads is '8'"),
        ({1: 2}, "keys are not all names"),
        ({}, "the configuration is empty"),
    ],
)  # fmt: skip
def test_configurations_that_are_no_denoiser(config, message):
    with pytest.raises((ModelError, InputError), match=message):
        denoise(config)


def test_fields_that_the_configuration_leaves_out():
    """Any field of the class may be set; others are typing slips. Fields that old files have are noted."""
    plain = tc.build_model(FLUX_SMALL)
    model = tc.build_model(FLUX_SMALL, overrides={"guidance_embeds": True})
    assert model.parameters > plain.parameters
    with pytest.raises(InputError, match="unknown configuration key 'guidance_embed'"):
        tc.build_model(FLUX_SMALL, overrides={"guidance_embed": True})
    notes = denoise({**FLUX_SMALL, "was_once": 3}).warnings
    assert "FluxTransformer2DModel has no field was_once: not used, as in diffusers" in notes


def test_a_forward_that_cannot_run_on_meta_is_one_line():
    with pytest.raises(ModelError, match="FluxTransformer2DModel does not run on the meta device: RuntimeError"):
        denoise({**FLUX_SMALL, "axes_dims_rope": [8, 12, 16]})


def test_a_configuration_of_transformers_as_a_dict():
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
    }  # fmt: skip
    model = tc.build_model(config)
    assert (type(model).__name__, model.architecture) == ("TransformerModel", "LlamaForCausalLM")


def test_steps_multiply_the_latency_of_one():
    one, many = denoise(FLUX_SMALL), denoise(FLUX_SMALL, steps=28)
    assert many.phases["denoise"]["step_time_s"] == one.phases["denoise"]["step_time_s"]
    assert many.metrics["request_latency_s"] == pytest.approx(28 * one.metrics["request_latency_s"])
    assert (one.metrics["ttft_s"], one.metrics["tokens_per_s"]) == (None, None)


def test_reuse_changes_nothing():
    for config in (FLUX_SMALL, WAN_TINY, SMALL["qwen-image"]):
        one, all_layers = (
            denoise(config, reuse=reuse, **({"frames": 5} if config is WAN_TINY else {})) for reuse in (True, False)
        )
        a, b = (e.phases["denoise"] for e in (one, all_layers))
        for figure in ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "step_time_s"):
            assert a[figure] == pytest.approx(b[figure], rel=1e-12)


def test_every_attention_goes_through_its_slot():
    fused, eager = denoise(FLUX_SMALL), denoise(FLUX_SMALL, kernel="attention=eager")
    ops = eager.phases["denoise"].ops
    assert not len(ops[ops.op == "attention"])
    assert ops[ops.op == "aten::bmm"]["count"].sum() == 2 * 7
    assert eager.phases["denoise"]["matrix_flops"] == fused.phases["denoise"]["matrix_flops"]
    assert [(k["op"], k["name"], k["slots"]) for k in eager.to_dict()["kernels"] if k["op"] == "attention"] == [
        ("attention", "eager", 7)
    ]


def test_tensor_parallel_halves_the_products():
    whole, half = (denoise(FLUX_SMALL, tp=tp).phases["denoise"].ops for tp in (1, 2))
    inside = [ops[ops.module.str.contains(r"attn|ff|proj_mlp|blocks\.\*\.proj_out")] for ops in (whole, half)]
    assert inside[1].matrix_flops.sum() * 2 == inside[0].matrix_flops.sum()
    assert half[half.op == "all_reduce"]["count"].sum() == 3 * 4 + 4  # two streams of two sums, one for single blocks


def test_ulysses_and_tensor_parallel_together():
    asked = {"image": "128x128", "input_len": 64}
    one, four = (denoise(FLUX_SMALL, **asked, **plan).phases["denoise"].ops for plan in ({}, {"sp": 2, "tp": 2}))
    assert four[four.op == "attention"].matrix_flops.sum() * 4 == one[one.op == "attention"].matrix_flops.sum()


def test_ulysses_leaves_cross_attention_alone():
    """Every rank has the whole prompt: only self-attention exchanges heads."""
    ops = denoise(WAN_TINY, frames=5, input_len=20, sp=2).phases["denoise"].ops
    assert ops[ops.op == "all_to_all"]["count"].sum() == 4 * 3
    attention = ops[ops.op == "attention"]
    whole = denoise(WAN_TINY, frames=5, input_len=20).phases["denoise"].ops
    assert attention.matrix_flops.sum() * 2 == whole[whole.op == "attention"].matrix_flops.sum()


def test_folders(tmp_path):
    def put(name: str, content: dict) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    put("pipe/transformer/config.json", {"_class_name": "WanTransformer3DModel", **WAN_TINY})
    put("pipe/transformer_2/config.json", WAN_TINY)
    put(
        "pipe/vae/config.json",
        {"_class_name": "AutoencoderKLWan", "scale_factor_spatial": 16, "scale_factor_temporal": 8},
    )
    put("pipe/model_index.json", {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]})
    for reference in ("pipe", "pipe/transformer", "pipe/transformer/config.json"):
        estimate = denoise(str(tmp_path / reference), frames=9)
        ops = estimate.phases["denoise"].ops
        tokens = 2 * (128 // 32) ** 2
        assert ops[ops.module == "proj_out"].matrix_flops.sum() == 2 * tokens * 128 * 64
        assert any("AutoencoderKLWan" in warning for warning in estimate.warnings)
    assert any("transformer_2" in w for w in denoise(str(tmp_path / "pipe"), frames=9).warnings)
    put("alone/config.json", WAN_TINY)
    ops = denoise(str(tmp_path / "alone"), frames=9).phases["denoise"].ops
    assert ops[ops.module == "proj_out"].matrix_flops.sum() == 2 * 3 * 64 * 128 * 64


def test_the_cache_tells_sizes_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path))
    asked = {"model": FLUX_SMALL, "hw": "h100-sxm", "input_len": 64}
    figures = [tc.simulate(**asked, image=image).phases["denoise"]["matrix_flops"] for image in ("64x64", "128x128")]
    assert figures[0] < figures[1]
    again = [tc.simulate(**asked, image=image).phases["denoise"]["matrix_flops"] for image in ("64x64", "128x128")]
    assert again == figures
    assert tc.simulate(**asked, image="64x64", batch=3).phases["denoise"]["matrix_flops"] == pytest.approx(
        3 * figures[0], rel=0.01
    )
    assert tc.simulate(**{**asked, "input_len": 128}, image="64x64").phases["denoise"]["matrix_flops"] > figures[0]


def test_a_class_and_an_instance_given_as_python():
    from diffusers import FluxTransformer2DModel

    class Own(FluxTransformer2DModel):
        pass

    fields = {k: v for k, v in FLUX_SMALL.items() if k != "_class_name"}
    with torch.device("meta"):
        module = Own(**fields)
    model = tc.build_model(module)
    assert (model.architecture, model.parameters) == ("Own", tc.build_model(FLUX_SMALL).parameters)


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the published configurations are not in this checkout")
@pytest.mark.parametrize(
    ("folder", "architecture", "tokens"),
    [
        ("FLUX.1-dev", "FluxTransformer2DModel", 4096),
        ("Qwen-Image-Edit", "QwenImageTransformer2DModel", 2 * 4096),  # the picture that is changed beside the result
        ("Wan2.2-T2V-A14B-Diffusers", "WanTransformer3DModel", 21 * 4096),
    ],
)
def test_published_pipelines(folder, architecture, tokens):
    asked = {"hw": "h200-sxm", "image": "1024x1024", "guidance": "none"}
    estimate = tc.simulate(model=str(CONFIGS / folder / "transformer"), **asked)
    assert estimate.to_dict()["model"]["architecture"] == architecture
    ops = estimate.phases["denoise"].ops
    width = {"FluxTransformer2DModel": 3072 * 64, "QwenImageTransformer2DModel": 3072 * 64}.get(architecture, 5120 * 64)
    assert ops[ops.module == "proj_out"].matrix_flops.sum() == 2 * tokens * width
