"""Images on the command line: `--image HxW`, once for every image of a request."""

from __future__ import annotations

import json

import pytest

ASKED = ("simulate", "--hw", "h100-sxm", "--layers", "2", "--input-len", "100", "--output-len", "10")


@pytest.fixture
def simulated(run, plain_folder):
    """Runs the verb in this process; gives the JSON and the printed report."""

    def simulated(*flags: str) -> tuple[dict, str]:
        code, text, err = run(*ASKED, *flags, "--json", "out.json")
        assert code == 0, err
        return json.loads((plain_folder / "out.json").read_text()), text

    return simulated


def test_two_images_of_a_request(simulated):
    answer, text = simulated("--model", "qwen3-vl-2b", "--image", "1024x1024", "--image", "448x448")
    assert answer["workload"]["images"] == ["1024x1024", "448x448"]
    assert answer["workload"]["image_tokens"] == 1024 + 196 and answer["workload"]["input_len"] == 100
    assert "images 1024x1024, 448x448 · image tokens 1,220" in text
    assert "\nVision " in text and text.index("\nVision ") < text.index("\nPrefill ") < text.index("\nDecode ")
    vision, prefill = answer["phases"]["vision"], answer["phases"]["prefill"]
    assert answer["metrics"]["ttft_s"] == pytest.approx(vision["step_time_s"] + prefill["step_time_s"], rel=1e-12)
    modules = {op["module"].split(".")[1] for op in vision["ops"] if op["module"]}
    assert modules == {"visual", "language_model"}
    assert {op["op"] for op in vision["ops"] if "visual" not in op["module"]} == {"join_images"}
    assert not any("visual" in op["module"] for op in prefill["ops"])


def test_the_same_size_twice_is_two_images(simulated):
    answer, _ = simulated("--model", "qwen3-vl-2b", "--image", "448x448", "--image", "448x448")
    assert answer["workload"]["image_tokens"] == 2 * 196


def test_without_images_nothing_changes(simulated):
    answer, text = simulated("--model", "qwen3-vl-2b")
    assert list(answer["phases"]) == ["prefill", "decode"] and "images" not in answer["workload"]
    said = " ".join(text.split())
    assert "model.visual (" in said and "; --image HxW runs what images need" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--model", "qwen3-0.6b", "--image", "448x448"), "its configuration has no vision part"),
        (("--model", "qwen3-vl-2b", "--image", "448"), "--image '448': height x width in pixels"),
        (("--model", "qwen3-vl-2b", "--image", "448x448", "--seq-lens", "9,8"), "does not go with --seq-lens"),
        (("--model", "qwen3-vl-2b", "--image", "28x8000"), "refuses the images"),
    ],
)
def test_bad_images_are_one_line_and_exit_2(run, plain_folder, flags, said):
    flags = (*ASKED, *flags) if "--seq-lens" not in flags else ("simulate", "--hw", "h100-sxm", *flags)
    code, text, err = run(*flags)
    assert code == 2 and text == ""
    assert said in err and err.count("\n") == 1
