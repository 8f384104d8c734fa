"""Models as transformers knows them: registered classes, configurations, remote code, tied weights, plans."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

import tensorcast as tc
from tensorcast.errors import DeploymentError, InputError, ModelError
from tests.acceptance.hand_written import PLAN, CustomConfig, CustomEncoder, CustomModel

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000,
    "tie_word_embeddings": True, "max_position_embeddings": 4096, "dtype": "bfloat16",
}  # fmt: skip
WORK = {"hw": "h100", "batch": 2, "input_len": 128, "output_len": 4}
PARAMETERS = 320 * 64 + 64 + 4 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64)  # of the hand-written model


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty folder, a cache of its own, and transformers' tables as they were."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tensorcast.models.objects import model_mappings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / "cache"))
    tables = [CONFIG_MAPPING, *model_mappings()]
    before = [dict(table._extra_content) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table._extra_content.clear()
        table._extra_content.update(content)


@pytest.fixture
def registered():
    AutoConfig.register("hand_written", CustomConfig)
    AutoModel.register(CustomConfig, CustomModel)


def folder(path, config):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def ops(estimate, phase="prefill"):
    return [(op["op"], op["module"], op["count"]) for op in estimate.phases[phase]["ops"]]


def step(model, name):
    return next(s for s in model.steps if s.name == name)


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


# -- A2.8 to A2.11: tensor parallelism ---------------------------------------------------------------------------------


def test_a2_8_plan_of_the_configuration(registered):
    model = tc.build_model(CustomConfig(), tp=2)
    report = step(model, "shard_model")
    for pattern in PLAN:
        assert f"config {pattern} (4)" in report.reason
    rules = {path: after for path, _, after in report.changes}
    assert rules["layers.3.mlp.down_proj"].endswith("row by config layers.*.mlp.down_proj")
    assert model.module.layers[0].mlp.gate_proj.weight.shape == (48, 64)
    assert model.module.layers[0].mlp.down_proj.weight.shape == (64, 48)


def with_plan(rules):
    config = CustomConfig()
    config.base_model_tp_plan = rules
    return config


def test_a2_8_unknown_style(registered):
    with pytest.raises(DeploymentError, match=r"style 'colwis' of 'layers.\*.mlp.up_proj'.*nearest: colwise; known: "):
        tc.simulate(with_plan(PLAN | {"layers.*.mlp.up_proj": "colwis"}), hw="h100", tp=2)
    tc.simulate(with_plan(PLAN | {"layers.*.mlp.up_proj": "colwis"}), hw="h100", tp=1)


def test_a2_8_a_rule_that_matches_nothing(registered):
    config = with_plan(PLAN | {"layers.*.mlp.middle_proj": "colwise"})
    found = tc.simulate(config, hw="h100", tp=2)
    assert any("match nothing: layers.*.mlp.middle_proj" in note for note in found.warnings)
    with pytest.raises(InputError, match=r"--strict: rules .* match nothing: layers.\*.mlp.middle_proj"):
        tc.simulate(config, hw="h100", tp=2, strict=True)


def test_a2_8_transformers_own_plans_may_have_rules_for_other_models():
    moe = {"layers.*.mlp.experts": "moe_tp_experts", "layers.*.mlp.experts.gate_up_proj": "packed_colwise"}
    found = tc.build_model(QWEN3, tp=2)
    assert not found.unmatched
    stated = tc.build_model(QWEN3 | {"base_model_tp_plan": Qwen3Config.base_model_tp_plan | moe}, tp=2)
    assert {*stated.unmatched} == {f"model.{pattern}" for pattern in moe}


STYLES = (
    "colwise rowwise grouped_gemm ep_dispatch_experts moe_tp_experts packed_colwise colwise_gather_output "
    "replicated_with_grad_allreduce rowwise_split_input mla_kv_a_proj local_params embedding_rowwise packed_rowwise "
    "embedding_colwise all_reduce"
).split()


def test_a2_8_every_style_in_use_is_known():
    from tensorcast.layers.tp_rules import CONFIG_STYLES

    assert {*STYLES} <= {*CONFIG_STYLES}


def test_a2_8_gathered_products_and_split_inputs(registered):
    """Every rank computes all heads of such an attention; its products are cut all the same."""
    gather = {f"layers.*.self_attn.{n}_proj": "colwise_gather_output" for n in "qkv"}
    config = with_plan(PLAN | gather | {"layers.*.self_attn.o_proj": "rowwise_split_input"})
    model = tc.build_model(config, tp=2)
    attention = model.module.layers[0].self_attn
    assert attention.q_proj.weight.shape == (32, 64) and attention.o_proj.weight.shape == (64, 32)
    assert attention.num_heads == 4
    found, usual = tc.simulate(config, tp=2, **WORK), tc.simulate(CustomConfig(), tp=2, **WORK)

    def one(estimate, op, *modules):
        rows = [o for o in estimate.phases["prefill"]["ops"] if o["op"] == op and o["module"].endswith(modules)]
        return sum(o["matrix_flops"] for o in rows), sum(o["count"] for o in rows)

    assert one(found, "attention", "self_attn")[0] == 2 * one(usual, "attention", "self_attn")[0]
    assert one(found, "linear", "o_proj") == one(usual, "linear", "o_proj")
    assert one(found, "all_gather", "q_proj", "k_proj", "v_proj")[1] == 12
    assert found.memory["kv_cache_bytes"] == 2 * usual.memory["kv_cache_bytes"]


def test_a2_8_rules_that_cut_part_of_the_heads(registered):
    with pytest.raises(DeploymentError, match=r"self_attn cut only part of its heads: q_proj column, k_proj column_ga"):
        tc.build_model(with_plan(PLAN | {"layers.*.self_attn.k_proj": "colwise_gather_output"}), tp=2)


def test_a2_8_embedding_styles(registered):
    rows = tc.build_model(CustomConfig(), tp=2)
    columns = tc.build_model(with_plan(PLAN | {"embed_tokens": "embedding_colwise"}), tp=2)
    assert rows.module.embed_tokens.weight.shape == (160, 64)
    assert columns.module.embed_tokens.weight.shape == (320, 32)
    found = tc.simulate(with_plan(PLAN | {"embed_tokens": "embedding_colwise"}), tp=2, **WORK)
    assert ("all_gather", "embed_tokens", 1) in ops(found)
    with pytest.raises(DeploymentError, match="cannot be split as column"):
        tc.build_model(with_plan(PLAN | {"embed_tokens": "colwise"}), tp=2)


def test_a2_9_precedence(registered):
    """profile > configuration > the module's own declaration > our table."""
    from tensorcast.pipelines import PROFILES

    def rules(config=CustomConfig):
        model = tc.build_model(config() if isinstance(config, type) else config, tp=2)
        return {path: after.rpartition(" by ")[2] for path, _, after in step(model, "shard_model").changes}

    q, gate = "layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj"
    few = {k: v for k, v in PLAN.items() if "mlp" in k}
    assert rules()[gate] == "config layers.*.mlp.gate_proj"
    assert rules(with_plan(few))[q] == "default q_proj" and rules(with_plan(few))[gate].startswith("config")
    with PROFILES.isolated():
        tc.register_model_profile(tc.ModelProfile(model_type="hand_written", tp_plan={"*.gate_proj": "column"}))
        assert rules()[gate] == "profile *.gate_proj" and rules()[q].startswith("config")


