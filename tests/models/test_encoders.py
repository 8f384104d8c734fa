"""Encoders and encoder-decoders: what they are run as, what they compute and keep, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BartConfig,
    BertConfig,
    CLIPConfig,
    ModernBertConfig,
    T5Config,
    ViTConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

import tensorcast as tc
from tensorcast.answer import Answer
from tensorcast.errors import InputError, ModelError
from tensorcast.models import roles
from tensorcast.models.reference import from_mapping, resolve_model
from tensorcast.ops import operator_named
from tensorcast.ops.attention import attended_pairs, visible_keys
from tensorcast.optable import sizes
from tensorcast.plan import ParallelPlan
from tensorcast.request import Request
from tensorcast.trace.run import trace_step
from tests.verify.deployed import ALL_PAIRS, deploy, matrix_flops

HW = "h100-sxm"
BERT = BertConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, vocab_size=320,
    max_position_embeddings=128, architectures=["BertForMaskedLM"],
)  # fmt: skip
T5 = T5Config(
    d_model=64, d_kv=16, d_ff=96, num_layers=4, num_decoder_layers=3, num_heads=4, vocab_size=320,
    feed_forward_proj="gated-gelu",
)  # fmt: skip
BART = BartConfig(
    d_model=64, encoder_layers=3, decoder_layers=4, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=320, max_position_embeddings=256,
)  # fmt: skip
WHISPER = WhisperConfig(
    d_model=64, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=320, num_mel_bins=20, max_source_positions=50,
    max_target_positions=64, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
)  # fmt: skip
CLIP = CLIPConfig(
    text_config=dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=320,
        max_position_embeddings=40, eos_token_id=2, bos_token_id=0,
    ),
    vision_config=dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    ),
    projection_dim=48,
)  # fmt: skip
VIT = ViTConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
)
MODERN = ModernBertConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=6, num_attention_heads=4, vocab_size=320,
    local_attention=32, global_attn_every_n_layers=3, max_position_embeddings=8192, pad_token_id=0,
)  # fmt: skip
IDS = torch.zeros((2, 30), dtype=torch.long)


def source(config):
    return from_mapping(config.to_dict())


def stock(config) -> torch.nn.Module:
    """The untouched class on the CPU, with eager attention."""
    model_class = type(deploy(source(config)).module)
    torch.manual_seed(0)
    made = type(config).from_dict(config.to_dict())
    return model_class._from_config(made, dtype=torch.float32, attn_implementation="eager").eval()


def counted(module: torch.nn.Module, **inputs) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(**inputs)
    return counter.get_total_flops()


# -- what they are run as ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, name, phases, reading",
    [
        ({"model_type": "bert"}, "BertModel", roles.FORWARD, roles.Reading()),
        ({"model_type": "bert", "is_decoder": True}, "BertLMHeadModel", roles.LANGUAGE, roles.Reading()),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, None, roles.FORWARD, roles.Reading()),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, None, roles.LANGUAGE, roles.Reading()),
        ({"model_type": "gpt_neox"}, "GPTNeoXForCausalLM", roles.LANGUAGE, roles.Reading()),
        ({"model_type": "qwen3", "architectures": ["Qwen3Model"]}, None, roles.LANGUAGE, roles.Reading()),
        ({"model_type": "t5"}, "T5ForConditionalGeneration", roles.LANGUAGE, roles.Reading(encoder=True)),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, None, roles.FORWARD, roles.Reading()),
        ({"model_type": "bart"}, "BartForConditionalGeneration", roles.LANGUAGE, roles.Reading(encoder=True)),
        ({"model_type": "bart", "architectures": ["BartForCausalLM"]}, None, roles.LANGUAGE, roles.Reading()),
        ({"model_type": "whisper"}, None, roles.LANGUAGE, roles.Reading("frames", 1500, True)),
        (
            {"model_type": "whisper", "max_source_positions": 50},
            None,
            roles.LANGUAGE,
            roles.Reading("frames", 50, True),
        ),
        ({"model_type": "clip"}, "CLIPModel", roles.FORWARD, roles.Reading()),
        ({"model_type": "vit"}, "ViTModel", roles.FORWARD, roles.Reading("images", 1)),
        ({"model_type": "wav2vec2"}, "Wav2Vec2Model", roles.FORWARD, roles.Reading("samples")),
        ({"model_type": "audio-spectrogram-transformer"}, "ASTModel", roles.FORWARD, roles.Reading("frames", 1024)),
    ],
)
def test_role_is_read_from_the_library_s_files(config, name, phases, reading):
    assert roles.stated_role(config) == roles.Role(phases, reading)
    if name is not None:
        assert roles.class_name(config) == name


def test_the_class_itself_has_the_role_that_its_files_tell():
    for config in (BERT, T5, BART, WHISPER, CLIP, VIT, MODERN):
        built = deploy(source(config)).blueprint.source
        assert roles.Role(built.phases, built.reading) == roles.stated_role(config.to_dict())


def test_a_type_nobody_knows_has_no_stated_role():
    assert roles.stated_role({"model_type": "no-such-type", "architectures": ["NoSuchModel"]}) is None


def test_a_request_for_an_encoder_does_not_import_torch(tmp_path):
    for name, config in (("bert", BERT), ("t5", T5), ("whisper", WHISPER), ("vit", VIT)):
        (tmp_path / f"{name}_config.json").write_text(json.dumps(config.to_dict()))
    code = (
        "import sys; from tensorcast.request import Request\n"
        "for name in ('bert', 't5', 'whisper', 'vit'):\n"
        f"    asked = Request.of(model=r'{tmp_path}/' + name + '_config.json', hw='h100-sxm', custom_dir=False)\n"
        "    print(name, *asked.source.phases, asked.work.input_len, asked.work.encoder)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == [
        "bert forward 128 False",
        "t5 prefill decode 4096 True",
        "whisper prefill decode 50 True",
        "vit forward 1 False",
    ]


# -- what they compute -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [BERT, T5, BART, WHISPER, CLIP, VIT, MODERN], ids=lambda c: c.model_type)
def test_parameters_are_the_library_s_own_count(config):
    assert deploy(source(config)).parameters == sum(p.numel() for p in stock(config).parameters())


def test_bert_computes_what_torch_counts():
    ours = trace_step(deploy(source(BERT), *ALL_PAIRS), "forward", 2, 30, 0)
    assert matrix_flops(ours.calls) == counted(stock(BERT), input_ids=IDS) > 0


def test_clip_computes_what_torch_counts_in_both_towers():
    ours = trace_step(deploy(source(CLIP), *ALL_PAIRS), "forward", 2, 30, 0)
    assert matrix_flops(ours.calls) == counted(stock(CLIP), input_ids=IDS, pixel_values=torch.zeros((2, 3, 32, 32))) > 0


def test_vit_computes_what_torch_counts():
    ours = trace_step(deploy(source(VIT), *ALL_PAIRS), "forward", 2, 1, 0)
    assert matrix_flops(ours.calls) == counted(stock(VIT), pixel_values=torch.zeros((2, 3, 32, 32))) > 0


@pytest.mark.parametrize("config", [T5, BART, WHISPER], ids=lambda c: c.model_type)
def test_encoder_decoders_compute_what_torch_counts(config):
    sound = config is WHISPER
    given = {"input_features": torch.zeros((2, 20, 100))} if sound else {"input_ids": IDS}
    model, module = deploy(source(config), *ALL_PAIRS), stock(config)
    length, start = 50 if sound else 30, torch.zeros((2, 1), dtype=torch.long)
    prefill = trace_step(model, "prefill", 2, length, 0)
    assert matrix_flops(prefill.calls) == counted(module, **given, decoder_input_ids=start) > 0
    with torch.no_grad():
        past = module(**given, decoder_input_ids=torch.zeros((2, 7), dtype=torch.long), use_cache=True)
    read = module.get_encoder()(**given)
    decode = trace_step(model, "decode", 2, length, 7)
    expected = counted(module, encoder_outputs=read, decoder_input_ids=start, past_key_values=past.past_key_values)
    assert matrix_flops(decode.calls) == expected > 0


def test_windows_of_an_encoder_reach_both_ways():
    for q, kv, window in ((1, 1, 4), (9, 9, 4), (9, 9, 1), (40, 40, 17), (6, 6, 100)):
        pairs = sum(abs(i - j) < window for i in range(kv - q, kv) for j in range(kv))
        assert attended_pairs(q, kv, causal=False, window=window) == pairs
    assert visible_keys(40, 40, causal=False, window=4) == 40
    calls = trace_step(deploy(source(MODERN)), "forward", 2, 100, 0).calls
    attention = [c for c in calls if c.op == "attention"]
    assert {c.attrs["window"] for c in attention} == {0, 17}  # 32 keys: 16 either side, and itself
    assert sum(len(c.layers or [0]) for c in attention if c.attrs["window"]) == 4


def test_relative_positions_are_read_and_added():
    model = deploy(source(T5))
    calls = trace_step(model, "prefill", 2, 30, 0).calls
    biased = [c for c in calls if c.op == "biased_attention" and c.module.startswith("encoder")]
    assert {c.dims["bias"] for c in biased} == {4 * 30 * 30 * 2}
    assert sum(len(c.layers or [0]) for c in biased) == 4
    with pytest.raises(tc.TransformationError, match="paged: no kernel adds a position bias"):
        trace_step(deploy(source(T5), "attention=paged"), "prefill", 2, 30, 0)
    norms = sum(1 for key in model.slots if key.startswith("rms_norm@"))
    assert norms == 4 * 2 + 1 + 3 * 3 + 1


@pytest.mark.parametrize("config", [T5, WHISPER, BERT], ids=lambda c: c.model_type)
def test_reuse_changes_nothing(config):
    def total(reuse: bool) -> list[float]:
        model = deploy(source(config), reuse=reuse)
        length = model.probe[1]
        points = {"prefill": (2, length, 0), "decode": (2, length, 9), "forward": (2, length, 0)}
        phases = model.blueprint.source.phases
        return [matrix_flops(trace_step(model, phase, *points[phase]).calls) for phase in phases]

    assert total(True) == total(False)


# -- what they keep, and what comes out --------------------------------------------------------------------------------


def test_encoder_decoder_keeps_what_it_read_and_what_it_made():
    figures = tc.simulate(T5, hw=HW, batch=3, input_len=500, output_len=40, cache=False).to_dict()
    layers, heads, width = 3, 4, 16
    assert figures["memory"]["kv_cache_bytes"] == 3 * layers * 2 * heads * width * 2 * (500 + 40)
    assert figures["metrics"]["ttft_s"] > 0 < figures["metrics"]["tpot_s"]
    assert figures["workload"]["encoder"] is True
    assert any("the encoder reads --input-len" in warning for warning in figures["warnings"])
    assert not any("not polynomial" in warning for warning in figures["warnings"])
    assert figures["uncosted_ops"] == []


def test_decode_step_writes_one_token_and_reads_what_was_kept():
    calls = trace_step(deploy(source(BART)), "decode", 2, 200, 9).calls
    attention = [c for c in calls if c.op == "attention"]
    assert {(c.dims["q"], c.dims["kv"], c.attrs["causal"]) for c in attention} == {(1, 10, True), (1, 200, False)}
    assert {c.attrs["phase"] for c in attention} == {"decode"}
    appended = [c for c in calls if c.op == "kv_append"]
    assert sum(len(c.layers or [0]) for c in appended) == 4 and {c.dims["past"] for c in appended} == {9}
    assert not any(c.module.startswith("model.encoder") for c in calls)


@pytest.mark.parametrize("point", [(1, 77, 3), (7, 311, 50)])
def test_the_table_of_a_decode_step_holds_for_every_length(point):
    asked = Request.of(model=T5, hw=HW, input_len=1000, output_len=20)
    answer = Answer(asked, cache=False)
    piece = answer.deployed.tables["decode"].piece_for(*point)
    assert piece is not None
    basis = piece.basis(*point)
    works = [(operator_named(row.op).work(dims, row.attrs), row.count) for row, dims in sizes(piece, basis)]
    fitted = sum(float(np.asarray(work.matrix_flops).reshape(-1)[0]) * count for work, count in works)
    model = deploy(source(T5), hw=asked.hw)
    assert fitted == pytest.approx(matrix_flops(trace_step(model, "decode", *point).calls), rel=1e-12)


def test_an_encoder_s_latency_is_one_pass():
    figures = tc.simulate(BERT, hw=HW, batch=8, input_len=100, cache=False).to_dict()
    metrics = figures["metrics"]
    assert list(figures["phases"]) == ["forward"] and figures["memory"]["kv_cache_bytes"] == 0
    assert metrics["requests_per_s"] == pytest.approx(8 / metrics["request_latency_s"])
    assert metrics["ttft_s"] is None and metrics["tpot_s"] is None
    assert figures["phases"]["forward"]["matrix_flops"] == matrix_flops(
        trace_step(deploy(source(BERT)), "forward", 8, 100, 0).calls
    )


def test_whisper_reads_sound_of_one_length():
    figures = tc.simulate(WHISPER, hw=HW, batch=2, cache=False).to_dict()
    assert figures["workload"]["input_len"] == 50 and figures["workload"]["output_len"] == 64
    assert figures["memory"]["kv_cache_bytes"] == 2 * 3 * 2 * 64 * 2 * (50 + 64)
    assert any("one length: 50 positions" in warning for warning in figures["warnings"])
    with pytest.raises(InputError, match="--input-len 100: whisper always reads 50 frames; leave it out"):
        tc.simulate(WHISPER, hw=HW, input_len=100)
    with pytest.raises(
        InputError, match=r"--output-len 65 tokens are more than whisper takes \(max_target_positions 64"
    ):
        tc.simulate(WHISPER, hw=HW, output_len=65)


def test_sound_of_any_length_is_counted_in_samples():
    config = Wav2Vec2Config(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4)
    figures = tc.simulate(config, hw=HW, cache=False).to_dict()
    assert figures["workload"]["input_len"] == 160_000
    assert any("ten seconds of sound assumed" in warning for warning in figures["warnings"])


@pytest.mark.parametrize("config", [BERT, T5, BART, VIT, CLIP], ids=lambda c: c.model_type)
def test_two_ranks_share_the_work(config):
    def flops(tp: int) -> dict[str, float]:
        model, found = deploy(source(config), plan=ParallelPlan(tp=tp)), {}
        for call in trace_step(model, model.blueprint.source.phases[0], 2, model.probe[1], 0).calls:
            found[call.module] = found.get(call.module, 0) + matrix_flops([call])
        return found

    whole, cut = flops(1), flops(2)
    shared = [name for name, count in whole.items() if count and cut.get(name, 0) * 2 == count]
    assert sum(whole[name] for name in shared) > 0.75 * sum(whole.values())
    assert all(cut[name] in (count, count / 2) for name, count in whole.items() if name in cut)


def test_quantised_encoder_and_kv_cache_of_an_encoder_decoder():
    plain = tc.simulate(BERT, hw=HW, input_len=64, cache=False).memory["weights_bytes"]
    assert tc.simulate(BERT, hw=HW, input_len=64, quant="w8a8", cache=False).memory["weights_bytes"] < 0.8 * plain
    wide = tc.simulate(T5, hw=HW, input_len=64, output_len=8, cache=False).memory["kv_cache_bytes"]
    narrow = tc.simulate(T5, hw=HW, input_len=64, output_len=8, kv_cache_dtype="fp8", cache=False)
    assert narrow.memory["kv_cache_bytes"] * 2 == wide


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config, options, text",
    [
        (BERT, {"output_len": 5}, "--output-len does not go with BertForMaskedLM: it makes no tokens"),
        (BERT, {"chunk": 64}, "--chunk does not go with BertForMaskedLM"),
        (BERT, {"kv_cache_dtype": "fp8"}, "--kv-cache-dtype does not go with BertForMaskedLM"),
        (BERT, {"phase": "decode"}, "--phase decode: this model has auto, forward"),
        (BERT, {"input_len": 129}, "--input-len 129 tokens are more than BertForMaskedLM takes"),
        (T5, {"chunk": 64}, "--chunk does not go with t5: its encoder reads the whole input at once"),
        (T5, {"prefix_len": 4}, "--prefix-len does not go with t5"),
        (T5, {"seq_lens": (5, 6)}, "--seq-lens does not go with t5"),
        (T5, {"mtp": 1}, "--mtp does not go with t5"),
        (T5, {"pp": 2}, "--pp 2 does not go with t5: every decoder layer needs what the encoder read"),
        (T5, {"concurrency": 4}, "--concurrency does not go with t5"),
        (BART, {"input_len": 300, "output_len": 9}, "--input-len 300 tokens are more than bart takes"),
        (BART, {"output_len": 300}, "--output-len 300 tokens are more than bart takes"),
        (VIT, {"input_len": 5}, "--input-len 5: vit reads pictures of one size; leave it out"),
    ],
)
def test_what_says_nothing_of_the_model_is_refused(config, options, text):
    with pytest.raises(InputError, match=text):
        Request.of(model=config, hw=HW, **options)


def test_a_forward_with_unknown_needs_says_so():
    config = {
        "model_type": "mllama_vision_model", "architectures": ["MllamaVisionModel"], "hidden_size": 64,
        "num_hidden_layers": 2, "attention_heads": 4, "num_attention_heads": 4, "intermediate_size": 96,
    }  # fmt: skip
    with pytest.raises(ModelError, match="aspect_ratio_ids"):
        model = deploy(from_mapping(config))
        trace_step(model, "forward", 2, 1, 0)


def test_a_picture_without_a_size_is_assumed_and_said():
    from transformers import ResNetConfig

    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])
    notes = tc.build_model(config, HW).blueprint.notes
    assert any("224x224 pixels: assumed, no size is stated" in note for note in notes)


def test_every_way_to_name_a_model_is_one_answer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(BERT.to_dict()))
    ways = (str(tmp_path), str(tmp_path / "config.json"), BERT, BERT.to_dict())
    found = {tc.simulate(way, hw=HW, input_len=50, cache=False).metrics["request_latency_s"] for way in ways}
    assert len(found) == 1
    assert resolve_model(str(tmp_path)).phases == roles.LANGUAGE  # told by the request, not by the files


def test_eager_attention_of_a_biased_model_has_the_same_products():
    """The decoder's one token hides no key, so that nothing is left out of the flash form."""
    flash, eager = (trace_step(deploy(source(T5), *k), "prefill", 2, 30, 0).calls for k in ((), ALL_PAIRS))
    assert matrix_flops(flash) == matrix_flops(eager)


def test_a_folder_of_sentence_transformers_runs_a_decoder_as_an_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORCAST_CACHE", str(tmp_path / "cache"))
    config = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320,
        "max_position_embeddings": 512, "tie_word_embeddings": True, "rope_theta": 1e4, "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    decoder = tc.simulate(str(tmp_path), hw=HW, batch=4, input_len=100, output_len=2).to_dict()
    (tmp_path / "modules.json").write_text("[]")
    figures = tc.simulate(str(tmp_path), hw=HW, batch=4, input_len=100).to_dict()
    assert list(decoder["phases"]) == ["prefill", "decode"] and list(figures["phases"]) == ["forward"]
    head = 2 * 4 * 64 * 320
    assert figures["phases"]["forward"]["matrix_flops"] == decoder["phases"]["prefill"]["matrix_flops"] - head
    assert figures["memory"]["kv_cache_bytes"] == 0 < decoder["memory"]["kv_cache_bytes"]
    assert any("the model embeds: one pass of Qwen3Model" in warning for warning in figures["warnings"])
