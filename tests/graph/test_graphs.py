"""Graphs beyond the documented example: another make, experts, fused products, lists; and those without sense."""

# ruff: noqa: F811  (fixtures are imported)
from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.errors import CustomModelError, ModelError
from tests.acceptance.one_file import (  # noqa: F401
    HW,
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


class Foreign:
    """A graph class of another make: `build` writes plain nodes to `graph`."""

    def __init__(self) -> None:
        self.graph = []
        self.shapes, self.config = {"t.weight": (320, 64)}, {"max_positions": 1024}

    def build(self) -> None:
        node = {"input": {"name": "inputIds", "type": "data"}, "weight": {"name": "t.weight", "type": "weight"}}
        self.graph.append({"type": "Embedding", "nodes": node | {"output": {"name": "x", "type": "data"}}})
        head = {"name": "", "type": "constant.int", "value": 8}
        self.graph.append({"type": "ExpandHeads", "nodes": {"input": {"name": "x", "type": "data"}, "headDim": head}})


def test_a_graph_of_another_make_is_taken() -> None:
    found = tc.simulate(model=Foreign(), hw=HW, input_len=64, output_len=1)
    assert found.to_dict()["model"]["parameters"] == 320 * 64
    assert rows(found)["embedding", "t"]["count"] == 1


ATTEND = """
a = weight["l."][0][".self_attn"]
for name in ("q", "k", "v"):
    self.Linear(data["x"], a[f".{name}_proj.weight"], a[".none"], data[name])
    self.ExpandHead(data[name], 16)
"""
MIX = """
self.FusedAttention(data["q"], data["pastKey."][0], data["pastValue."][%s], data["k"], data["v"], data["x"],
                    data["attentionMask"], data["y"], data["seqLens"], 0.25%s)
"""
SHAPES = {"model.embed_tokens.weight": (320, 64), "*.w*": (64, 64), "*_proj.weight": (64, 64), "b": (64,)}
OVER = 'self.Linear(data["x"], weight["l.0.self_attn.weight"], weight["none"], data["y"])'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (MIX % (1, ""), "k is 'pastKey.0' and v is 'pastValue.1'"),
        (MIX % (0, ", 2"), "maskType 2 is not modelled; 0 is"),
        (MIX % (0, "") + MIX % (0, ""), "'pastKey.0' is the cache of operator 8 (FusedAttention) already"),
        ('self.Add(data["attentionMask"], 1.0, data["y"])', "input is 'attentionMask', which is no tensor"),
        ('self.AddTo(data["x"], data["q"])', "input0 has shape [T, 64], input1 [T, 4, 16]"),
        ('self.Split(data["x"], 1, 8, 65, data["y"])', "start 8, end 65 of 64 elements"),
        ('self.Cat(data["x"], data["x"], 0, data["y"])', "axis 0 of shape [T, 64] is tokens or sequences"),
        ('self.ExpandHead(data["x"], 48)', "input 'x' has shape [T, 64], not a multiple of headDim 48"),
        ('self.Embedding(data["x"], weight["l.0.weight"], data["y"])', "input 'x' has shape [T, 64]; token ids"),
        ('self.Linear(data["x"], weight["l.0.w"], weight["b"], data["y"])', "such a weight ends in .weight"),
        ('self.Linear(data["x"], weight["l.0.weight"], weight["b"], data["y"])', "its name would be l.0.bias"),
        (MIX % (0, "") + OVER, "l.0.self_attn is the path of another module too (Attention); rename its weights"),
    ],
)
def test_graphs_that_make_no_sense_end_in_one_line(refused, body, said) -> None:
    assert said in refused(graph(TABLE + ATTEND.strip() + "\n" + body.strip(), shapes=SHAPES))


def test_products_in_a_list_are_no_layers(folder, write) -> None:
    body = 'for i in range(4):\n    self.Linear(data["x"], weight["l."][i][".weight"], weight["none"], data["x"])'
    mine = write("mine.py", graph(TABLE + body, shapes={"model.embed_tokens.weight": (320, 64), "l.*": (64, 64)}))
    found = simulated(folder(TINY), mine)
    assert [module for _, module in rows(found)] == ["model.embed_tokens", "l.0", "l.1", "l.2", "l.3"]


