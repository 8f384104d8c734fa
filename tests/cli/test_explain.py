"""`tensorcast list WHAT --explain NAME`: what a name means, by which rule, and what it passes over."""

from __future__ import annotations

import json

import pytest

import tensorcast as tc
from tensorcast.hardware.load import names

HOW = {
    "models": "list them with `tensorcast list models`",
    "ops": "list them with `tensorcast list ops`",
    "profiles": "list them with `tensorcast list profiles`",
    "pipelines": "list them with `tensorcast list pipelines`",
    "hardware": "tensorcast list hardware",
    "kernels": "ops with kernels: attention",
}


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """An empty folder, and catalogs of profiles and pipelines that forget what a test registers."""
    from tensorcast.custom.sources import NONE

    NONE.load()
    monkeypatch.chdir(tmp_path)
    with tc.PROFILES.isolated(), tc.PIPELINES.isolated(), tc.OPERATORS.isolated():
        yield


def explained(run, *args: str) -> dict:
    code, out, err = run("list", *args, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)


def _pipelines() -> None:
    for key in ("*", "deepseek_*", "deepseek_v3"):
        tc.register_custom_model(key)(lambda model: model)


@pytest.mark.parametrize(
    ("name", "key", "why", "passed"),
    [
        ("DeepSeek-V3", "deepseek_v3", "the exact model type", ["deepseek_*", "*"]),
        ("deepseek_v32", "deepseek_*", "the most specific pattern that fits: 9 literal characters, 1 *", ["*"]),
        ("own_type", "*", "the most specific pattern that fits: 0 literal characters, 1 *", "nothing else fits"),
    ],
)
def test_a_pipeline_by_its_name_or_the_most_specific_pattern(run, name, key, why, passed):
    _pipelines()
    told = explained(run, "pipelines", "--explain", name)
    assert (told["resolves_to"], told["why"], told["rather_than"]) == (key, why, passed)
    assert told["origin"].startswith("tests/cli/test_explain.py:") or "test_explain.py:" in told["origin"]


def test_a_model_name_leads_to_its_type_and_no_entry_says_what_happens(run):
    tc.register_custom_model("qwen3")(lambda model: model)
    tc.register_custom_model("qwen3", replace=True)(lambda model: model)
    told = explained(run, "pipelines", "--explain", "qwen3-8b")
    assert told["model_type"] == "qwen3 (of the model qwen3-8b)" and "test_explain.py:" in told["replaces"]
    told = explained(run, "pipelines", "--explain", "mistral")
    assert (told["resolves_to"], told["why"]) == ("no entry", "none fits: the nine standard steps run")
    assert explained(run, "profiles", "--explain", "llama4")["origin"] == "builtin"


def test_a_registered_type_without_a_pipeline_of_its_own(run):
    """`--like` starts a file with a profile alone; the question for its pipeline has an answer too."""
    tc.register_model_profile(tc.ModelProfile(model_type="explained_moe"))
    _, out, _ = run("list", "pipelines", "--explain", "explained_moe")
    assert "explained_moe (a registered model type)" in out and "the nine standard steps run" in out


def test_two_patterns_that_fit_equally_well_are_an_error(run):
    for key in ("a*c", "ab*"):
        tc.register_custom_model(key)(lambda model: model)
    code, _, err = run("list", "pipelines", "--explain", "abc")
    assert code == 2 and "'a*c'" in err and "'ab*'" in err


@pytest.mark.parametrize(
    ("name", "resolved", "why"),
    [
        ("DeepSeek_V3", "deepseek-v3", "the name of a known model"),
        ("Qwen/Qwen3-8B", "qwen3-8b", "the hub id of the known model qwen3-8b"),
        ("./mine", "mine", "a folder or file"),
    ],
)
def test_a_model_by_the_first_place_that_has_it(run, tmp_path, name, resolved, why):
    from tensorcast.models.entries import find_entry

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(find_entry("qwen3-8b").config))
    told = explained(run, "models", "--explain", name)
    assert (told["resolves_to"], told["why"]) == (resolved, why)
    assert told["looked_in"].startswith("--custom with __model__, known models, folder or file, hub id")
    assert told["architecture"].endswith("ForCausalLM") and told["pipeline"] == "none fits: the nine standard steps run"


