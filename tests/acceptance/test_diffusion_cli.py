"""Whole diffusion pipelines from the command line."""

from __future__ import annotations

import json
import time

import pytest

from tests.models.pipelines import FLUX, FLUX_PARTS, WAN, WAN_PARTS, written


@pytest.fixture
def answered(tensorcast):
    """The JSON of a command that must end well."""

    def answered(*args: str) -> dict:
        result = tensorcast("simulate", "--hw", "h100-sxm", "--json", "-", *args)
        assert result.code == 0, result.err
        return json.loads(result.out)

    return answered


def test_flux_answers_in_seconds(tensorcast, answered):
    asked = ("--model", "flux.1-dev", "--image", "1024x1024", "--steps", "28")
    began = time.perf_counter()
    estimate = answered(*asked)
    assert time.perf_counter() - began < 60
    assert estimate["model"]["parameters"] == 11_901_408_320
    assert list(estimate["phases"]) == ["text_encoder", "denoise", "vae"]
    seconds = {name: phase["step_time_s"] for name, phase in estimate["phases"].items()}
    metrics = estimate["metrics"]
    whole = seconds["text_encoder"] + 28 * seconds["denoise"] + seconds["vae"]
    assert metrics["image_latency_s"] == pytest.approx(whole)
    assert 2 < whole < 8  # published runs of this size on this machine: 3 to 7 s
    assert [part["parameters"] for part in estimate["model"]["components"]] == [
        123_060_480, 4_762_310_656, 11_901_408_320, 83_819_683,
    ]  # fmt: skip
    report = tensorcast("simulate", "--hw", "h100-sxm", *asked)
    for text in ("text_encoder_2 T5EncoderModel", "one denoising step", "all denoising steps", "latents to pixels"):
        assert text in report.out
    assert max(map(len, report.out.splitlines())) <= 80


def test_flags_of_a_pipeline(answered, tmp_path):
    folder = written(tmp_path / "wan", WAN, WAN_PARTS)
    asked = ("--model", folder, "--image", "64x64", "--frames", "5", "--steps", "6", "--input-len", "16")
    plain, parallel = answered(*asked), answered(*asked, "--cfg-parallel", "2", "--dit-cache", "every=2")
    assert plain["workload"]["guidance"] == "passes"
    assert parallel["hardware"]["devices"] == 2
    flops = [estimate["phases"]["denoise"]["matrix_flops"] for estimate in (plain, parallel)]
    assert flops[0] == 2 * flops[1]
    assert parallel["phases"]["denoise_cached"]["matrix_flops"] < flops[1]
    once = answered(*asked, "--guidance", "none")
    assert once["phases"]["denoise"]["matrix_flops"] == flops[1]
    assert [part["name"] for part in plain["model"]["components"]] == [
        "text_encoder", "transformer", "transformer_2", "vae",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        ({"vae": None}, (), "vae/config.json: missing"),
        ({"text_encoder": {"architectures": ["CLIPTextModel"]}}, (), "states its class and no sizes"),
        ({}, ("--cfg-parallel", "2"), "one prediction a step"),
        ({}, ("--dit-cache", "now"), "--dit-cache 'now'"),
        ({}, ("--image", "100x128"), "nearest: 96 and 112"),
        ({}, ("--image", "128x128", "--frames", "5"), "makes single images"),
    ],
)
def test_bad_input_is_one_line(tensorcast, tmp_path, parts, options, said):
    folder = written(tmp_path / "pipe", FLUX, {**FLUX_PARTS, **parts})
    result = tensorcast("simulate", "--model", folder, "--hw", "h100-sxm", *options)
    assert result.code == 2, result.out
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
