"""Model folders, files of a user and what became of them: shared by the tests of models in one file."""

from __future__ import annotations

import json

import pytest

import tensorcast as tc
from tests.acceptance.conftest import ROOT

FILE = ROOT / "custom_model" / "qwen2_graph.py"
SMALL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "hidden_act": "silu",
    "rope_theta": 1e6, "torch_dtype": "bfloat16",
}  # fmt: skip
TINY = SMALL | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 8, "vocab_size": 320,
    "max_position_embeddings": 4096,
}  # fmt: skip
LINEARS = 366_686_666_752
HEAD_ROW = 2 * 896 * 151936
HW = "ascend-910b"


@pytest.fixture(autouse=True)
def alone(own_folder):
    """Every test has a folder of its own."""


@pytest.fixture
def folder(tmp_path):
    """`folder(config)` is a model folder with that config.json."""

    def folder(config, name="model"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        return str(tmp_path / name)

    return folder


@pytest.fixture
def write(tmp_path):
    """`write(name, text)` is a file of the user."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def refused(run, write, folder):
    """What the command line says of a file: one line and exit code 2."""

    def refused(text, config=TINY, *args):
        path = write("mine.py", text)
        code, out, err = run("simulate", "--model", folder(config), "--custom", path, "--hw", HW, *args)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err

    return refused


def simulated(model=None, custom=FILE, **options):
    options = {"input_len": 512, "output_len": 8, "cache": False, "hw": HW} | options
    return tc.simulate(model=model, custom=custom, **options)


def flops(estimate, op, phase="prefill"):
    return sum(row["matrix_flops"] for row in estimate.to_dict()["phases"][phase]["ops"] if row["op"] == op)


def rows(estimate, phase="prefill"):
    return {(row["op"], row["module"]): row for row in estimate.to_dict()["phases"][phase]["ops"]}


def graph(body, head="", shapes=None):
    """Text of a file with a graph; `body` is what build does."""
    lines = "\n".join(f"        {line}" for line in body.strip().split("\n"))
    stated = f"    shapes = {shapes!r}\n" if shapes else ""
    return (
        f"from tensorcast import ComputeGraph\n{head}\nclass Mine(ComputeGraph):\n{stated}    def build(self):\n"
        f"        weight, data, config = self.weight, self.data, self.config\n{lines}\n\n__model__ = Mine\n"
    )


TABLE = 'self.Embedding(data["inputIds"], weight["model.embed_tokens.weight"], data["x"])\n'
HEAD = 'self.Linear(data["x"], weight["lm_head.weight"], weight["lm_head.bias"], data["logits"])\n'