def test_a_kernel_named_by_the_machine_by_the_file_and_by_default(run, tmp_path, monkeypatch):
    named = explained(run, "kernels", "--explain", "attention=flash", "--hw", "ascend-910b")
    assert (named["resolves_to"], named["why"], named["available"]) == ("flash", "named", "yes, on ascend-910b2")
    assert "eager" in named["rather_than"]
    default = explained(run, "kernels", "--explain", "attention")
    assert (default["resolves_to"], default["why"]) == ("flash", "the op's own default")
    text = names()["h100-sxm"].read_text().replace("name: h100-sxm", "name: mine")
    (tmp_path / "mine.yaml").write_text(text + "kernels: {attention: eager}\n")
    table = explained(run, "kernels", "--explain", "attention", "--hw", "mine.yaml")
    assert (table["resolves_to"], table["why"]) == ("eager", "the table of mine")
    (tmp_path / "tensorcast.toml").write_text('[kernels]\nattention = "paged"\n')
    asked = explained(run, "kernels", "--explain", "attention", "--hw", "mine.yaml")
    assert (asked["resolves_to"], asked["why"]) == ("paged", "./tensorcast.toml asks for it")


def test_an_operator_and_one_that_nobody_described(run):
    told = explained(run, "ops", "--explain", "linear")
    assert (told["family"], told["origin"]) == ("gemm", "builtin") and told["schema"].startswith("linear(Tensor x")
    assert "priced by its bytes alone" in explained(run, "ops", "--explain", "mylib::fast")["why"]


def test_a_machine_by_name_alias_and_path_and_what_it_hides(run, tmp_path):
    assert explained(run, "hardware", "--explain", "h100")["why"] == "an alias of h100-sxm"
    assert explained(run, "hardware", "--explain", "H100_SXM")["why"] == "the name of a known machine"
    (tmp_path / "hardware_profiles").mkdir()
    own = tmp_path / "hardware_profiles" / "h100-sxm.yaml"
    own.write_text(names()["h100-sxm"].read_text())
    told = explained(run, "hardware", "--explain", "h100-sxm")
    assert told["file"] == str(own) and told["hides"][0].endswith("hardware_profiles/h100-sxm.yaml")
    other = own.rename(tmp_path / "elsewhere.yaml")
    assert explained(run, "hardware", "--explain", str(other))["why"] == "the path of a file"


@pytest.mark.parametrize(
    ("what", "name", "near"),
    [
        ("models", "qwen3-8bb", "nearest: qwen3-8b"),
        ("profiles", "llama44", "nearest: llama4"),
        ("pipelines", "deepseek_v9", "nearest: deepseek_v3"),
        ("kernels", "atention", "nearest: attention"),
        ("ops", "linea", "nearest: linear"),
        ("hardware", "h1000", "nearest: h100"),
    ],
)
def test_an_unknown_name_is_one_line_with_near_names(run, what, name, near):
    tc.register_custom_model("deepseek_v3")(lambda model: model)
    code, out, err = run("list", what, "--explain", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert near in err and HOW[what] in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("kernels", "--explain", "attention=flsh"), "has no kernel 'flsh'; nearest: flash"),
        (("kernels", "--explain", "attention/foo=flash"), "no variant 'foo'"),
        (("ops", "--explain", "linear", "--hw", "h100"), "--hw goes with `tensorcast list kernels`"),
        (("models", "--explain", " "), "--explain"),
    ],
)
def test_a_wrong_question_is_one_line(run, args, said):
    code, out, err = run("list", *args)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_text_is_a_fact_a_line(run):
    _pipelines()
    out = run("list", "pipelines", "--explain", "deepseek-v3")[1]
    assert out.splitlines()[:5] == [
        "asked: deepseek-v3",
        "model type: deepseek_v3 (a model type of transformers)",
        "resolves to: deepseek_v3",
        "why: the exact model type",
        "rather than: deepseek_*, *",
    ]
