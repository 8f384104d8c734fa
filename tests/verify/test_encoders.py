"""Encoders and encoder-decoders whose code needs help on the meta device, beside real runs of small ones; nightly all.

`benchmarks/encoders.py` prints the figures of the nightly test.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LEDConfig,
    LongformerConfig,
    NllbMoeConfig,
    Siglip2Config,
    SwitchTransformersConfig,
    T5Gemma2Config,
)

from tensorcast.models.reference import from_mapping
from tensorcast.trace.run import trace_step
from tests.verify.deployed import ALL_PAIRS, deploy, has_slot, matrix_flops
from tests.verify.encoders import classes, survey, totals

BATCH, TOKENS = 2, 64
WIDTH, INNER, VOCABULARY, EXPERTS = 64, 96, 320, 4
_WORDS = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_ENCODER_DECODER = {
    "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER, **_WORDS,
}  # fmt: skip
_TOWER = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2, "num_attention_heads": 4}
LONGFORMER = LongformerConfig(
    **_TOWER, **_WORDS, attention_window=16, max_position_embeddings=130, architectures=["LongformerModel"]
)
LED = LEDConfig(
    **_ENCODER_DECODER, attention_window=16, max_encoder_position_embeddings=128, max_decoder_position_embeddings=64,
    architectures=["LEDForConditionalGeneration"],
)  # fmt: skip
SWITCH = SwitchTransformersConfig(
    vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=INNER, num_layers=2, num_decoder_layers=2, num_heads=4,
    num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, num_experts=EXPERTS, decoder_start_token_id=0,
    architectures=["SwitchTransformersForConditionalGeneration"],
)  # fmt: skip
NLLB = NllbMoeConfig(
    **_ENCODER_DECODER, num_experts=EXPERTS, encoder_sparse_step=2, decoder_sparse_step=2,
    architectures=["NllbMoeForConditionalGeneration"],
)  # fmt: skip
SIGLIP2 = Siglip2Config(
    text_config={**_TOWER, **_WORDS, "max_position_embeddings": TOKENS, "projection_size": WIDTH},
    vision_config={**_TOWER, "num_patches": 16, "patch_size": 4},
    architectures=["Siglip2Model"],
)
_GEMMA = {
    **_TOWER, **_WORDS, "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 2, "query_pre_attn_scalar": 16,
}  # fmt: skip
T5GEMMA2 = T5Gemma2Config(
    encoder={"text_config": _GEMMA, "vision_config": {**_TOWER, "image_size": 896, "patch_size": 14}}, decoder=_GEMMA,
    architectures=["T5Gemma2ForConditionalGeneration"],
)  # fmt: skip


def ours(config, phase: str = "forward", past: int = 0) -> tuple[float, object]:
    """(matrix FLOPs of one pass with all pairs computed, the model)."""
    source = from_mapping(config.to_dict() | {"dtype": "float32"})
    model = deploy(source)
    if has_slot(model, "attention"):
        model = deploy(source, *ALL_PAIRS)
    return matrix_flops(trace_step(model, phase, BATCH, TOKENS, past).calls), model


def theirs(model, **inputs) -> int:
    """What torch counts in a run of the untouched class on the CPU."""
    config = type(model.config).from_dict(model.config.to_dict())
    module = type(model.module)._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return counter.get_total_flops()


def ids(tokens: int = TOKENS) -> torch.Tensor:
    return torch.full((BATCH, tokens), 5)


def test_longformer_attends_within_its_window():
    flops, model = ours(LONGFORMER)
    assert flops == theirs(model, input_ids=ids())
    assert any("no token is marked as global" in note for note in model.notes)


def test_led_attends_within_its_window():
    flops, model = ours(LED, "prefill")
    assert flops == theirs(model, input_ids=ids(), decoder_input_ids=ids(1))
    assert any("no token is marked as global" in note for note in model.notes)


def test_a_token_of_switch_uses_one_expert():
    flops, model = ours(SWITCH, "prefill")
    assert flops == theirs(model, input_ids=ids(), decoder_input_ids=ids(1))
    assert model.active_parameters == model.parameters - 2 * (EXPERTS - 1) * 2 * WIDTH * INNER


def test_a_token_of_nllb_uses_two_experts():
    _, model = ours(NLLB, "prefill")
    one = 2 * WIDTH * INNER + WIDTH + INNER
    assert model.active_parameters == model.parameters - 2 * (EXPERTS - 2) * one
    calls = trace_step(model, "prefill", BATCH, TOKENS, 0).calls
    assert matrix_flops(c for c in calls if c.op == "moe_experts") == 2 * 2 * BATCH * (TOKENS + 1) * 2 * WIDTH * INNER


def test_a_picture_of_siglip2_is_its_patches():
    flops, model = ours(SIGLIP2)
    picture = {"pixel_values": torch.zeros(BATCH, 16, 48), "spatial_shapes": torch.tensor([[4, 4]] * BATCH)}
    assert flops == theirs(model, input_ids=ids(), **picture)
    assert "every request has a picture of 16 patches" in model.blueprint.notes


@pytest.mark.parametrize(
    "kind, name",
    [("segformer", "SegformerModel"), ("fsmt", "FSMTForConditionalGeneration"), ("videoprism", "VideoPrismClipModel")],
)
def test_projections_of_different_states_stay_apart(kind, name):
    """Queries of one tensor and keys of another are no one product, whatever their modules are called."""
    row = survey("", kind, name, tp=False)
    assert (row.reason, row.flops) == ("", "equal")


def test_t5gemma2_reads_its_window_and_all_of_the_encoders_keys():
    """A prefill is what the stock class runs; a step 20 tokens on sees 8 of its own in half of the layers."""
    flops, model = ours(T5GEMMA2, "prefill")
    assert flops == theirs(model, input_ids=ids(), decoder_input_ids=ids(1))
    calls = trace_step(deploy(model.blueprint.source), "decode", 1, TOKENS, 20).calls
    pairs = matrix_flops(c for c in calls if c.op == "attention") / (4 * 4 * 16)
    assert pairs == 2 * (8 + TOKENS) + 2 * (21 + TOKENS)


@pytest.mark.nightly
def test_every_encoder():
    rows = [survey(*found) for found in classes()]
    print("", *totals(rows), sep="\n")
    traced = [row for row in rows if not row.reason]
    assert len(rows) >= 284
    assert len(traced) >= 256, {row.architecture: row.reason for row in rows if row.reason}
    assert [row.architecture for row in traced if row.parameters != row.library_parameters] == []
    assert {row.architecture: row.flops for row in traced if row.flops[:1].isdigit()} == {}
    assert sum(row.flops == "equal" for row in traced) >= 180
