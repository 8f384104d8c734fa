"""What each flag of the work and the plan does to the figures: exact relations, no snapshots."""

from __future__ import annotations

import pytest

import tensorcast as tc

DENSE, MOE = "qwen3-0.6b", "qwen3-30b-a3b"
WORK = ("matrix_flops", "vector_flops", "read_bytes", "write_bytes", "comm_bytes")


def simulate(model: str = DENSE, hw: str = "h100", **options) -> tc.Estimate:
    return tc.simulate(model, hw, **options)


def flops(phase, *ops: str) -> float:
    """Matrix FLOP of the operators called `ops`, or of all others when the first is "not"."""
    others = ops[0] == "not"
    return sum(op["matrix_flops"] for op in phase["ops"] if (op["op"] in ops) != others)


# -- phases ------------------------------------------------------------------------------------------------------------


def test_each_phase_has_its_own_figures():
    both = simulate(input_len=512, output_len=8)
    prefill = simulate(input_len=512, output_len=8, phase="prefill")
    decode = simulate(input_len=512, output_len=8, phase="decode")
    assert list(both.phases) == ["prefill", "decode"]
    assert list(prefill.phases) == ["prefill"] and list(decode.phases) == ["decode"]
    assert prefill.metrics["ttft_s"] == both.metrics["ttft_s"] and prefill.metrics["tpot_s"] is None
    assert decode.metrics["tpot_s"] == both.metrics["tpot_s"] and decode.metrics["ttft_s"] is None
    assert prefill.metrics["request_latency_s"] is None and decode.metrics["request_latency_s"] is None


def test_latency_and_throughput_are_those_of_the_definitions():
    m = simulate(batch=6, dp=2, input_len=512, output_len=9).metrics
    assert m["request_latency_s"] == pytest.approx(m["ttft_s"] + 8 * m["tpot_s"], rel=1e-12)
    assert m["tokens_per_s"] == pytest.approx(6 * 9 / m["request_latency_s"], rel=1e-12)
    assert m["tokens_per_s_per_device"] == pytest.approx(m["tokens_per_s"] / 2, rel=1e-12)
    assert m["tokens_per_s_per_user"] == pytest.approx(1 / m["tpot_s"], rel=1e-12)


@pytest.mark.parametrize("model", [DENSE, "gpt-oss-20b"])
def test_tpot_is_the_mean_over_all_output_positions(model):
    """gpt-oss has windows of 128 tokens: some layers stop growing between the first position and the last."""
    whole = simulate(model, input_len=100, output_len=81, phase="decode")
    each = [simulate(model, input_len=100 + k, output_len=2, phase="decode") for k in range(80)]
    assert whole.metrics["tpot_s"] == pytest.approx(sum(e.metrics["tpot_s"] for e in each) / 80, rel=1e-9)
    for name in WORK:
        mean = sum(e.phases["decode"][name] for e in each) / 80
        assert whole.phases["decode"][name] == pytest.approx(mean, rel=1e-9)


def test_one_output_token_is_the_prefills():
    m = simulate(input_len=512, output_len=1).metrics
    assert m["request_latency_s"] == m["ttft_s"]


