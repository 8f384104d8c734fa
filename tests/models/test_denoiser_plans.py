"""How denoisers are split and cut short: plans of the class, packed products, tables of heads, lists of blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tensorcast as tc
from tensorcast.diffusion import survey
from tensorcast.diffusion.pipelines import class_numbers
from tensorcast.errors import InputError, ModelError
from tensorcast.models.reference import resolve_model
from tests.later import later
from tests.models.denoisers import FLUX_SMALL, WAN_TINY
from tests.models.pipelines import FLUX, FLUX_PARTS, WAN, WAN_PARTS, written

FLUX2 = {
    "_class_name": "Flux2Transformer2DModel", "num_layers": 2, "num_single_layers": 3, "num_attention_heads": 4,
    "attention_head_dim": 32, "in_channels": 16, "joint_attention_dim": 48, "axes_dims_rope": [8, 8, 8, 8],
}  # fmt: skip
CHROMA = {
    "_class_name": "ChromaTransformer2DModel", "num_layers": 2, "num_single_layers": 2, "num_attention_heads": 4,
    "attention_head_dim": 32, "in_channels": 16, "joint_attention_dim": 48, "axes_dims_rope": [8, 12, 12],
    "approximator_hidden_dim": 64, "approximator_layers": 2,
}  # fmt: skip
REST = (
    "ChromaTransformer2DModel", "JoyImageEditTransformer3DModel", "LTX2VideoTransformer3DModel",
    "MochiTransformer3DModel", "NucleusMoEImageTransformer2DModel", "OmniGenTransformer2DModel",
    "OvisImageTransformer2DModel", "PRXTransformer2DModel",
)  # fmt: skip
"""Classes without a plan of their own whose code has ways of its own with heads."""


def denoise(config, **options):
    asked = {"hw": "h100-sxm", "image": "128x128", "input_len": 20, **options}
    return tc.simulate(model=config, **asked)


def by_module(estimate) -> dict[str, float]:
    ops = estimate.phases["denoise"].ops
    return ops[ops.matrix_flops > 0].groupby("module").matrix_flops.sum().to_dict()


def every_product_is_halved_or_said(config, replicated: set[str], **options) -> None:
    """On one of two ranks each product is half of the whole, but for the named ones, which are whole."""
    whole, rank = (by_module(denoise(config, **options, **plan)) for plan in ({}, {"tp": 2}))
    assert whole.keys() == rank.keys()
    assert {module.rpartition(".")[2] for module in whole if rank[module] == whole[module]} == replicated
    assert all(2 * rank[m] == whole[m] for m in whole if rank[m] != whole[m])


def test_flux2_under_its_own_plan():
    """Queries, keys, values and both halves of the feed-forward come out of one product, cut block by block."""
    whole = {"linear", "linear_1", "linear_2", "x_embedder", "context_embedder", "proj_out"}
    every_product_is_halved_or_said(FLUX2, whole)
    notes = denoise(FLUX2, tp=2).to_dict()["warnings"]
    assert any(all(name in note for name in whole) for note in notes if "replicated on every rank" in note)


@pytest.mark.parametrize("plan", [{"sp": 2}, {"sp": 4}, {"tp": 2, "sp": 2}])
def test_flux2_shares_tokens(plan):
    one, many = denoise(FLUX2), denoise(FLUX2, **plan)
    ranks = plan.get("tp", 1) * plan["sp"]
    attention = [sum(ops[ops.op == "attention"].matrix_flops) for ops in (e.phases["denoise"].ops for e in (one, many))]
    assert attention[0] == ranks * attention[1] > 0
    assert 1 <= ranks * sum(by_module(many).values()) / sum(by_module(one).values()) < 1.1


def test_chroma_keeps_its_modulation_whole():
    small = {"x_embedder", "context_embedder", "proj_out", "linear_1", "linear_2", "in_proj", "out_proj"}
    every_product_is_halved_or_said(CHROMA, small)


@pytest.mark.parametrize("name", later(REST, REST[::2]))
def test_two_ranks_share_the_attention(name, monkeypatch):
    """Default sizes, two blocks of each list."""
    monkeypatch.setattr(survey, "SIDE", 256)
    source = resolve_model(survey.default_source(name).config, layers=2)
    canvas = survey.canvas_of(source, "transformers")
    whole, rank = (
        survey.matrix_flops(call for call in survey.trace(source, canvas, tp=tp).calls if call.op == "attention")
        for tp in (1, 2)
    )
    assert 0.5 <= rank / whole < 0.51  # attention that pools a prompt stays whole


def test_what_stays_whole_is_said():
    unet = {
        "_class_name": "UNet2DConditionModel", "sample_size": 16, "cross_attention_dim": 2048, "norm_num_groups": 8,
        "block_out_channels": [64, 64], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1, "attention_head_dim": 8,
        "transformer_layers_per_block": 4,
    }  # fmt: skip
    notes = denoise(unet, tp=2).to_dict()["warnings"]
    assert [note for note in notes if note.startswith("convolutions run whole on every rank: conv")]
    pooled = {
        "_class_name": "HunyuanDiT2DModel", "in_channels": 4, "patch_size": 2, "num_attention_heads": 4,
        "attention_head_dim": 32, "hidden_size": 128, "num_layers": 16, "cross_attention_dim": 64,
        "cross_attention_dim_t5": 64, "pooled_projection_dim": 64,
    }  # fmt: skip
    notes = denoise(pooled, tp=2, input_len=77).to_dict()["warnings"]
    assert "attention runs whole on every rank, no rule cuts its heads: HunyuanDiTAttentionPool (1)" in notes


def test_a_plan_of_a_class_that_does_not_fit_its_code_is_refused():
    with pytest.raises(ModelError, match="with --sp 2 the class's own sequence-parallel plan does not fit its code"):
        survey.trace(survey.default_source("LTX2VideoTransformer3DModel"), survey.Canvas(512, 512, 9, 16), sp=2)


# -- fewer blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "lists"), [(1, (1, 1)), (2, (2, 2)), (4, (3, 4))])
def test_every_list_of_blocks_is_cut(layers, lists):
    module = tc.build_model(FLUX_SMALL, layers=layers).module
    assert (len(module.transformer_blocks), len(module.single_transformer_blocks)) == lists


def test_lists_that_only_the_class_states_are_cut_too():
    assert class_numbers("FluxTransformer2DModel")["num_single_layers"] == 38
    config = resolve_model({"_class_name": "FluxTransformer2DModel"}, layers=30).config
    assert (config["num_layers"], config["num_single_layers"]) == (19, 30)
    config = resolve_model({"_class_name": "AuraFlowTransformer2DModel"}, layers=6).config
    assert (config["num_mmdit_layers"], config["num_single_dit_layers"]) == (4, 6)
    with pytest.raises(InputError, match="FluxTransformer2DModel has 38 layers; give 1 to 38"):
        resolve_model({"_class_name": "FluxTransformer2DModel"}, layers=39)


def test_the_second_expert_is_cut_with_the_first(tmp_path):
    folder = written(tmp_path / "wan", WAN, WAN_PARTS)
    parts = [c for c in denoise(folder, frames=5, layers=1).to_dict()["model"]["components"] if c["phase"] == "denoise"]
    assert [part["parameters"] for part in parts] == [tc.build_model(WAN_TINY, layers=1).parameters] * 2


def test_experts_are_compared_without_what_a_version_wrote(tmp_path):
    """Files of a published pipeline say which diffusers wrote them."""
    folder = written(tmp_path / "wan", WAN, WAN_PARTS)
    for name in ("transformer", "transformer_2"):
        file = Path(folder) / name / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "_diffusers_version": "0.35.0"}))
    assert len([c for c in denoise(folder, frames=5).to_dict()["model"]["components"] if c["phase"] == "denoise"]) == 2


# -- what a cached step keeps, and what no step counts -----------------------------------------------------------------

KEPT = (20 + 64) * 256 * 2  # bytes: tokens of text and of 8 x 8 patches, width, bf16


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1), ({"batch": 3}, 3), ({"tp": 2}, 1), ({"sp": 2}, 0.5), ({"guidance": "passes"}, 2),
        ({"guidance": "batch"}, 2),
    ],
)  # fmt: skip
def test_kept_results_are_in_memory_and_added(options, factor):
    plain, cached = (denoise(FLUX_SMALL, steps=10, **options, **more) for more in ({}, {"dit_cache": "every=2"}))
    held = [e.to_dict()["memory"]["activation_peak_bytes"] for e in (plain, cached)]
    assert held[1] - held[0] == factor * KEPT
    added = cached.phases["denoise_cached"].ops.query("module == 'dit_cache'")
    assert list(added.op) == ["residual_add"]
    assert added.write_bytes.sum() == factor * KEPT
    assert not len(cached.phases["denoise"].ops.query("module == 'dit_cache'"))


def test_what_the_scheduler_does_is_said_not_to_count(tmp_path):
    note = "the scheduler's arithmetic on the latents is not counted"
    assert any(said.startswith(f"{note}:") for said in denoise(FLUX_SMALL, steps=10).to_dict()["warnings"])
    guided = denoise(written(tmp_path / "flux", FLUX, FLUX_PARTS), guidance="batch").to_dict()["warnings"]
    assert any(said.startswith(f"{note}, the combination of the two predictions among it") for said in guided)


# -- autoencoders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["AutoencoderKLHunyuanImage", "AutoencoderKLKVAE", "AutoencoderKLTemporalDecoder", "AutoencoderOobleck",
     "AutoencoderVidTok", "Cosmos3AVAEAudioTokenizer", "MMAudioVocoder"],
)  # fmt: skip
def test_decoders_count_what_torch_counts(name, monkeypatch):
    """One class of every way of reading latents: one head, frames of one batch, sound, a vocoder."""
    monkeypatch.setattr(survey, "SIDE", 64)
    found = survey.look_at(name)
    assert (found.reason, found.unknown) == ("", ())
    assert found.flops == found.counted > 0


def test_tiles_must_be_whole():
    """Less than one tile would be decoded by no operator at all."""
    source = survey.default_source("AutoencoderKLAllegro")
    with pytest.raises(InputError, match="decodes tiles of 24 frames of 320x320 pixels; give no less"):
        survey.trace(source, survey.Canvas(256, 256, 88, 1))
