"""Models in one file: graphs of named operators, modules, functions of the configuration, and what is wrong with them.

Figures of the 0.5 B model at 512 tokens: all products of transformers' own model are addmm 25 367 150 592 FLOP (q, k, v
with bias) and mm 341 319 516 160; the head is among them with one row, that of the last token.
"""

# ruff: noqa: F811  (fixtures are imported)
from __future__ import annotations

import json
import struct

import pytest

import tensorcast as tc
from tensorcast.cli.main import cli
from tensorcast.custom import loading
from tensorcast.errors import CustomModelError, DeploymentError, InputError
from tests.acceptance.conftest import ROOT
from tests.acceptance.one_file import (  # noqa: F401
    FILE,
    HEAD,
    HEAD_ROW,
    HW,
    LINEARS,
    SMALL,
    TABLE,
    TINY,
    alone,
    flops,
    folder,
    graph,
    refused,
    rows,
    simulated,
    write,
)  # fmt: skip

# -- A1.1: the documented example ----------------------------------------------------------------------------------


def test_a1_1_the_example_has_the_figures_of_transformers_own_model(folder) -> None:
    model = folder(SMALL)
    ours, theirs = simulated(model), simulated(model, custom=None)
    assert flops(ours, "linear") == flops(theirs, "linear") == LINEARS == 25_367_150_592 + 341_319_516_160
    assert ours.to_dict()["model"]["parameters"] == theirs.to_dict()["model"]["parameters"] == 494_032_768
    assert rows(ours)["linear", "lm_head"]["matrix_flops"] == HEAD_ROW
    for phase in ("prefill", "decode"):
        one, other = (e.to_dict()["phases"][phase] for e in (ours, theirs))
        assert one["matrix_flops"] == other["matrix_flops"]
        assert one["step_time_s"] == pytest.approx(other["step_time_s"], rel=1e-3)  # the last norm has one row here
    # every weight lies where its name in the checkpoint says
    ours, theirs = (tc.build_model(model=model, custom=c).module for c in (FILE, None))
    assert {n for n, _ in ours.named_parameters()} == {n for n, _ in theirs.named_parameters()}
    assert ours.lm_head.weight is ours.model.embed_tokens.weight


def test_a1_1_the_example_has_461_operators_and_388_names(folder) -> None:
    source = tc.build_model(model=folder(SMALL), custom=FILE).blueprint.source
    recorded = source.custom.value
    weights = {node["name"] for op in recorded.graph for node in op["nodes"].values() if node["type"] == "weight"}
    assert len(recorded.graph) == 461 and len(weights) == 388


def test_a1_1_reusing_layers_changes_nothing(folder) -> None:
    model = folder(TINY | {"num_hidden_layers": 5})
    once, each = simulated(model, batch=3).to_dict(), simulated(model, batch=3, reuse=False).to_dict()
    assert once["phases"] == each["phases"] and once["memory"] == each["memory"]


def test_a1_1_the_example_needs_no_torch_to_be_imported(tmp_path) -> None:
    import subprocess
    import sys

    text = f"import runpy, sys; runpy.run_path({str(FILE)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT, timeout=60).returncode == 0


# -- A1.2, A1.3: modules and functions of the configuration ------------------------------------------------------------

NET = """
import torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.{up} = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.{down} = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, input_ids, position_ids):
        return self.{down}(self.{up}(self.embed(input_ids)).relu())
"""


def net(up="up_proj", down="down_proj", end="__model__ = MyNet"):
    return NET.format(up=up, down=down) + f"\n{end}\n"


def test_a1_2_a_module_runs_and_its_known_leaves_are_split(folder, write) -> None:
    model, mine = folder(TINY), write("net.py", net())
    whole, half = (simulated(model, mine, output_len=1, tp=tp) for tp in (1, 2))
    assert flops(whole, "linear", "forward") == 2 * flops(half, "linear", "forward") == 2 * 512 * 2 * 64 * 96
    assert ("all_reduce", "down_proj") in rows(half, "forward")