def test_a_class_may_bring_its_own_configuration_and_an_empty_build_is_an_error() -> None:
    class Own(tc.ComputeGraph):
        config = {"max_positions": 512}  # noqa: RUF012
        shapes = {"t.weight": (320, 64)}  # noqa: RUF012

        def build(self):
            self.config["seen"] = True
            self.Embedding(self.data["inputIds"], self.weight["t.weight"], self.data["y"])

    assert tc.simulate(model=Own, hw=HW, input_len=64, output_len=1).to_dict()["model"]["parameters"] == 320 * 64
    assert Own.config == {"max_positions": 512}

    class Idle(Own):
        def build(self):
            pass

    with pytest.raises(CustomModelError, match=r"Idle: build\(\) calls no operator"):
        tc.simulate(model=Idle, hw=HW)
    with pytest.raises(CustomModelError, match=r"ComputeGraph has no build\(\)"):
        tc.simulate(model=tc.ComputeGraph, hw=HW)


def test_experts_of_a_graph_are_found_routed_and_spread(write) -> None:
    shapes = {
        "model.embed_tokens.weight": (320, 64),
        "l.*.gate.weight": (8, 64),
        "l.*.gate_up_proj": (8, 96, 64),
        "l.*.experts.down_proj": (8, 64, 48),
        "l.*.shared.up_proj.weight": (32, 64),
        "l.*.shared.down_proj.weight": (64, 32),
    }
    moe = 'for i in range(3):\n    m = weight["l."][i][".mlp"]\n    self.MoE(data["x"], m[".gate.weight"], '
    moe += 'm[".experts.gate_up_proj"], m[".experts.down_proj"], 2, data["y"])\n    self.AddTo(data["x"], data["y"])'
    moe += '\n    s = m[".shared."]\n    self.Linear(data["x"], s["up_proj.weight"], s["up_proj.bias"], data["u"])'
    moe += '\n    self.Silu(data["u"], data["u"])'
    moe += '\n    self.Linear(data["u"], s["down_proj.weight"], s["down_proj.bias"], data["x"])'
    mine = write("mine.py", graph(f'config["max_positions"] = 4096\n{TABLE}{moe}', shapes=shapes))
    one, two = (simulated(None, mine, tp=n, ep=n) for n in (1, 2))
    assert flops(one, "moe_experts") == 3 * 512 * 2 * 2 * 3 * 64 * 48 == 2 * flops(two, "moe_experts")
    reduces = [r for (op, module), r in rows(two).items() if op == "all_reduce" and module.startswith("l.")]
    assert [(r["module"], r["count"]) for r in reduces] == [("l.*.mlp", 3)]  # one sum for routed and shared
    active = 320 * 64 + 3 * (8 * 64 + 2 * 3 * 64 * 48 + 2 * 64 * 32)
    assert one.to_dict()["model"]["active_parameters"] == active


def test_a_fused_projection_is_split_where_its_parts_are(write) -> None:
    shapes = {"model.embed_tokens.weight": (320, 64), "*.qkv_proj.weight": (128, 64), "*.o_proj.weight": (64, 64)}
    body = """
a = weight["l."][0][".self_attn"]
self.Linear(data["x"], a[".qkv_proj.weight"], a[".qkv_proj.bias"], data["qkv"])
for name, start, end in (("q", 0, 64), ("k", 64, 96), ("v", 96, 128)):
    self.Split(data["qkv"], -1, start, end, data[name])
    self.ExpandHead(data[name], 16)
self.FusedAttention(data["q"], data["pastKey."][0], data["pastValue."][0], data["k"], data["v"], data["x"],
                    data["attentionMask"], data["y"], data["seqLens"], 0.25)
self.Linear(data["y"], a[".o_proj.weight"], a[".o_proj.bias"], data["x"])
"""
    mine = write("mine.py", graph(f'config["max_positions"] = 4096\n{TABLE}{body.strip()}', shapes=shapes))
    one, two = (simulated(None, mine, tp=n) for n in (1, 2))
    assert flops(one, "attention") == 2 * flops(two, "attention") == 4 * 4 * 16 * 512 * 513 / 2
    assert flops(one, "linear") == 2 * flops(two, "linear") == 512 * 2 * 64 * (128 + 64)
    with pytest.raises(ModelError, match="Split"):
        simulated(None, mine, tp=4)  # two KV heads over four ranks: a fused product of other parts
