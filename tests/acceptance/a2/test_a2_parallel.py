"""Tensor parallelism of models of transformers: plans of configurations, of modules, and by structure."""

from __future__ import annotations

import pytest
from torch import nn
from transformers import Qwen3Config

import tensorcast as tc
from tensorcast.errors import DeploymentError, InputError, ModelError
from tests.acceptance.a2.models import QWEN3, WORK, ops, step
from tests.acceptance.hand_written import PLAN, CustomConfig

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