def test_a1_2_a_profile_splits_any_other_leaf_and_without_one_it_is_an_error(folder, write) -> None:
    model, names = folder(TINY | {"model_type": "mine_of_a1", "architectures": ["MyNet"]}), ("wide", "narrow")
    with pytest.raises(DeploymentError, match="--tp 2: no tensor-parallel plan for MyNet; add `tp_plan`"):
        simulated(model, write("net.py", net(*names)), output_len=1, tp=2)
    plan = '{"wide": "column", "narrow": "row"}'
    end = (
        f'import tensorcast as tc\ntc.register_model_profile(tc.ModelProfile(model_type="mine_of_a1", tp_plan={plan}))'
    )
    half = simulated(model, write("net2.py", net(*names, end=f"{end}\n__model__ = MyNet")), output_len=1, tp=2)
    assert flops(half, "linear", "forward") == 512 * 2 * 64 * 96


def test_a1_3_a_function_of_the_configuration_and_a_class_of_transformers(folder, write) -> None:
    model = folder(TINY)
    made = net(end="def __model__(config):\n    return MyNet(config)")
    assert flops(simulated(model, write("net.py", made), output_len=1), "linear", "forward") == 4 * 512 * 64 * 96
    mine = write("own.py", "from transformers import Qwen2ForCausalLM\n__model__ = Qwen2ForCausalLM\n")
    own, stock = simulated(model, mine), simulated(model, None)
    assert own.to_dict()["phases"] == stock.to_dict()["phases"]


# -- A1.4 to A1.6: files that do not load ------------------------------------------------------------------------------


def test_a1_4_a_file_that_contributes_nothing(refused) -> None:
    assert "mine.py defines no __model__ and registers nothing" in refused("x = 1\n")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("nothing.py", None, "nothing.py: no such file or folder"),
        ("empty", "", "empty: a folder without __init__.py"),
        ("notes.txt", "", "notes.txt: not a .py file, a package folder or a graph's .json"),
        ("broken.py", "x = 1\ndef f(:\n", "broken.py:2: invalid syntax"),
        ("fails.py", "x = 1\n\nraise ValueError('no\\nluck')\n", "fails.py:3: ValueError: no luck"),
        ("two.py", "import math\n__model__ = [int, str]\n", "two.py:2: __model__ names 2 models"),
        ("graph.json", "[1", "graph.json: no readable JSON"),
        ("graph2.json", "{}", "graph2.json: no graph"),
        ("number.py", "__model__ = 7\n", "7 is no model"),
    ],
)
def test_a1_5_bad_files_end_in_one_line(run, write, folder, tmp_path, name, text, said) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    elif text is not None:
        write(name, text)
    code, out, err = run("simulate", "--model", folder(TINY), "--custom", name, "--hw", HW)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err and "Traceback" not in err


def test_a1_5_the_traceback_is_there_with_debug(run, write, folder) -> None:
    write("fails.py", "raise ValueError('no luck')\n")
    code, _, err = run("simulate", "--model", folder(TINY), "--custom", "fails.py", "--hw", HW, "--debug")
    assert code == 2 and "Traceback" in err and "no luck" in err


def test_a1_5_the_import_of_the_other_framework_is_explained(refused) -> None:
    text = FILE.read_text().replace("from tensorcast import", "from ftllm.llm import")
    said = refused(text)
    assert "mine.py:9: ftllm is not installed; write `from tensorcast import ComputeGraph`" in said


def test_a1_6_dataclasses_with_future_annotations(folder, write) -> None:
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
    head += "@dataclass\nclass S:\n    n: int = 3\n"
    text = FILE.read_text()
    start = text.index('"""', 3) + 3
    mine = write("mine.py", f"{text[:start]}\n{head}{text[start:]}")
    assert simulated(folder(TINY), mine).to_dict()["model"]["architecture"] == "Qwen2Graph"


# -- A1.7: the configuration -------------------------------------------------------------------------------------------


def edited(line):
    return FILE.read_text().replace('config["max_positions"] = config["max_position_embeddings"]', line)


