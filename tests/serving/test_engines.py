from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.cli.simulate import ENGINES as NAMED
from tensorcast.errors import InputError, UnknownNameError
from tensorcast.hardware.load import hardware
from tensorcast.report.facts import facts_of
from tensorcast.serving.engines import BARE, ENGINES, engine_named
from tensorcast.units import seconds

ASKED = {"model": "llama-3.1-8b", "hw": "h100", "input_len": 512, "output_len": 64, "custom_dir": False}


@pytest.fixture(scope="module")
def bare():
    return tc.simulate(**ASKED).metrics


def test_every_engine_has_sane_figures():
    assert {entry.key for entry in ENGINES.entries()} == set(NAMED)
    for entry in ENGINES.entries():
        engine = entry.value
        assert 0 <= engine.step_s < 0.01 and 0 <= engine.sequence_s < 1e-3 and 0 <= engine.request_s < 0.2
        assert 0 <= engine.prompt_step_s < 0.05 and 0 <= engine.waves <= 1 and engine.step_tokens > 0
        assert engine.source


def test_bare_adds_nothing(bare):
    engine = engine_named(BARE)
    assert engine.step_overhead(1000) == engine.prompt_overhead(7) == 0
    assert tc.simulate(**ASKED, engine="bare").metrics == bare
    assert "ttft_loaded_s" not in bare


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm", "mindie"])
def test_an_engine_adds_its_own_time(name, bare):
    engine = engine_named(name)
    found = tc.simulate(**ASKED, engine=name, batch=4)
    plain = tc.simulate(**{**ASKED, "hw": hardware(ASKED["hw"]).preferring(engine.kernels)}, batch=4).metrics
    assert found.metrics["tpot_s"] - plain["tpot_s"] == pytest.approx(engine.step_overhead(4), abs=1e-9)
    assert found.metrics["ttft_s"] - plain["ttft_s"] == pytest.approx(engine.prompt_overhead(1), abs=1e-9)
    assert any(name in warning for warning in found.warnings)


def test_steps_of_a_chunked_prefill_count():
    chunked = tc.simulate(**ASKED, engine="vllm", chunk=128).metrics["ttft_s"]
    plain = tc.simulate(**ASKED, chunk=128).metrics["ttft_s"]
    assert chunked - plain == pytest.approx(engine_named("vllm").prompt_overhead(4), abs=1e-9)


def test_load_makes_both_times_longer(bare):
    found = tc.simulate(**ASKED, concurrency=64).metrics
    assert {k: v for k, v in found.items() if not k.endswith("_loaded_s")} == bare
    assert found["ttft_loaded_s"] > bare["ttft_s"]
    assert found["tpot_loaded_s"] > bare["tpot_s"]


def test_one_client_is_no_load(bare):
    found = tc.simulate(**ASKED, concurrency=1).metrics
    assert found["ttft_loaded_s"] == pytest.approx(bare["ttft_s"], rel=0.03)
    assert found["tpot_loaded_s"] == pytest.approx(bare["tpot_s"], rel=0.03)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"phase": "decode"}, "--phase"),
        ({"prefix_len": 8}, "--prefix-len"),
        ({"seq_lens": [3, 4], "input_len": None}, "--seq-lens"),
    ],
)
def test_what_a_load_does_not_go_with(options, named):
    with pytest.raises(InputError, match=named):
        tc.simulate(**{**ASKED, **options}, concurrency=4)


def test_a_load_is_a_whole_number():
    with pytest.raises(InputError, match="--concurrency"):
        tc.simulate(**ASKED, concurrency=0)


def test_unknown_engine_names_a_near_one():
    with pytest.raises(UnknownNameError, match="vllm"):
        tc.simulate(**ASKED, engine="vlm")


def test_strict_refuses_an_assumed_engine():
    with pytest.raises(InputError, match="engine mindie"):
        tc.simulate(**ASKED, engine="mindie", strict=True)


def test_the_answer_says_what_was_asked_of_runtime_and_engine() -> None:
    """What they add to the phases is in the JSON and in words; by default neither says anything."""
    asked = {"model": "qwen3-0.6b", "hw": "h100-sxm", "layers": 2, "input_len": 64, "output_len": 8}
    found = tc.simulate(**asked, runtime="eager", engine="vllm", gpu_memory_utilization=0.9).to_dict()
    serving, phases, metrics = (found[name] for name in ("serving", "phases", "metrics"))
    assert (serving["runtime"], serving["engine"], serving["gpu_memory_utilization"]) == ("eager", "vllm", 0.9)
    assert phases["prefill"]["step_time_s"] + serving["engine_prompt_s"] == pytest.approx(metrics["ttft_s"])
    assert phases["decode"]["step_time_s"] + serving["engine_step_s"] == pytest.approx(metrics["tpot_s"])
    said = facts_of(found)["serving"]
    assert said[0] == "runtime eager" and f"{seconds(serving['engine_step_s'])} in every decode step" in said[-1]
    assert "serving" not in (plain := tc.simulate(**asked).to_dict()) and "serving" not in facts_of(plain)
