"""Whole diffusion pipelines: text encoders, denoising steps, VAE; guidance, caches, components in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tensorcast as tc
from tensorcast.answer import Answer
from tensorcast.diffusion.published import use_of
from tensorcast.errors import DeploymentError, InputError, ModelError
from tensorcast.models import entries
from tensorcast.models.build import build_blueprint, count_parameters
from tensorcast.models.reference import VAE, resolve_model
from tensorcast.request import Request
from tests.later import later
from tests.models.counting import counted, real
from tests.models.denoisers import FLUX_SMALL, UNET, WAN_TINY
from tests.models.pipelines import FLUX, FLUX_PARTS, KL, VAES, WAN, WAN_PARTS, flops, made, written

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "model_configs" / "diffusers"
PIPELINES = {entry.name: entry for entry in entries.all_pipelines()}
PARTS = sorted(path.stem for path in entries.PARTS.glob("*.yaml"))
# What the hub shows beside the published safetensors files.
PUBLISHED = {
    "flux.1-dev": 11_901_408_320,
    "wan2.2-t2v-a14b": 14_288_491_584,
    "sdxl-base": 2_567_463_684,
    "sd3.5-large": 8_056_627_520,
    "qwen-image": 20_430_401_088,
    "clip-l": 123_060_480,
    "clip-bigg-projection": 694_659_840,
    "t5-xxl": 4_762_310_656,
    "qwen2.5-vl-7b": 8_292_166_656,
}


# -- the catalogue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_denoisers_have_the_stated_parameters(name):
    entry = PIPELINES[name]
    assert count_parameters(build_blueprint(resolve_model(name)).module) == entry.parameters
    assert entry.parameters == PUBLISHED.get(name, entry.parameters)
    assert entry.source.startswith("https://")
    assert [resolve_model(other).name for other in (entry.hub_id, *entry.aliases)] == [name] * (1 + len(entry.aliases))


@pytest.mark.parametrize("name", PARTS)
def test_components_have_the_stated_parameters(name):
    part = entries.read_part(name)
    assert count_parameters(build_blueprint(resolve_model(part["config"])).module) == part["parameters"]
    assert part["parameters"] == PUBLISHED.get(name, part["parameters"])
    assert part["source"].startswith("https://")


def test_the_models_asked_for_are_there():
    asked = """flux.1-dev flux.1-schnell qwen-image qwen-image-edit wan2.1-t2v-14b wan2.2-t2v-a14b hunyuanvideo
    sd3.5-large sdxl-base cogvideox-5b ltx-video pixart-sigma"""
    assert set(asked.split()) <= set(PIPELINES)
    assert set(PIPELINES) <= {row["name"] for row in entries.list_models()}


@pytest.mark.parametrize(
    ("pipeline", "guidance"),
    [
        ("FluxPipeline", "none"),  # its scale is an input of the denoiser
        ("HunyuanVideoPipeline", "none"),
        ("WanPipeline", "passes"),
        ("QwenImagePipeline", "passes"),
        ("StableDiffusion3Pipeline", "batch"),
        ("StableDiffusionXLPipeline", "batch"),
        ("CogVideoXPipeline", "batch"),
        ("LTXPipeline", "batch"),
        ("PixArtSigmaPipeline", "batch"),
    ],
)
def test_how_pipelines_guide(pipeline, guidance):
    assert use_of(pipeline).guidance == guidance


def test_what_pipelines_say_of_sizes():
    assert (use_of("WanPipeline").height, use_of("WanPipeline").width) == (480, 832)
    assert use_of("StableDiffusion3Pipeline").clip_tokens == 77
    assert use_of("HunyuanVideoPipeline").template_tokens == 95
    assert use_of("QwenImagePipeline").template_tokens == 34
    edit, plus = use_of("QwenImageEditPipeline"), use_of("QwenImageEditPlusPipeline")
    assert (edit.coded_area, edit.seen_area) == (1024**2, 1024**2)
    assert (plus.coded_area, plus.seen_area) == (1024**2, 384**2)
    assert use_of("NoSuchPipeline") is None


# -- the sum -----------------------------------------------------------------------------------------------------------


def test_latency_is_encoders_steps_and_decoder(flux):
    estimate = made(flux, batch=2)
    seconds = {name: phase["step_time_s"] for name, phase in estimate.phases.items()}
    assert list(seconds) == ["text_encoder", "denoise", "vae"]
    metrics = estimate.metrics
    whole = seconds["text_encoder"] + 10 * seconds["denoise"] + seconds["vae"]
    assert metrics["image_latency_s"] == metrics["request_latency_s"] == pytest.approx(whole, rel=1e-12)
    assert metrics["images_per_s"] == pytest.approx(2 / whole)
    assert metrics["denoise_step_s"] == pytest.approx(seconds["denoise"])
    alone = made(FLUX_SMALL, batch=2)
    assert flops(alone) == flops(estimate)
    assert {op["module"].partition(".")[0] for op in estimate.to_dict()["phases"]["text_encoder"]["ops"]} == {
        "text_encoder", "text_encoder_2",
    }  # fmt: skip


def test_steps_and_sizes_that_nobody_asked_for_are_the_pipelines(flux, tmp_path):
    work = tc.simulate(model=flux, hw="h100-sxm").to_dict()["workload"]
    assert (work["steps"], work["image"], work["input_len"], work["guidance"]) == (28, "1024x1024", 512, "none")
    work = Request.of(model="flux.1-schnell", hw="h100-sxm").work
    assert (work.steps, work.input_len) == (4, 256)
    work = Request.of(model="wan2.1-t2v-14b", hw="h100-sxm").work
    assert (work.steps, work.image, work.frames, work.guidance) == (50, "480x832", 81, "passes")
    own = written(tmp_path / "own", {**FLUX, "_class_name": "MyPipeline"}, FLUX_PARTS)
    work = Request.of(model=own, hw="h100-sxm").work  # as most pipelines take that have the same denoiser
    assert (work.steps, work.guidance) == (28, "none")


def test_memory_holds_every_component_and_the_largest_activations(flux):
    request = Request.of(model=flux, hw="h100-sxm", image="128x128", input_len=20)
    alone = [Answer(replace(stage.request, stages=())) for stage in request.stages]
    alone.append(Answer(replace(request, stages=())))
    memory = made(flux).memory
    parts = made(flux).to_dict()["model"]["components"]
    assert [part["name"] for part in parts] == ["text_encoder", "text_encoder_2", "denoiser", "vae"]
    assert memory["weights_bytes"] == sum(answer.memory().weights for answer in alone)
    assert memory["weights_bytes"] == sum(part["weights_bytes"] for part in parts)
    assert memory["weights_bytes"] == 2 * sum(part["parameters"] for part in parts)
    assert memory["activation_peak_bytes"] == max(int(answer.memory().activation_peak) for answer in alone)


def test_two_experts_are_in_memory_and_one_runs_a_step(wan):
    both = made(wan, frames=1)
    one = made(WAN_TINY, frames=1, guidance="passes")
    assert flops(both) == flops(one)
    parts = {part["name"]: part["weights_bytes"] for part in both.to_dict()["model"]["components"]}
    assert parts["transformer"] == parts["transformer_2"] == one.memory["weights_bytes"]
    assert both.memory["weights_bytes"] == sum(parts.values())


def test_what_does_not_fit_says_what_would(flux):
    memory = made(flux).memory
    largest = max(part["weights_bytes"] for part in made(flux).to_dict()["model"]["components"])
    fixed = memory["total_bytes"] - memory["weights_bytes"]
    between = (fixed + (memory["weights_bytes"] + largest) / 2) / memory["capacity_bytes"]
    tight = made(flux, gpu_memory_utilization=between).memory
    assert not tight["fits"]
    assert any("one component in memory at a time" in text for text in tight["suggestions"])


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_every_encoder_reads_the_prompt_as_it_does(flux):
    stages = {stage.name: stage.request.work for stage in Request.of(model=flux, hw="h100-sxm").stages}
    assert (stages["text_encoder"].input_len, stages["text_encoder_2"].input_len) == (77, 512)
    stages = {stage.name: stage.request.work.input_len for stage in Request.of(model="sd3.5-large", hw="h100").stages}
    assert stages == {"text_encoder": 77, "text_encoder_2": 77, "text_encoder_3": 256, "vae": 1}
    (llama, *_) = Request.of(model="hunyuanvideo", hw="h100").stages
    assert llama.request.work.input_len == 256 + 95


def test_a_negative_prompt_is_encoded_too(wan):
    def encoded(guidance: str) -> float:
        stage = Request.of(model=wan, hw="h100-sxm", image="32x32", frames=1, guidance=guidance).stages[0]
        return Answer(stage.request, cache=False).phases["text_encoder"].totals["matrix_flops"]

    assert 2 * encoded("none") == encoded("passes") == encoded("batch")


@pytest.mark.parametrize("name", ["text_encoder", "text_encoder_2"])
def test_work_of_a_text_encoder_is_what_torch_counts(flux, name):
    import transformers

    stage = next(s for s in Request.of(model=flux, hw="h100-sxm", input_len=20, image="64x64").stages if s.name == name)
    config = FLUX_PARTS[name]
    made_by = getattr(transformers, config["architectures"][0])
    plain = {key: value for key, value in config.items() if key not in ("architectures", "model_type")}
    module = made_by(made_by.config_class(**plain)).eval()
    module.config._attn_implementation = "eager"
    tokens = torch.ones((1, stage.request.work.input_len), dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(input_ids=tokens)
    whole = counter.get_total_flops()
    if name == "text_encoder":  # torch counts the half of CLIP's pairs that its causal mask hides
        whole -= 4 * (77 * 77 - 77 * 78 // 2) * config["hidden_size"] * config["num_hidden_layers"]
    assert Answer(stage.request, cache=False).phases["text_encoder"].totals["matrix_flops"] == whole


# -- the decoder -------------------------------------------------------------------------------------------------------


def decoded(config: dict, frames: int, *, reuse: bool = True, batch: int = 1) -> Answer:
    """The answer of a VAE alone."""
    request = Request.of(
        model=FLUX_SMALL, hw="h100-sxm", image="32x32", input_len=8, batch=batch, reuse=reuse, guidance="none"
    )
    source = replace(resolve_model(config), phases=VAE)
    work = replace(request.work, phase="vae", frames=frames, input_len=1)
    return Answer(replace(request, source=source, work=work), cache=False)


@pytest.mark.parametrize("kind", VAES)
def test_work_of_a_decoder_is_what_torch_counts(kind):
    frames = 1 if kind in ("AutoencoderKL", "AutoencoderKLQwenImage") else 9
    module = real(VAES[kind])
    config = module.config
    channels = config.get("latent_channels") or config.get("z_dim")
    space, time = (32, 8) if kind == "AutoencoderKLLTXVideo" else (8, 4)
    sizes = (channels, (frames - 1) // time + 1, 32 // space, 32 // space)
    latents = torch.ones((1, *(sizes if kind != "AutoencoderKL" else (channels, 4, 4))))
    module.forward = lambda latents: module.decode(latents, return_dict=False)
    products, attention = counted(module, {"latents": latents})
    totals = decoded(VAES[kind], frames).phases["vae"].totals
    assert totals["matrix_flops"] == products + attention > 0


@pytest.mark.parametrize(
    "kind",
    later(["AutoencoderKLWan", "AutoencoderKLCogVideoX", "AutoencoderKLHunyuanVideo"], ["AutoencoderKLWan"]),
)
def test_frames_that_repeat_are_counted_exactly(kind):
    some, every = (decoded(VAES[kind], 13, reuse=reuse) for reuse in (True, False))
    assert some.phases["vae"].totals == pytest.approx(every.phases["vae"].totals, rel=1e-12)
    assert some.phases["vae"].step_time_s == pytest.approx(every.phases["vae"].step_time_s, rel=1e-9)
    # What a call keeps may share storage with something else it keeps; when it is put back it does not.
    most = some.memory().activation_peak
    assert every.memory().activation_peak <= most <= 1.15 * every.memory().activation_peak
    assert kind == "AutoencoderKLCogVideoX" or most == every.memory().activation_peak
    assert len(some.phases["vae"].ops) <= len(every.phases["vae"].ops)


# -- pictures that are given -------------------------------------------------------------------------------------------


def test_an_edited_picture_is_seen_encoded_and_read_in_every_step():
    asked = {"hw": "h200-sxm", "layers": 3, "steps": 2, "image": "1024x1024"}
    plain, edit = (tc.simulate(model=name, **asked) for name in ("qwen-image", "qwen-image-edit"))
    assert list(edit.phases) == ["text_encoder", "vae_encoder", "denoise", "vae"]
    out = [
        next(op for op in e.to_dict()["phases"]["denoise"]["ops"] if op["module"] == "proj_out") for e in (plain, edit)
    ]
    assert 2 * out[0]["matrix_flops"] == out[1]["matrix_flops"]
    prompts = [
        next(op for op in e.to_dict()["phases"]["denoise"]["ops"] if op["module"] == "txt_in") for e in (plain, edit)
    ]
    seen = (1036 // 28) ** 2  # the processor scales to multiples of 28 pixels; 2 x 2 patches of 14 become a token
    assert prompts[1]["matrix_flops"] / prompts[0]["matrix_flops"] == pytest.approx((512 + seen) / 512)
    assert edit.to_dict()["workload"]["input_len"] == 512
    modules = {op["module"] for op in edit.to_dict()["phases"]["text_encoder"]["ops"]}
    assert any("visual" in module for module in modules)
    assert plain.memory["weights_bytes"] == edit.memory["weights_bytes"]  # the VAE is there once
    assert "vae_encoder_s" in edit.metrics


# -- components that are missing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "parts", "message"),
    [
        (FLUX, {"vae": None}, r"vae/config.json: missing, and the pipeline names vae \(AutoencoderKL\)"),
        (FLUX, {"text_encoder_2": None}, "text_encoder_2/config.json: missing"),
        (FLUX, {"text_encoder": {"architectures": ["CLIPTextModel"]}}, "states its class and no sizes"),
        (FLUX, {"vae": {**KL, "_class_name": "AutoencoderKX"}}, "no model class 'AutoencoderKX'; nearest: Autoencoder"),
        (FLUX, {"vae": FLUX_SMALL}, "FluxTransformer2DModel cannot decode"),
        ({**FLUX, "vae": "AutoencoderKL"}, {}, r"vae is 'AutoencoderKL'; it must be \[\"library\", \"class\"\]"),
    ],
)
def test_components_that_cannot_be_costed(tmp_path, index, parts, message):
    folder = written(tmp_path / "pipe", index, {**FLUX_PARTS, **parts})
    with pytest.raises(ModelError, match=message):
        made(folder)
    if isinstance(index["vae"], list):
        assert list(made(folder, phase="denoise").phases) == ["denoise"]
        assert tc.build_model(folder).architecture == "FluxTransformer2DModel"


def test_experts_of_two_shapes(tmp_path):
    folder = written(tmp_path / "pipe", WAN, {**WAN_PARTS, "transformer_2": {**WAN_TINY, "num_layers": 4}})
    with pytest.raises(ModelError, match="transformer_2 is not shaped as the first denoiser"):
        made(folder, frames=5)


def test_a_component_without_weights_and_one_that_is_not_costed(tmp_path):
    index = {**FLUX, "feature_extractor": ["transformers", "CLIPImageProcessor"], "tokenizer_2": [None, None]}
    index |= {"image_encoder": ["transformers", "CLIPVisionModel"], "safety_checker": [None, None]}
    said = made(written(tmp_path / "pipe", index, FLUX_PARTS)).warnings
    assert "image_encoder (CLIPVisionModel) of this pipeline is not costed and not in memory" in said
    assert not any("feature_extractor" in text or "safety_checker" in text for text in said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfg_parallel": 2}, "one prediction a step"),
        ({"cfg_parallel": 3}, "--cfg-parallel 3: guidance has two predictions"),
        ({"guidance": "both"}, "--guidance 'both': one of none, batch, passes"),
        ({"phase": "vae"}, "--phase vae: this model has auto, denoise"),
        ({"image": "100x128"}, "multiples of 16 for FluxTransformer2DModel; nearest: 96 and 112"),
        ({"model": "sd3.5-large", "input_len": 77}, "77 tokens of the prompt are CLIP's"),
        ({"model": UNET, "dit_cache": "every=2"}, "UNet2DConditionModel has no list of blocks"),
        ({"model": "qwen3-0.6b", "cfg_parallel": 2}, "does not go with qwen3-0.6b"),
        ({"model": "qwen3-0.6b", "guidance": "batch"}, "--guidance does not go with qwen3-0.6b"),
    ],
)
def test_requests_that_cannot_be(flux, options, message):
    asked = {"image": "128x128", **options}
    if options.get("model") == "qwen3-0.6b":
        del asked["image"]
    with pytest.raises((InputError, DeploymentError), match=message):
        tc.simulate(hw="h100-sxm", **{"model": flux, **asked})


@pytest.mark.skipif(not CONFIGS.is_dir(), reason="the published configurations are not in this checkout")
def test_a_component_that_states_only_its_class_is_taken_from_the_catalogue():
    folder, name = (
        tc.simulate(model=model, hw="h100-sxm", image="256x256")
        for model in (str(CONFIGS / "FLUX.1-dev"), "flux.1-dev")
    )
    assert folder.metrics["image_latency_s"] == name.metrics["image_latency_s"]
    assert folder.memory == name.memory
    assert any("taken from the catalogue's flux.1-dev" in text for text in folder.warnings)