def test_a1_7_fewer_layers_set_in_build_are_fewer_layers_costed(folder, write) -> None:
    model = folder(TINY)
    two = simulated(model, write("mine.py", edited('config["num_hidden_layers"] = 2')))
    assert rows(two)["linear", "model.layers.*.mlp.down_proj"]["count"] == 2
    assert two.to_dict()["phases"] == simulated(model, layers=2).to_dict()["phases"]


def test_a1_7_the_context_is_bounded(folder, write, refused) -> None:
    bounded = edited('config["max_positions"] = 128')
    said = refused(bounded, TINY, "--input-len", "129", "--output-len", "1")
    assert "130 tokens are more than model takes (max_positions 128" in said
    simulated(folder(TINY), write("fits.py", bounded), input_len=120)
    longer = write("longer.py", edited('config["max_positions"] = 8192'))
    simulated(folder(TINY), longer, input_len=8000)  # more than config.json says


@pytest.mark.parametrize("field", ["seq_length", "n_positions"])
def test_a1_7_other_names_of_the_bound_count_and_none_is_an_error(folder, write, refused, field) -> None:
    config = {k: v for k, v in TINY.items() if k != "max_position_embeddings"} | {"max_window_layers": 3}
    said = refused(edited("pass"), config)
    assert "config['max_positions']" in said and f"{field}" in said
    mine = write("other.py", edited("pass"))
    with pytest.raises(InputError, match=r"more than model takes \(max_positions 256"):
        simulated(folder(config | {field: 256}), mine)


def test_a1_7_a_change_that_build_takes_back_is_an_error(folder, write) -> None:
    mine = write("mine.py", edited('config["num_hidden_layers"] = 2'))
    with pytest.raises(CustomModelError, match=r"num_hidden_layers 1 is asked, but build\(\) sets 2 itself"):
        simulated(folder(TINY), mine, overrides={"num_hidden_layers": 1})
    with pytest.raises(CustomModelError, match="num_hidden_layers 1 is asked"):
        simulated(folder(TINY), mine, layers=1)


# -- A1.8 to A1.11: operators, names, shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('self.Conv9(data["x"])', "no operator 'Conv9'; the operators are Add, AddTo, Cat,"),
        ('self.Lineer(data["x"])', "no operator 'Lineer'; nearest: Linear; the operators are Add,"),
        ('self.Silu(data["x"])', "Silu lacks output: Silu(input, output)"),
        ('self.Silu(data["x"], data["y"], 3)', "Silu takes 2 arguments, 3 are given"),
        ('self.Silu(data["x"], out=data["y"])', "Silu has no argument 'out'"),
        ('self.Silu(data["x"], weight["y"])', "operator 2 (Silu): output is weight['y']; write data[name]"),
        ('self.Mul(data["x"], "2", data["y"])', "operator 2 (Mul): v is '2', not a number"),
        ('self.ExpandHead(data["x"], 2.5)', "operator 2 (ExpandHead): headDim is 2.5, not a whole number"),
        ('self.Silu(data["x"], data["inputIds"])', "writes 'inputIds', which is an input"),
        ('config["hidden"]', "the configuration has no 'hidden'"),
    ],
)
def test_a1_8_a_wrong_call_is_one_line_with_its_place(refused, line, said) -> None:
    found = refused(graph(TABLE + line))
    assert said in found and "mine.py:7" in found


def test_a1_9_data_that_nobody_wrote(refused) -> None:
    found = refused(graph(TABLE + 'self.Silu(data["hiddenState"], data["y"])'))
    assert "mine.py:7: operator 2 (Silu): reads 'hiddenState', which no operator before it writes" in found
    names = TABLE.replace('data["x"]', 'data["hiddenStates"]') + 'self.Silu(data["hiddenState"], data["y"])'
    assert "nearest: 'hiddenStates'" in refused(graph(names))