def test_a2_9_declared_by_the_module(registered):
    from tensorcast.layers.tp_rules import Rules

    model = tc.build_model(with_plan({}), tp=2)
    linear = nn.Linear(4, 4, device="meta")
    linear.tensor_parallel_mode = "row"
    assert Rules(model).of("model.q_proj", linear).source == "declared by the module"
    other = tc.build_model(CustomConfig(), tp=2)
    with pytest.raises(DeploymentError, match=r"declares tensor_parallel_mode 'row'.*make the two agree"):
        Rules(other).of("layers.0.self_attn.q_proj", linear)


@pytest.mark.parametrize("ep", [1, 8])
def test_a2_9_deepseek_v3_rank(ep):
    model = tc.build_model("deepseek-v3", "ascend-910b", tp=8, ep=ep, quant="none")
    assert model.weight_params == 84_780_342_272
    assert "default q_b_proj (61)" in step(model, "shard_model").reason


def test_a2_10_no_plan():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.body, self.lm_head = nn.Embedding(64, 32), nn.Linear(32, 32), nn.Linear(32, 64)

        def get_output_embeddings(self):
            return self.lm_head

        def forward(self, input_ids):
            return self.lm_head(self.body(self.embed(input_ids)))

    how = "no tensor-parallel plan for Net; add `tp_plan` to a ModelProfile or `base_model_tp_plan` to the config"
    with pytest.raises(DeploymentError, match=how):
        tc.simulate(Net(), hw="h100", tp=2)


def test_a2_10_an_attention_with_names_of_its_own():
    """Heads the code keeps under a name nobody knows: told, never costed whole."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads, self.secret = 4, 4
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                setattr(self, name, nn.Linear(64, 64))

        def forward(self, x):
            b, s, _ = x.shape
            q, k, v = (
                p(x).view(b, s, self.secret, 16).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            return self.o_proj((q @ k.mT @ v).transpose(1, 2).reshape(b, s, -1))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention = nn.Embedding(64, 64), Attention()

        def forward(self, input_ids):
            return self.attention(self.embed(input_ids))

    assert tc.simulate(Net(), hw="h100", input_len=32).metrics["request_latency_s"] > 0
    with pytest.raises(ModelError, match="must keep its heads as num_heads"):
        tc.simulate(Net(), hw="h100", input_len=32, tp=2)


def test_a2_11_heads_must_divide(run):
    code, _, err = run("simulate", "--model", "qwen3-8b", "--hw", "h100", "--tp", "3")
    assert code == 2 and "--tp 3" in err and "32 heads" in err and "values that divide: 1, 2, 4, 8, 16, 32" in err


def test_a2_11_kv_heads_are_replicated():
    found = tc.simulate(QWEN3, tp=4, **WORK)
    note = "KV heads replicated over ranks in 2 layers: 2 are fewer than tp 4, each is kept 2 times"
    assert note in found.warnings
    model = tc.build_model(QWEN3, tp=4)
    assert model.module.model.layers[0].self_attn.k_proj.weight.shape == (16, 64)


def test_a2_11_the_largest_shard_is_costed():
    config = QWEN3 | {"num_attention_heads": 40, "num_key_value_heads": 5, "intermediate_size": 14_336}
    config |= {"hidden_size": 640}
    found = tc.build_model(config, tp=5)
    mlp = found.module.model.layers[0].mlp
    assert mlp.gate_proj.weight.shape == (2868, 640) and mlp.down_proj.weight.shape == (640, 2868)
    said = "gate_proj: 14336 outputs over 5 ranks, the largest shard of 2868 is costed"
    assert said in found.notes
    assert tc.simulate(config, hw="h100", tp=5, input_len=64).metrics["tpot_s"] > 0


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
