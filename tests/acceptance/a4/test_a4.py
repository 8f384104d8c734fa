"""Packed models: where their classes come from. Acceptance tests A4.1 to A4.6 of the five front doors."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import tensorcast as tc
from tensorcast.custom import loading
from tensorcast.errors import DuplicateError, InputError, ModelError
from tests.acceptance.a4.models import (
    CONFIG,
    HEAD,
    MINE,
    REGISTERED,
    REPLACING,
    SHORT,
    SOURCE,
    UNTYPED,
    calls,
    count,
    flops,
    folder,
    opt,
    shape_of,
    write,
)

ROOT = Path(__file__).resolve().parents[3]
OPT_EXAMPLE = str(ROOT / "custom_model" / "opt_example")


def test_a4_1_the_example_package_is_costed_in_place_of_transformers_class(run):
    name = opt("opt-125m")
    flags = ("--hw", "h100", "--input-len", "64", "--output-len", "4", "--json", "out.json")
    code, out, err = run("simulate", "--model", name, "--custom", OPT_EXAMPLE, *flags)
    assert code == 0, err
    model = json.loads(Path("out.json").read_text())["model"]
    ours = (
        r"OPTForCausalLM from .*custom_model/opt_example/modeling_opt\.py:\d+, in place of transformers OPTForCausalLM"
    )
    assert re.search(ours, model["origin"])
    assert model["parameters"] == 125_239_296
    assert re.search(r"OPTForCausalLM from .*modeling_opt\.py:\d+", " ".join(out.split()))


def test_a4_1_without_it_transformers_class_is_costed():
    model = tc.build_model(opt("opt-125m"))
    assert model.blueprint.origin == "transformers OPTForCausalLM"
    assert model.parameters == 125_239_296


def test_a4_1_the_project_folder_brings_it_along(monkeypatch):
    name = str(Path(opt("opt-125m")).absolute())
    monkeypatch.chdir(ROOT)
    origin = tc.build_model(name).blueprint.origin
    assert re.match(r"OPTForCausalLM from custom_model/opt_example/modeling_opt\.py:\d+, in place of", origin)
    assert tc.build_model(name, custom_dir=False).blueprint.kind == "packed"  # still registered in this process


def test_a4_1_the_example_and_transformers_agree():
    name = opt("opt-125m")
    theirs = tc.build_model(name)
    ours = tc.build_model(name, custom=OPT_EXAMPLE)
    for phase, tokens, past in (("prefill", 64, 0), ("decode", 1, 100)):
        a, b = (calls(m, phase, 2, tokens, past) for m in (ours, theirs))
        for ops in (("linear",), ("attention",)):
            assert flops(a, *ops) == flops(b, *ops) > 0


def test_a4_1_the_350m_shape_norms_behind_and_projects():
    sizes = {"hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 320}
    name = opt("opt-350m", **sizes, word_embed_proj_dim=32, do_layer_norm_before=False)
    theirs = tc.build_model(name).parameters
    model = tc.build_model(name, custom=OPT_EXAMPLE, tp=2)
    assert model.parameters == theirs
    assert shape_of(model, "model.project_in.weight") == [64, 32]
    assert count(calls(model), "all_reduce") == 2 * 3 + 1  # attention and feed-forward of 3 layers, the vocabulary


@pytest.mark.parametrize("config_class", ["LlamaConfig", "PreTrainedConfig"])
def test_a4_2_registered_by_architecture_whatever_the_model_type(config_class):
    named = f", config_class={config_class})" if config_class == "PreTrainedConfig" else ")"
    head = (
        HEAD.format(config="LlamaConfig") if named == ")" else HEAD.format(config="dict").replace("[MyModel, dict]", "")
    )
    custom = write("mine.py", f'{SOURCE}@tc.register_auto_model("MyModelForCausalLM"{named}{head}')
    model = tc.build_model(folder(Path("m"), MINE), custom=custom)
    assert (model.blueprint.kind, model.blueprint.model_type) == ("packed", "my_model")
    assert type(model.config).__name__ == config_class
    assert re.match(r"MyModelForCausalLM from mine\.py:\d+$", model.blueprint.origin)
    assert len(model.steps) == 9


def test_a4_2_without_a_config_class_the_fields_are_those_of_the_file():
    custom = write("mine.py", SOURCE + '@tc.register_auto_model("MyModelForCausalLM")' + UNTYPED)
    assert tc.build_model(folder(Path("m"), MINE), custom=custom).config.intermediate_size == 688


@pytest.mark.parametrize("value", ["3", "lambda config: None", "type('Plain', (nn.Module,), {})"])
def test_a4_2_what_is_no_model_class_is_refused_where_it_is_registered(value):
    custom = write("mine.py", f'{SOURCE}\ntc.register_auto_model("MyModelForCausalLM")({value})\n')
    with pytest.raises(
        InputError, match=r"mine\.py:\d+: register_auto_model\('MyModelForCausalLM'\): .*must be a class"
    ):
        tc.build_model(folder(Path("m"), MINE), custom=custom)


def test_a4_3_unknown_architecture_says_where_was_looked_and_how_to_add_it(run):
    code, _, err = run("simulate", "--model", folder(Path("m"), MINE), "--hw", "h100")
    assert code == 2 and err.count("\n") == 1
    assert "no builder for architecture 'MyModelForCausalLM' (model_type 'my_model')" in err
    places = ["__model__", "register_auto_model", "diffusers", "transformers", "--trust-remote-code"]
    assert [err.index(place) for place in places] == sorted(err.index(place) for place in places)


def test_a4_3_architectures_left_out_or_empty_fall_to_the_model_type(run):
    for changes in ({}, {"architectures": []}):
        config = {k: v for k, v in CONFIG.items() if k != "architectures"} | changes
        assert tc.build_model(folder(Path("m"), config)).blueprint.architecture == "LlamaForCausalLM"
    neither = {k: v for k, v in CONFIG.items() if k not in ("architectures", "model_type")}
    code, _, err = run("simulate", "--model", folder(Path("n"), neither), "--hw", "h100")
    assert code == 2 and "neither model_type nor architectures" in err


def test_a4_4_a_class_transformers_has_needs_replace():
    custom = write("mine.py", REPLACING.replace(", replace=True", ""))
    with pytest.raises(
        DuplicateError, match=r"mine\.py:\d+: .*'LlamaForCausalLM'.*transformers LlamaForCausalLM.*replace"
    ):
        tc.build_model(folder(Path("m"), CONFIG), custom=custom)
    assert tc.BUILDERS.find("LlamaForCausalLM") is None


def test_a4_4_replaced_every_llama_uses_it_and_the_report_says_so():
    custom = write("mine.py", REPLACING)
    for name in (folder(Path("m"), CONFIG), "llama-3.2-1b"):
        origin = tc.build_model(name, custom=custom, layers=2).blueprint.origin
        assert re.match(r"MyModelForCausalLM from mine\.py:\d+, in place of transformers LlamaForCausalLM$", origin)
    bare = {k: v for k, v in CONFIG.items() if k != "architectures"}
    assert tc.build_model(folder(Path("n"), bare), custom=custom).blueprint.kind == "packed"
    write("again.py", REPLACING.replace(", replace=True", ""))
    with pytest.raises(DuplicateError, match=r"mine\.py:\d+ and at again\.py:\d+"):
        tc.build_model(folder(Path("m"), CONFIG), custom=["mine.py", "again.py"])


def test_a4_4_ours_is_a_class_like_any_other():
    write("mine.py", REGISTERED.replace("MyModelForCausalLM", "DeciLMForCausalLM"))
    with pytest.raises(DuplicateError, match="'DeciLMForCausalLM' is registered twice: at builtin"):
        tc.build_model(folder(Path("m"), CONFIG), custom="mine.py")


def test_a4_5_file_package_folder_and_import_give_the_same(monkeypatch, tmp_path, undone):
    name = folder(Path("m"), MINE)
    options = {"hw": "h100", "batch": 2, "input_len": 64, "output_len": 4}

    def figures(**more):
        with undone():
            out = tc.simulate(name, **options, **more).to_dict()
        origin = out["model"].pop("origin")
        return origin, {k: out[k] for k in ("model", "metrics", "memory", "phases")}

    write("modeling_mymodel.py", REGISTERED)
    write("own_package/__init__.py", "from .inner import MyModelForCausalLM\n")
    write("own_package/inner.py", REGISTERED)
    origin, file = figures(custom="modeling_mymodel.py")
    assert "MyModelForCausalLM from modeling_mymodel.py:" in origin
    origin, package = figures(custom="own_package")
    assert "MyModelForCausalLM from own_package/inner.py:" in origin
    write("custom_model/mine.py", REGISTERED)
    origin, dropped_in = figures()
    assert "MyModelForCausalLM from custom_model/mine.py:" in origin
    Path("custom_model/mine.py").unlink()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "modeling_mymodel", raising=False)
    with undone():
        importlib.import_module("modeling_mymodel")
        origin, imported = figures()
    assert "MyModelForCausalLM from modeling_mymodel.py:" in origin
    assert file == package == dropped_in == imported
    with pytest.raises(ModelError, match="no builder for architecture"):
        figures()


def test_a4_6_sub_packages_and_relative_imports(run):
    write("nested/__init__.py", "from .model.head import MyModelForCausalLM\n")
    write("nested/model/__init__.py", "")
    write(
        "nested/model/head.py", "from ..encoder.layers import *\nimport tensorcast as tc\n" + REGISTERED[len(SOURCE) :]
    )
    write("nested/encoder/__init__.py", "")
    write("nested/encoder/layers.py", SOURCE)
    name = folder(Path("m"), MINE)
    assert tc.build_model(name, custom="nested").blueprint.kind == "packed"
    Path("bare").mkdir()
    flags = ("--hw", "h100", *SHORT)
    code, _, err = run("simulate", "--model", name, "--custom", "bare", *flags)
    assert code == 2 and "bare: a folder without __init__.py; add one" in err
    write("nested/encoder/layers.py", "import no_such_dependency\n" + SOURCE)
    loading._loaded.clear()
    code, _, err = run("simulate", "--model", name, "--custom", "nested", *flags)
    assert code == 2 and "No module named 'no_such_dependency'" in err and "nested/encoder/layers.py:1" in err
    assert "architecture" not in err