def test_a1_9_weights_without_a_shape_are_listed_at_once_with_the_three_ways(refused) -> None:
    body = TABLE + HEAD + 'self.RMSNorm(data["x"], weight["one.weight"], 1e-6, data["y"])\n'
    body += 'self.RMSNorm(data["x"], weight["two.weight"], 1e-6, data["y"])'
    said = refused(graph(body))
    assert "no shape is known of one.weight, two.weight; " in said
    assert "`shapes`" in said and "safetensors" in said and "transformers" in said


def test_a1_10_a_product_that_does_not_fit_names_operator_shapes_and_weight(refused) -> None:
    line = 'self.Linear(data["x"], weight["up.weight"], weight["up.bias"], data["y"])'
    said = refused(graph(TABLE + line, shapes={"up.weight": (96, 32), "model*": (320, 64)}))
    assert "mine.py:8: operator 2 (Linear): input 'x' has shape [T, 64], weight up.weight has shape [96, 32]" in said
    said = refused(graph(TABLE + line, shapes={"up.weight": (96, 64), "up.bias": (64,), "model*": (320, 64)}))
    assert "bias up.bias has shape [64], its weight has 96 outputs" in said
    said = refused(graph(TABLE + line, shapes={"up.weight": (96, -64), "model*": (320, 64)}))
    assert "shapes['up.weight'] is (96, -64); a shape is a tuple of whole numbers" in said


def test_a1_11_a_tied_head_is_counted_once_and_an_untied_one_must_have_a_shape(folder, write) -> None:
    shapes = {"model.embed_tokens.weight": (320, 64)}
    own = {k: v for k, v in TINY.items() if k not in ("model_type", "architectures")}
    mine = write("mine.py", graph(TABLE + HEAD, shapes=shapes))
    tied = folder(own | {"model_type": "mine"}, "tied")
    built = tc.build_model(model=tied, custom=mine)
    assert built.parameters == 320 * 64
    assert built.module.lm_head.bias is None
    untied = folder(own | {"model_type": "mine", "tie_word_embeddings": False}, "untied")
    with pytest.raises(CustomModelError, match=r"no shape is known of lm_head\.weight"):
        tc.build_model(model=untied, custom=mine)