# -- chunks, prefixes, ragged batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [256, 300, 1024])
def test_chunks_do_the_matrix_work_of_the_whole_prompt(chunk):
    whole, cut = (simulate(input_len=1024, output_len=2, chunk=c) for c in (None, chunk))
    assert list(cut.phases) == ["chunked", "decode"]
    assert flops(cut.phases["chunked"], "attention") == flops(whole.phases["prefill"], "attention")
    layers = ("not", "attention")
    head = flops(whole.phases["decode"], "linear") - flops(simulate(layers=1, output_len=2).phases["decode"], "linear")
    assert head > 0
    passes = -(-1024 // chunk)
    logits = 2 * 151_936 * 1024  # each pass computes the logits of its last position
    assert flops(cut.phases["chunked"], *layers) == flops(whole.phases["prefill"], *layers) + (passes - 1) * logits
    assert cut.metrics["ttft_s"] == cut.phases["chunked"]["step_time_s"]
    if passes > 1:
        assert cut.metrics["ttft_s"] > whole.metrics["ttft_s"]
        assert cut.memory["activation_peak_bytes"] < whole.memory["activation_peak_bytes"]
    assert cut.memory["kv_cache_bytes"] == whole.memory["kv_cache_bytes"]


def test_phase_chunked_is_the_chunked_prefill_alone():
    alone = simulate(input_len=1024, output_len=2, chunk=256, phase="chunked")
    both = simulate(input_len=1024, output_len=2, chunk=256)
    assert list(alone.phases) == ["chunked"]
    assert alone.metrics["ttft_s"] == both.metrics["ttft_s"]


def test_a_cached_prefix_leaves_the_rest_of_the_prompt():
    rest = simulate(input_len=1024, prefix_len=768, output_len=2)
    chunks = [simulate(input_len=n, chunk=256, phase="chunked") for n in (1024, 768)]
    for name in WORK:
        last = chunks[0].phases["chunked"][name] - chunks[1].phases["chunked"][name]
        assert rest.phases["prefill"][name] == pytest.approx(last, rel=1e-9, abs=1)
    assert rest.metrics["tpot_s"] == simulate(input_len=1024, output_len=2).metrics["tpot_s"]


@pytest.mark.parametrize("model", [DENSE, MOE])
def test_a_ragged_batch_is_its_tokens_in_products_and_its_sequences_in_attention(model):
    lengths = (100, 300, 112)
    ragged = simulate(model, seq_lens=lengths, output_len=2)
    together = simulate(model, input_len=512, output_len=2)
    alone = [simulate(model, input_len=n, output_len=2) for n in lengths]
    logits = 2 * 151_936 * (1024 if model == DENSE else 2048)
    products = flops(ragged.phases["prefill"], "not", "attention")
    assert products == flops(together.phases["prefill"], "not", "attention") + 2 * logits
    for phase in ("prefill", "decode"):
        each = sum(flops(e.phases[phase], "attention") for e in alone)
        assert flops(ragged.phases[phase], "attention") == pytest.approx(each, rel=1e-12)
    assert ragged.memory["kv_cache_bytes"] == sum(e.memory["kv_cache_bytes"] for e in alone)


def test_equal_lengths_are_no_ragged_batch():
    ragged, plain = simulate(seq_lens=(256, 256, 256), output_len=40), simulate(batch=3, input_len=256, output_len=40)
    for phase in ("prefill", "decode"):
        for name in WORK:
            assert ragged.phases[phase][name] == pytest.approx(plain.phases[phase][name], rel=1e-9)
        assert ragged.phases[phase]["step_time_s"] == pytest.approx(plain.phases[phase]["step_time_s"], rel=1e-9)


def test_one_length_is_that_input():
    assert simulate(seq_lens=[333]).metrics == simulate(input_len=333).metrics


def test_a_ragged_decode_is_the_mean_over_its_positions():
    """Windows of 128 tokens: evaluated once, at the middle, the short sequence would be wrong."""
    ragged = simulate("gpt-oss-20b", seq_lens=(60, 500), output_len=101, phase="decode")
    alone = [simulate("gpt-oss-20b", input_len=n, output_len=101, phase="decode") for n in (60, 500)]
    each = sum(flops(e.phases["decode"], "attention") for e in alone)
    assert flops(ragged.phases["decode"], "attention") == pytest.approx(each, rel=1e-12)


# -- plans -------------------------------------------------------------------------------------------------------------


def test_attention_data_parallel_takes_the_fullest_group():
    group, whole = simulate(batch=3, output_len=2), simulate(batch=5, dp=2, output_len=2)
    assert whole.metrics["ttft_s"] == group.metrics["ttft_s"]
    assert whole.memory["total_bytes"] == group.memory["total_bytes"]
    assert whole.metrics["tokens_per_s"] == pytest.approx(group.metrics["tokens_per_s"] * 5 / 3, rel=1e-12)


@pytest.mark.parametrize(("batch", "asked", "micro"), [(8, None, 4), (8, 8, 8), (2, None, 2), (8, 1, 1)])
def test_a_pipeline_fills_and_drains(batch, asked, micro):
    stages = 4
    estimate = simulate(batch=batch, pp=stages, micro_batches=asked, output_len=2)
    for phase, slots in (("prefill", micro + stages - 1), ("decode", max(micro, stages))):
        found = estimate.phases[phase]
        ops = found["ops"]
        busy = sum(op["time_s"] for op in ops if op["op"] != "pipeline_bubble")
        bubble = sum(op["time_s"] for op in ops if op["op"] == "pipeline_bubble")
        assert busy + bubble == pytest.approx(found["step_time_s"], rel=1e-9)
        assert found["step_time_s"] == pytest.approx(busy / micro * slots, rel=1e-9)
        assert bubble == pytest.approx(busy / micro * (slots - micro), rel=1e-9, abs=1e-15)
        assert sum(found["time_by_bound_s"].values()) == pytest.approx(busy + bubble, rel=1e-9)


def test_pipeline_stages_share_layers_and_each_end_holds_the_tied_embedding():
    one, two = simulate(), simulate(pp=2)
    embedding, norm = 2 * 151_936 * 1024, 2 * 1024
    layers = one.memory["weights_bytes"] - embedding - norm
    assert two.memory["weights_bytes"] == layers // 2 + embedding + norm
    assert two.memory["kv_cache_bytes"] * 2 == one.memory["kv_cache_bytes"]


def test_the_slower_of_device_and_host_sets_the_pace():
    graph, eager = simulate(output_len=2), simulate(output_len=2, runtime="eager")
    for name in ("prefill", "decode"):
        device = graph.phases[name].ops["time_s"].sum()
        assert device == pytest.approx(eager.phases[name].ops["time_s"].sum(), rel=1e-12)
        for estimate in (graph, eager):
            phase = estimate.phases[name]
            assert phase["step_time_s"] == pytest.approx(max(device, phase["host_time_s"]), rel=1e-9)
        ops = graph.phases[name].ops
        launches = ops["count"][ops["op"] != "residual_add"].sum()  # the norm's kernel does those
        assert eager.phases[name]["host_time_s"] == pytest.approx(launches * 20e-6, rel=1e-9)
    assert eager.phases["decode"]["step_time_s"] > graph.phases["decode"]["step_time_s"]


# -- drafts ------------------------------------------------------------------------------------------------------------


def test_accepted_drafts_divide_the_step():
    steps = {}
    for rate in (0.0, 0.5, 1.0):
        e = simulate("deepseek-v3", tp=8, layers=4, mtp=2, acceptance_rate=rate, output_len=2)
        steps[rate] = e.phases["decode"]["step_time_s"]
        assert e.metrics["tpot_s"] == pytest.approx(steps[rate] / (1 + rate + rate**2), rel=1e-12)
    assert len(set(steps.values())) == 1
    assumed = simulate("deepseek-v3", tp=8, layers=4, mtp=2, output_len=2)
    assert any("acceptance rate" in warning for warning in assumed.warnings)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_windowed_layers_keep_no_more_than_their_window():
    short, long = (simulate("gpt-oss-20b", input_len=n, output_len=1).memory["kv_cache_bytes"] for n in (999, 1999))
    per_token = 2 * 8 * 64 * 2  # K and V, 8 heads of 64, two bytes
    assert long - short == 12 * 1000 * per_token  # the 12 layers without a window
    assert short == 12 * 1000 * per_token + 12 * 128 * per_token


def test_max_model_len_reserves_cache_and_changes_no_time():
    plain, reserved = simulate(), simulate(max_model_len=20_480)
    assert reserved.memory["kv_cache_bytes"] == 4 * plain.memory["kv_cache_bytes"]
    assert reserved.metrics == plain.metrics


def test_memory_utilization_lowers_the_capacity():
    whole, part = simulate(), simulate(gpu_memory_utilization=0.5)
    assert part.memory["capacity_bytes"] * 2 == whole.memory["capacity_bytes"] == 80_000_000_000


# -- spellings ---------------------------------------------------------------------------------------------------------


def test_python_takes_every_spelling_of_the_command_line():
    changed = {"rms_norm_eps": 1e-5}
    short = simulate(tp=2, batch=2, input_len=64, output_len=4, layers=2, overrides=changed, reuse=False)
    long = simulate(
        tensor_parallel_size=2, batch_size=2, isl=64, osl=4, layers=2, set=changed, no_reuse=True, no_cache=True
    )
    assert long.command == f"{short.command} --no-cache"
    assert {**long.to_dict(), "command": None} == {**short.to_dict(), "command": None}


def test_count_is_how_often_an_operator_runs_in_the_phase():
    cut = simulate(input_len=1000, output_len=5, chunk=300)
    for phase, passes in (("chunked", 4), ("decode", 1)):
        ops = cut.phases[phase].ops
        assert ops.query("op == 'attention'")["count"].tolist() == [28 * passes]
        assert ops.query("module == 'lm_head' and op == 'linear'")["count"].tolist() == [passes]
    shared = simulate(pp=2, batch=4, micro_batches=4, output_len=2).phases["prefill"].ops
    assert shared.query("op == 'attention'")["count"].tolist() == [14 * 4]


def test_windowed_and_full_layers_stay_apart_in_chunks():
    cut = simulate("gpt-oss-20b", input_len=1000, output_len=2, chunk=300).phases["chunked"].ops
    assert cut.query("op == 'attention'")["count"].tolist() == [12 * 4, 12 * 4]
