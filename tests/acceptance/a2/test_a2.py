"""Models as transformers knows them: registered classes, configurations, remote code, tied weights, overrides."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import tensorcast as tc
from tensorcast.errors import InputError, ModelError
from tests.acceptance.a2.models import PARAMETERS, QWEN3, WORK, folder, ops, step
from tests.acceptance.hand_written import CustomConfig, CustomEncoder, CustomModel

# -- A2.1, A2.2: models given as Python --------------------------------------------------------------------------------


def test_a2_1_registered_model_costed_unmodified(registered):
    found = tc.simulate(CustomConfig(hidden_size=32), hw="h100")
    assert found.metrics["ttft_s"] > 0 and found.metrics["tpot_s"] > 0
    model = found.to_dict()["model"]
    assert model["architecture"] == "CustomModel" and "hand_written.py:" in model["origin"]
    assert model["parameters"] == 320 * 32 + 32 + 4 * (4 * 32 * 32 + 3 * 32 * 96 + 2 * 32)
    assert "CustomModel has no output embeddings: no LM head is costed" in found.warnings
    assert not found.to_dict()["uncosted_ops"]


def test_a2_1_attention_by_hand_is_our_attention_or_its_operators(registered):
    named = {
        how: {op for op, module, _ in ops(tc.simulate(CustomConfig(attention=how), **WORK)) if "self_attn" in module}
        for how in ("eager", "products", "fused")
    }
    assert "attention" in named["eager"] and "attention" in named["fused"]
    assert not {"aten::bmm", "aten::_softmax"} & (named["eager"] | named["fused"])
    assert {"aten::bmm", "aten::_softmax"} <= named["products"] and "attention" not in named["products"]


def test_a2_1_flops_of_the_forms_of_attention(registered):
    """Both products over all pairs by hand, half of them where the kernel knows the mask; linears are the same."""
    flops = {
        how: tc.simulate(CustomConfig(attention=how), **WORK).phases["prefill"]["matrix_flops"]
        for how in ("eager", "products", "fused")
    }
    tokens = 2 * 128
    linears = 2 * tokens * (PARAMETERS - 320 * 64 - 64 - 4 * 2 * 64)
    pairs = 4 * 2 * 4 * 2 * 2 * 16  # layers, batch, heads, products, multiply and add, head dim
    assert flops["products"] == linears + pairs * 128 * 128
    assert flops["eager"] == flops["fused"] == linears + pairs * 128 * 129 // 2


def test_a2_1_decode_reads_the_cache(registered):
    short, long = (
        tc.simulate(CustomConfig(), hw="h100", phase="decode", input_len=n, output_len=2) for n in (100, 3000)
    )
    kv = 2 * 64 * 2  # keys and values of 4 heads of 16, in two bytes
    more = long.phases["decode"]["read_bytes"] - short.phases["decode"]["read_bytes"]
    assert more == pytest.approx(4 * kv * 2900, rel=0.02)


def test_a2_1_a_model_without_cache_has_one_phase():
    found = tc.simulate(CustomEncoder, hw="h100", input_len=128, batch=2)
    assert [*found.phases] == ["forward"] and found.metrics["tpot_s"] is None
    with pytest.raises(InputError, match="this model has auto, forward"):
        tc.simulate(CustomEncoder, hw="h100", phase="decode")


def test_a2_1_registered_type_by_folder_and_file(registered, tmp_path, run):
    config = {
        "model_type": "hand_written", "architectures": ["CustomModel"], "hidden_size": 32, "dtype": "bfloat16",
        "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 4096,
    }  # fmt: skip
    code, out, err = run("simulate", "--model", folder(tmp_path / "mine", config), "--hw", "h100", "--json", "-")
    assert code == 0, err
    own = tc.simulate(CustomConfig(hidden_size=32, dtype="bfloat16"), hw="h100").to_dict()
    assert json.loads(out)["metrics"] == own["metrics"]


def test_a2_1_the_step_is_sharded_and_quantised_like_any(registered):
    model = tc.build_model(CustomConfig(num_key_value_heads=2), "h100", tp=2, quant="w8a8")
    assert step(model, "shard_model").status == step(model, "quantize_model").status == "applied"
    assert model.module.layers[0].self_attn.q_proj.weight.shape == (32, 64)
    assert tc.simulate(CustomConfig(num_key_value_heads=2), tp=2, quant="w8a8", **WORK).metrics["tpot_s"] > 0


def test_a2_2_config_instance_equals_the_configuration(tmp_path):
    config = Qwen3Config(**{k: v for k, v in QWEN3.items() if k != "model_type"})
    found = {
        "folder": tc.simulate(folder(tmp_path / "toy", QWEN3), **WORK),
        "file": tc.simulate(str(tmp_path / "toy" / "config.json"), **WORK),
        "dict": tc.simulate(QWEN3, **WORK),
        "instance": tc.simulate(config, **WORK),
        "model": tc.simulate(Qwen3ForCausalLM(config).to(torch.bfloat16), **WORK),
    }
    assert {f.to_dict()["model"]["parameters"] for f in found.values()} == {138_112}
    for f in found.values():
        assert f.metrics == found["folder"].metrics and f.memory["weights_bytes"] == 138_112 * 2


def test_a2_2_config_instance_is_cached(monkeypatch):
    config = Qwen3Config(**{k: v for k, v in QWEN3.items() if k != "model_type"})
    first = tc.simulate(config, **WORK)
    monkeypatch.setattr("tensorcast.trace.deploy.deploy", lambda *a, **k: pytest.fail("traced again"))
    assert tc.simulate(config, **WORK).to_dict() == first.to_dict()


@pytest.mark.parametrize("given", [LlamaConfig, LlamaForCausalLM])
def test_a2_2_config_and_model_classes(given):
    found = tc.simulate(given, hw="h100", tp=1)
    assert found.to_dict()["model"]["parameters"] == 6_738_415_616
    assert any("LlamaConfig leaves" in note and "hidden_size=4096" in note for note in found.warnings)


def test_a2_2_own_model_class():
    assert tc.simulate(CustomModel, **WORK).to_dict()["model"]["parameters"] == PARAMETERS


def test_a2_2_instances_keep_what_was_changed_and_stay_as_they_are():
    own = Qwen3ForCausalLM(Qwen3Config(**QWEN3))
    own.model.layers = own.model.layers[:1]
    pointer = own.lm_head.weight.data_ptr()
    found = tc.build_model(own)
    layer = sum(p.numel() for p in own.model.layers[0].parameters())
    assert found.weight_params == found.parameters == 1000 * 64 + layer + 64
    assert {p.device.type for p in found.module.parameters()} == {"meta"}
    assert own.lm_head.weight.data_ptr() == pointer and own.lm_head.weight.device.type == "cpu"
    assert own.config._attn_implementation != "tensorcast"


def test_a2_2_plain_module_on_any_device():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(100, 32), nn.Linear(32, 100)
            self.table = torch.zeros(8)  # a tensor that is no parameter

        def forward(self, input_ids):
            return self.out(self.embed(input_ids))

    real, meta = Net(), Net().to("meta")
    first, second = (tc.simulate(net, hw="h100", input_len=64) for net in (real, meta))
    assert first.metrics == second.metrics
    assert first.memory["weights_bytes"] == 4 * (100 * 32 + 32 * 100 + 100)  # fp32, as the instance is
    assert real.out.weight.device.type == "cpu"
    assert tc.simulate(real, hw="h100", input_len=64, dtype="bf16").memory["weights_bytes"] == 2 * 6500


@pytest.mark.parametrize("wrong", [3, object(), [LlamaConfig], nn.Linear])
def test_a2_2_what_is_no_model(wrong):
    with pytest.raises(tc.TensorcastError) as refused:
        tc.simulate(wrong, hw="h100")
    assert "\n" not in str(refused.value)


def test_a2_2_a_forward_that_asks_for_more_is_told_what():
    class Net(nn.Module):
        def forward(self, pixels, size):
            return pixels

    with pytest.raises(ModelError, match=r"Net.forward takes pixels, size.*__inputs__"):
        tc.simulate(Net(), hw="h100")


def test_a2_2_a_forward_that_fails_is_one_line():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, input_ids):
            return self.out(input_ids.tolist())

    with pytest.raises(ModelError, match=r"Net does not run on the meta device: .*test_a2.py:\d+\)"):
        tc.simulate(Net(), hw="h100")


# -- A2.3, A2.4, A2.5: registration and remote code --------------------------------------------------------------------

MISMATCH = """
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
class AConfig(PreTrainedConfig):
    model_type = "mine_a"
