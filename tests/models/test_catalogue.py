"""Every catalogue entry builds on meta and has the published number of parameters, to the digit."""

from __future__ import annotations

import pytest

from tensorcast.models import entries
from tensorcast.models.build import build_blueprint, count_parameters
from tensorcast.models.reference import resolve_model

ENTRIES = {entry.name: entry for entry in entries.all_entries()}

# Totals of the published safetensors files: what the hub shows beside each model. Where a checkpoint also holds draft
# layers or router buffers, these are taken off by hand in the comment.
PUBLISHED = {
    "deepseek-v3": 671_026_404_352,
    "deepseek-v2-lite": 15_706_484_224,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-4-scout": 108_641_793_536,
    "llama-4-maverick": 401_583_781_376,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-32b": 33_357_390_064,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 4_300_079_472,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-27b": 27_432_406_640,
    "phi-4": 14_659_507_200,
    "phi-4-mini": 3_836_021_760,
    "nemotron-3-nano-30b-a3b": 31_577_940_288 - 23 * 128,  # 23 router bias buffers of 128 experts
}

# Checkpoints that hold the draft layer too: published total, router bias buffers, copies of embedding and head in it.
WITH_DRAFT_LAYER = {
    "glm-4.5": (358_337_791_296, 90 * 160, 2),
    "glm-4.6": (356_785_898_816, 90 * 160, 0),
    "glm-4.5-air": (110_468_824_832, 46 * 128, 2),
    "qwen3-next-80b-a3b": (81_324_862_720, 0, 0),
}


def test_there_are_enough_models_and_their_names_do_not_collide():
    names = [entries.normalise(name) for name in entries.known_names()]
    assert len(ENTRIES) >= 45
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ENTRIES)
def test_built_model_has_the_stated_parameters(name):
    blueprint = build_blueprint(resolve_model(name))
    assert count_parameters(blueprint.module) == ENTRIES[name].parameters
    assert {tensor.device.type for tensor in blueprint.module.parameters()} == {"meta"}
    assert not any("default" in note for note in blueprint.notes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_stated_parameters_are_the_published_ones(name):
    assert ENTRIES[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", WITH_DRAFT_LAYER)
def test_published_total_is_model_plus_draft_layer(name):
    published, buffers, copies = WITH_DRAFT_LAYER[name]
    blueprint = build_blueprint(resolve_model(name))
    hidden, vocabulary = blueprint.config.hidden_size, blueprint.config.vocab_size
    draft = count_parameters(blueprint.module.model.layers[-1]) + 2 * hidden**2 + 3 * hidden
    assert ENTRIES[name].parameters + draft + buffers + copies * vocabulary * hidden == published


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_complete(name):
    entry = ENTRIES[name]
    assert entry.source.startswith("https://")
    assert entry.config["architectures"] and entry.config["model_type"]
    assert "tie_word_embeddings" in entry.config
    assert resolve_model(entry.hub_id).name == name
    assert all(resolve_model(alias).name == name for alias in entry.aliases)


def test_listing_has_a_row_for_every_model():
    rows = {row["name"]: row for row in entries.list_models()}
    assert rows["deepseek-v3"]["parameters"] == 671_026_404_352
    assert rows["deepseek-v3"]["architecture"] == "DeepseekV3ForCausalLM"
    assert rows["llama-3.1-8b"]["gated"] is True
    assert rows.keys() == ENTRIES.keys() | {entry.name for entry in entries.all_pipelines()}


def test_quantised_checkpoints_say_so():
    assert ENTRIES["deepseek-v3"].config["quantization_config"]["weight_block_size"] == [128, 128]
    assert ENTRIES["kimi-k2"].config["quantization_config"]["quant_method"] == "fp8"
    assert ENTRIES["gpt-oss-20b"].config["quantization_config"]["quant_method"] == "mxfp4"
    assert "quantization_config" not in ENTRIES["qwen3-8b"].config