def test_a1_11_shapes_of_a_checkpoint_come_before_those_of_transformers(folder, tmp_path) -> None:
    model = folder(TINY)
    blueprint = tc.build_model(model=model).module
    header = {
        n: {"dtype": "BF16", "shape": list(p.shape), "data_offsets": [0, 0]} for n, p in blueprint.named_parameters()
    }
    del header["model.layers.1.self_attn.q_proj.bias"]
    text = json.dumps(header).encode()
    (tmp_path / "model" / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    layers = tc.build_model(model=model, custom=FILE).module.model.layers
    assert [layer.self_attn.q_proj.bias is None for layer in layers] == [False, True, False]


# -- A1.12 to A1.15: deployment ----------------------------------------------------------------------------------------


def test_a1_12_the_file_is_cut_and_quantised_by_the_names_of_its_weights(folder) -> None:
    model = folder(SMALL)
    whole, half = simulated(model), simulated(model, tp=2, quant="w8a8")
    reduces = [r for (op, _), r in rows(half).items() if op == "all_reduce" and "layers" in r["module"]]
    assert {r["module"] for r in reduces} == {"model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"}
    assert [r["count"] for r in reduces] == [24, 24]
    assert flops(half, "linear") == LINEARS / 2
    built = tc.build_model(model=model, custom=FILE, tp=2, quant="w8a8").module.model.layers[0]
    shapes = {n: tuple(m.weight.shape) for n, m in built.named_modules() if n.endswith("_proj")}
    assert shapes["self_attn.q_proj"] == (448, 896) and shapes["self_attn.k_proj"] == (64, 896)
    assert shapes["mlp.gate_proj"] == shapes["mlp.up_proj"] == (2432, 896)
    assert shapes["self_attn.o_proj"] == (896, 448) and shapes["mlp.down_proj"] == (896, 2432)
    bytes_ = [e.to_dict()["memory"]["weights_bytes"] for e in (whole, half)]
    layers = 24 * (2 * 896 * 896 + 2 * 896 * 128 + 3 * 896 * 4864)
    assert bytes_[0] - 2 * bytes_[1] == pytest.approx(layers, rel=0.01)  # one byte a weight instead of two


def test_a1_12_kv_heads_fewer_than_ranks_are_replicated_and_said(folder) -> None:
    model = folder(TINY)
    four = simulated(model, tp=4).to_dict()
    assert any(
        "KV heads replicated over ranks in 3 layers" in w and "each is kept 2 times" in w for w in four["warnings"]
    )
    k = tc.build_model(model=model, custom=FILE, tp=4).module.model.layers[0].self_attn.k_proj
    assert k.out_features == 8  # one of two heads of 8
    with pytest.raises(DeploymentError, match=r"8 heads.*values that divide: 1, 2, 4, 8"):
        simulated(model, tp=3)


def test_a1_13_decode_reads_the_cache_and_keeps_it_in_units(folder) -> None:
    model = folder(SMALL)
    told = simulated(model, phase="decode", input_len=4096, output_len=1, batch=8)
    attention = rows(told, "decode")["attention", "model.layers.*.self_attn"]
    token = 2 * 2 * 64 * 2  # keys and values of two heads, bf16
    queries = 8 * 14 * 64 * 2
    assert attention["read_bytes"] == 24 * (8 * (4096 + 1) * token + queries)  # the token before and its own
    kept = told.memory["kv_cache_bytes"]
    assert kept == 24 * 8 * token * 33 * 128  # 4097 tokens are 33 units of 128
    other = simulated(model, input_len=4096 - 8 - 100, output_len=8, batch=8)
    assert other.memory["kv_cache_bytes"] == 24 * 8 * token * 32 * 128


def test_a1_14_a_ragged_batch(folder) -> None:
    model = folder(SMALL)
    one = simulated(model)
    lengths = (100, 300, 112)
    ragged = tc.simulate(model=model, custom=FILE, hw=HW, seq_lens=lengths, output_len=8, cache=False)
    assert flops(ragged, "linear") == LINEARS + 2 * HEAD_ROW  # three rows for the head
    assert rows(ragged)["linear", "lm_head"]["matrix_flops"] == 3 * HEAD_ROW
    assert flops(ragged, "attention") == sum(24 * 14 * 4 * 64 * n * (n + 1) / 2 for n in lengths)
    assert flops(one, "attention") == 24 * 14 * 4 * 64 * 512 * 513 / 2


def test_a1_14_one_forward_of_a_ragged_batch_has_a_row_for_every_sequence(folder) -> None:
    from tensorcast.trace.run import trace_step

    model = tc.build_model(model=folder(TINY), custom=FILE)
    calls = trace_step(model, "prefill", 3, 0, 0, ((100, 0), (300, 64), (112, 0))).calls
    heads = [c.dims["m"] for c in calls if c.module == "lm_head"]
    assert heads == [3]
    assert [c.dims["q"] for c in calls if c.op == "attention"][:3] == [100, 300, 112]
    assert [c.dims["kv"] for c in calls if c.op == "attention"][:3] == [100, 364, 112]


def test_a1_15_fusion_is_a_choice_of_kernels(folder) -> None:
    model = folder(SMALL)
    fused = simulated(model, kernel=["qkv_proj=fused", "swiglu=fused"])
    eager = simulated(model, kernel=["qkv_proj=eager", "swiglu=eager"])
    for phase in ("prefill", "decode"):
        one, other = (e.to_dict()["phases"][phase] for e in (fused, eager))
        counts = [sum(row["count"] for row in p["ops"] if "layers" in row["module"]) for p in (one, other)]
        assert counts[1] - counts[0] == 4 * 24
        assert one["matrix_flops"] == other["matrix_flops"]
        assert one["read_bytes"] + one["write_bytes"] < other["read_bytes"] + other["write_bytes"]


# -- A1.16, A1.17: written graphs, one flag everywhere -----------------------------------------------------------------


def test_a1_16_a_written_graph_gives_the_same_costs(run, folder, write, tmp_path) -> None:
    model = folder(TINY)
    mine = write("mine.py", edited('config["max_positions"], config["num_hidden_layers"] = 600, 2'))
    work = ("--hw", HW, "--input-len", "512", "--output-len", "8", "--quiet")
    assert (
        run("simulate", "--model", model, "--custom", mine, *work, "--json", "a.json", "--dump-graph", "g.json")[0] == 0
    )
    assert run("simulate", "--model", model, "--custom", "g.json", *work, "--json", "b.json")[0] == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    for field in ("phases", "memory", "metrics", "kernels", "steps", "warnings"):
        assert one[field] == other[field]
    written = json.loads((tmp_path / "g.json").read_text())
    assert [sorted(op) for op in written["graph"]] == [["nodes", "type"]] * (5 + 2 * 19)
    alone = tc.simulate(custom="g.json", hw=HW, input_len=512, output_len=8, cache=False)  # it has its configuration
    assert alone.to_dict()["phases"] == one["phases"]
    with pytest.raises(InputError, match="max_positions 600"):
        tc.simulate(model=model, custom="g.json", hw=HW, input_len=593, output_len=8)
    with pytest.raises(CustomModelError, match="num_hidden_layers cannot be changed"):
        tc.simulate(model=model, custom="g.json", hw=HW, layers=1)


def test_a1_16_zero_constants_and_fields_of_the_configuration_are_kept(write) -> None:
    from tensorcast.graph.recording import record

    shapes = {"model.embed_tokens.weight": (320, 64)}
    mine = write("mine.py", graph(TABLE + 'self.Split(data["x"], -1, 0, 32, data["y"])', shapes=shapes))
    first = record(loading.load(loading.Path(mine)).custom.value, {"max_positions": 8})
    text = first.to_json()
    assert json.loads(text)["graph"][1]["nodes"]["start"] == {"name": "", "type": "constant.int", "value": 0}
    again = record(tc.ComputeGraph.from_json(write("g.json", text)), {"max_positions": 8})
    assert again.graph == first.graph and again.to_json() == text
    named = text.replace('"type": "constant.int",\n     "value": 32', '"type": "config.int"').replace(
        '"end": {\n     "name": ""', '"end": {\n     "name": "width"'
    )
    assert "config.int" in named
    field = record(tc.ComputeGraph.from_json(write("h.json", named)), {"max_positions": 8, "width": 16})
    assert field._record().ops[1].values["end"] == 16
    with pytest.raises(CustomModelError, match="the configuration has no 'width'"):
        record(tc.ComputeGraph.from_json("h.json"), {"max_positions": 8})


def test_a1_16_only_a_graph_can_be_written(run, folder) -> None:
    code, _, err = run("simulate", "--model", folder(TINY), "--hw", HW, "--input-len", "64", "--dump-graph", "-")
    assert code == 2 and "--dump-graph: model is not given as a ComputeGraph" in err


def test_a1_17_the_flag_means_the_same_in_python_and_on_the_command_line(run, folder, write) -> None:
    model = folder(TINY)
    mine = write("mine.py", FILE.read_text())
    code, out, _ = run("simulate", "--model", model, "--custom", mine, "--hw", HW, "--input-len", "64", "--json", "-")
    assert code == 0
    assert json.loads(out)["phases"] == tc.simulate(model=model, custom=mine, hw=HW, input_len=64).to_dict()["phases"]
    registers = "import tensorcast as tc\n@tc.register_custom_model('mine_of_a1_17')\ndef deploy(model):\n    pass\n"
    code, out, _ = run("list", "pipelines", "--custom", write("pipes.py", registers))
    assert code == 0 and "mine_of_a1_17" in out and "pipes.py:2" in out


@pytest.mark.parametrize("verb", ["simulate", "sweep", "check", "list"])
def test_a1_17_every_verb_has_the_flag(verb) -> None:
    command = cli.get_command(None, verb)
    if command is None:
        pytest.skip(f"{verb} is no verb yet")
    names = {option for parameter in command.params for option in parameter.opts}
    assert {"--custom", "--no-custom-dir", "--no-plugin"} <= names