class BConfig(PreTrainedConfig):
    model_type = "mine_b"
class BModel(PreTrainedModel):
    config_class = BConfig
AutoConfig.register("mine_a", AConfig)
AutoModel.register(AConfig, BModel)
"""
CONFIGURATION = """
from transformers import PreTrainedConfig
class RemConfig(PreTrainedConfig):
    model_type = "rem"
    hidden_size: int = 16
    vocab_size: int = 320
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    tie_word_embeddings: bool = True
"""
MODELING = """
from torch import nn
from transformers import PreTrainedModel
from .configuration_rem import RemConfig
class RemForCausalLM(PreTrainedModel):
    config_class = RemConfig
    base_model_prefix = "model"
    _tied_weights_keys = TIED
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mid = nn.Linear(config.hidden_size, 12, bias=False)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
    def get_input_embeddings(self): return self.embed
    def get_output_embeddings(self): return self.lm_head
    def forward(self, input_ids=None, **kwargs):
        x = self.embed(input_ids)
        self.mid(x)
        return self.lm_head(x)
"""


def remote(path, tied='{"lm_head.weight": "embed.weight"}', modeling=MODELING):
    where = folder(
        path,
        {
            "model_type": "rem", "architectures": ["RemForCausalLM"], "hidden_size": 16, "vocab_size": 320,
            "num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": True, "dtype": "bfloat16",
            "auto_map": {"AutoConfig": "configuration_rem.RemConfig",
                         "AutoModelForCausalLM": "modeling_rem.RemForCausalLM"},
        },
    )  # fmt: skip
    (path / "configuration_rem.py").write_text(CONFIGURATION)
    (path / "modeling_rem.py").write_text(modeling.replace("TIED", tied))
    return where


def test_a2_3_mismatch_is_passed_on(tmp_path, run):
    (tmp_path / "mine.py").write_text(MISMATCH)
    code, out, err = run("simulate", "--model", "qwen3-8b", "--custom", "mine.py", "--hw", "h100")
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert "mine.py:10" in err and "config_class" in err and "ValueError" in err


def test_a2_3_mismatch_in_a_remote_folder(tmp_path, run):
    other = MODELING.replace(
        "class RemForCausalLM", "class OtherConfig(RemConfig):\n    pass\nclass RemForCausalLM"
    ).replace("config_class = RemConfig", "config_class = OtherConfig")
    path = remote(tmp_path / "rem_other", modeling=other)
    code, _, err = run("simulate", "--model", path, "--hw", "h100", "--trust-remote-code")
    assert code == 2 and "config_class is OtherConfig, but auto_map names RemConfig" in err


def test_a2_4_remote_code_only_when_trusted(tmp_path, run, monkeypatch):
    path = remote(tmp_path / "rem_dict")
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("prompted"))
    code, out, err = run("simulate", "--model", path, "--hw", "h100")
    assert (code, out) == (2, "") and "--trust-remote-code" in err and len(err.strip().splitlines()) == 1
    code, out, err = run("simulate", "--model", path, "--hw", "h100", "--trust-remote-code", "--json", "-")
    assert code == 0, err
    found = json.loads(out)
    assert found["model"]["parameters"] == 320 * 16 + 16 * 12 == 5_312
    assert found["memory"]["weights_bytes"] == 2 * 5_312


def test_a2_5_version_4_tied_keys(tmp_path, run):
    path = remote(tmp_path / "rem_list", tied='["lm_head.weight"]')
    code, out, err = run("simulate", "--model", path, "--hw", "h100", "--trust-remote-code")
    assert (code, out) == (2, "") and len(err.strip().splitlines()) == 1
    assert re.search(r"uses a list; transformers (>= |≥)5 needs {'lm_head.weight': '<source>'}", err)


# -- A2.6, A2.7: tied weights ------------------------------------------------------------------------------------------


def test_a2_6_tied_weights_once():
    layer = (138_112 - 64_000 - 64) // 2
    assert tc.build_model(QWEN3).weight_params == 138_112
    quantised = tc.build_model(QWEN3, quant="w8a8")
    assert quantised.weight_params == 138_112 and quantised.tied
    cut = tc.build_model(QWEN3, tp=2)
    head, table = cut.module.lm_head, cut.module.model.embed_tokens
    assert head.weight is table.weight and head.weight.shape == (500, 64)
    norms = 2 * 64 + 2 * 16
    assert cut.weight_params == 32_000 + 64 + 2 * ((layer - norms) // 2 + norms)


@pytest.mark.parametrize("tp", [1, 2])
def test_a2_6_quantised_head_is_untied(tp):
    kept, untied = (tc.simulate(QWEN3, quant="w8a8", quant_lm_head=how, tp=tp, **WORK) for how in (False, True))
    assert any("untied by quantisation" in note for note in untied.warnings)
    assert not any("untied" in note for note in kept.warnings)
    model = tc.build_model(QWEN3, quant="w8a8", quant_lm_head=True, tp=tp)
    rows = 1000 // tp
    assert model.weight_params - tc.build_model(QWEN3, quant="w8a8", tp=tp).weight_params == rows * 64
    more = untied.memory["weights_bytes"] - kept.memory["weights_bytes"]
    assert more == rows * 64 + rows * 4  # int8 weights, one fp32 scale a row


def test_a2_7_a_tied_head_still_works():
    def head(config):
        phase = tc.simulate(config, hw="h100", batch=1, input_len=128, output_len=2).phases["prefill"]
        return next(op for op in phase["ops"] if op["module"] == "lm_head")

    tied, apart = head(QWEN3), head(QWEN3 | {"tie_word_embeddings": False})
    for name in ("matrix_flops", "read_bytes", "write_bytes", "time_s"):
        assert tied[name] == apart[name] > 0
    assert tied["matrix_flops"] == 2 * 64 * 1000 and tied["read_bytes"] >= 2 * 64 * 1000


# -- A2.15, A2.17 ------------------------------------------------------------------------------------------------------


def test_a2_15_training_mode_is_left_out():
    model = CustomModel(CustomConfig(num_key_value_heads=4, head_dim=16)).train()
    found = tc.simulate(model, **WORK)
    assert any("training mode" in note and "dropout is absent" in note for note in found.warnings)
    assert not any("dropout" in op for op, *_ in ops(found)) and model.training
    assert not any("training" in note for note in tc.simulate(model.eval(), **WORK).warnings)


def test_a2_17_overrides(run):
    whole, four = (
        tc.simulate("qwen3-8b", hw="h100"),
        tc.simulate("qwen3-8b", hw="h100", overrides={"num_hidden_layers": 4}),
    )
    layer = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 12_288 + 2 * 4096 + 2 * 128
    assert whole.to_dict()["model"]["parameters"] - four.to_dict()["model"]["parameters"] == 32 * layer
    code, out, _ = run("simulate", "--model", "qwen3-8b", "--hw", "h100", "--set", "num_hidden_layers=4", "--json", "-")
    assert code == 0 and json.loads(out)["metrics"] == four.metrics
    code, _, err = run("simulate", "--model", "qwen3-8b", "--hw", "h100", "--set", "num_hiden_layers=4")
    assert code == 2 and "unknown configuration key 'num_hiden_layers'" in err and "num_hidden_layers" in err


@pytest.mark.parametrize("given", [Qwen3Config(**QWEN3), CustomConfig(), CustomConfig, CustomModel])
def test_a2_17_overrides_of_objects(registered, given):
    whole, two = tc.build_model(given), tc.build_model(given, overrides={"num_hidden_layers": 1})
    count = len(two.decoder.layers)
    assert count == 1 and two.parameters < whole.parameters
    assert len(tc.build_model(given, layers=1).decoder.layers) == 1
    with pytest.raises(InputError, match=r"unknown configuration key 'num_hiden_layers'.*num_hidden_layers"):
        tc.build_model(given, overrides={"num_hiden_layers": 1})


def test_a2_17_an_instance_is_as_it_is():
    whole = CustomModel(CustomConfig(num_key_value_heads=4, head_dim=16))
    with pytest.raises(ModelError, match="an instance is costed as it is"):
        tc.build_model(whole, overrides={"num_hidden_layers": 1})
