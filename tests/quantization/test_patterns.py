import pytest

from tensorcast.errors import DeploymentError, InputError
from tensorcast.quantization.patterns import Matcher, canonical, checkpoint_names, layer_count, refuse_partial_experts


@pytest.mark.parametrize(
    "pattern, path, matches",
    [
        ("gate", "model.layers.3.mlp.gate", True),
        ("gate", "model.layers.3.mlp.gate_proj", False),
        ("mlp.gate", "model.layers.3.mlp.gate", False),
        ("*.mlp.gate", "model.layers.3.mlp.gate", True),
        ("model.layers.*.self_attn", "model.layers.12.self_attn.q_proj", True),
        ("model.layers.1", "model.layers.12.self_attn.q_proj", False),
        ("model.layers.1*", "model.layers.12.self_attn.q_proj", True),
        ("re:.*shared_experts.*", "model.layers.3.mlp.shared_experts.up_proj", True),
        ("re:shared_experts", "model.layers.3.mlp.shared_experts.up_proj", False),
        ("backbone.layers.4.mixer.in_proj", "model.layers.4.mixer.in_proj", True),
        ("language_model.model.layers.0.self_attn*", "model.language_model.layers.0.self_attn.o_proj", True),
        ("re:language_model.model.layers.0.*", "model.language_model.layers.0.self_attn.o_proj", True),
        ("*.attn.*", "model.layers.3.self_attn.q_a_proj", True),
        ("*.attn.*", "model.visual.blocks.3.attn.qkv", True),
        ("re:.*self_attn.*", "model.vision_tower.layers.0.attn.k_proj", False),
        ("layers.3.ffn.experts", "model.layers.3.mlp.experts", True),
        ("re:.*mlp\\.(gate|up|down)_proj.*", "model.layers.3.mlp.experts", False),
        ("re:.*experts\\.\\d+\\..*", "model.layers.3.mlp.experts", True),
        ("head", "lm_head", True),
        ("vision_tower*", "model.vision_tower.encoder.fc1", True),
        ("model.layers.0.self_attn.qkv_proj", "model.layers.0.self_attn.k_proj", True),
    ],
)
def test_what_a_pattern_matches(pattern, path, matches):
    assert Matcher((pattern,))(path) is matches


def test_a_fused_module_is_matched_by_all_its_parts_or_refused():
    head = "model.layers.0.self_attn."
    parts = tuple(head + part for part in ("q_proj", "k_proj", "v_proj"))
    assert Matcher(parts)(head + "qkv_proj")
    with pytest.raises(DeploymentError, match=r"one fused module, but the patterns cover only .*q_proj"):
        Matcher(parts[:1])(head + "qkv_proj")
    with pytest.raises(DeploymentError, match="one fused module"):
        Matcher(("re:.*experts.*up_proj",))("model.layers.0.mlp.experts")


def test_bad_regular_expression():
    with pytest.raises(InputError, match=r"'re:\(' is not a regular expression"):
        Matcher(("re:(",))


def test_experts_of_a_layer_are_one_stack():
    assert canonical("model.layers.1.block_sparse_moe.experts.7.w1") == "layers.1.mlp.experts"
    every = [f"layers.1.mlp.experts.{n}.{p}" for n in range(4) for p in ("gate_proj", "up_proj", "down_proj")]
    refuse_partial_experts(every, 4, "list")
    with pytest.raises(DeploymentError, match=r"list names 4 of 8 experts of layers.1.mlp.experts"):
        refuse_partial_experts(every, 8, "list")
    with pytest.raises(DeploymentError, match=r"list names only gate_proj, up_proj of layers.1.mlp.experts"):
        refuse_partial_experts([p for p in every if "down" not in p], 4, "list")


def test_draft_layers_go_by_their_names_in_checkpoints():
    paths = ["model.layers.0.self_attn.q_proj", "model.layers.60.mlp.experts", "mtp.0.block.mlp.experts"]
    assert layer_count(paths) == 61
    assert checkpoint_names(paths[2], 61) == (
        "mtp.0.block.mlp.experts",
        "layers.61.mlp.experts",
        "mtp.layers.0.mlp.experts",
        "mtp.0.mlp.experts",
    )
    assert checkpoint_names(paths[0], 61) == (paths[0],)
