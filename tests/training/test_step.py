"""A training step as `simulate --phase train` answers it: time, communication, memory, and what is refused."""

from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.cost.passes import Pipeline
from tensorcast.deployed import WeightGroup
from tensorcast.errors import TensorcastError
from tensorcast.plan import ParallelPlan
from tensorcast.training.memory import _held
from tensorcast.training.shares import copy_plan, shares_of

GIB = 2**30


def train(model: str = "llama-2-7b", hw: str = "a100-sxm-80g", **options):
    return tc.simulate(model=model, hw=hw, **{"phase": "train", "batch": 8, "custom_dir": False, **options})


def seconds(estimate, part: str) -> float:
    """Seconds of one part of the step."""
    return sum(op["time_s"] for op in estimate.phases["train"]["ops"] if op.get("part") == part)


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_step_is_the_sum_of_its_parts():
    found = train()
    phase, metrics = found.phases["train"], found.metrics
    assert metrics["step_time_s"] == phase["step_time_s"]
    parts = sum(seconds(found, part) for part in ("forward", "backward", "optimizer"))
    assert parts == pytest.approx(phase["step_time_s"], rel=1e-9)
    assert sum(phase["time_by_bound_s"].values()) == pytest.approx(parts, rel=1e-9)
    told = {name: metrics[f"{name}_time_s"] for name in ("forward", "backward", "optimizer")}
    assert told == pytest.approx({name: seconds(found, name) for name in told})
    assert 1.7 < told["backward"] / told["forward"] < 2.5
    assert metrics["tokens_per_s"] == pytest.approx(8 * 4096 / phase["step_time_s"])
    assert metrics["ttft_s"] is None and metrics["tpot_s"] is None


def test_model_flops_utilisation_is_six_parameters_a_token():
    metrics = train().metrics
    by_hand = 6 * 6_738_415_616 * 8 * 4096 / metrics["step_time_s"] / 312e12
    assert metrics["model_flops_utilisation"] == pytest.approx(by_hand)
    # Attention is not in 6 N T, and the embedding's parameters, which are, have no product.
    assert 1.0 < metrics["hardware_flops_utilisation"] / by_hand < 1.15


def test_recomputed_layers_take_a_third_more():
    plain, again = train(), train(grad_checkpoint="full")
    assert seconds(again, "backward") == pytest.approx(seconds(plain, "backward"))
    assert 0.93 < seconds(again, "recompute") / seconds(plain, "forward") < 1.0
    assert again.metrics["model_flops_utilisation"] < plain.metrics["model_flops_utilisation"]


def test_no_operator_is_faster_than_its_bound():
    found = train(tp=2, dp=2, zero=1)
    for op in found.phases["train"]["ops"]:
        if op.get("part") in ("forward", "backward", "optimizer") and "residual_add" not in op["op"]:
            bound = max((op["read_bytes"] + op["write_bytes"]) / 2.039e12, op["matrix_flops"] / 312e12)
            assert op["time_s"] >= bound * (1 - 1e-9), op


def test_the_optimizer_moves_28_bytes_a_parameter():
    """Read gradient 2, master weight 4, moments 8; write weight 2, master weight 4, moments 8."""
    (step,) = {op["module"]: op for op in merged(train(), "optimizer_step")}.values()
    assert step["read_bytes"] + step["write_bytes"] == 28 * 6_738_415_616
    (half,) = merged(train(dp=2, zero=1), "optimizer_step")
    assert half["read_bytes"] + half["write_bytes"] == 14 * 6_738_415_616
    (plain,) = merged(train(optimizer="sgd"), "optimizer_step")
    assert plain["read_bytes"] + plain["write_bytes"] == 12 * 6_738_415_616
    (wide,) = merged(train(dtype="fp32"), "optimizer_step")  # no second copy of the weights
    assert wide["read_bytes"] + wide["write_bytes"] == 28 * 6_738_415_616


def merged(estimate, op: str) -> list[dict]:
    """The rows of one operator as one."""
    rows = [row for row in estimate.phases["train"]["ops"] if row["op"] == op]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if isinstance(rows[0][name], (int, float))}
    return [{**rows[0], **total}]


@pytest.mark.parametrize(("zero", "passes", "batches"), [(0, 2, 1), (1, 2, 1), (2, 1 + 1 / 2, 2), (3, 3, 2)])
def test_bytes_sent_over_the_copies(zero, passes, batches):
    """Of 2 bytes a parameter, 3/4 travel: all_reduce twice them; reduce_scatter and all_gather once each, of the
    updated weights (ZeRO 1, 2) once a step, of gradients (2, 3) and weights (3, twice) once a micro-batch."""
    found = train(dp=4, zero=zero, micro_batches=2)
    sent = found.phases["train"]["comm_bytes"]
    assert sent == pytest.approx(2 * 6_738_415_616 * 3 / 4 * passes * batches, rel=1e-6)


def test_reducing_gradients_hides_behind_the_backward_pass():
    alone, copies = train(batch=2), train(batch=4, dp=2)
    backward, reduction = seconds(alone, "backward"), copies.metrics["gradient_reduction_time_s"]
    whole = 2 * 6_738_415_616 / 300e9  # all of it, at the speed of the links: 45 ms of about 1 s
    assert 0 < reduction < whole
    assert copies.metrics["step_time_s"] == pytest.approx(alone.metrics["step_time_s"] + reduction)
    assert reduction < backward / 20


def test_tensor_parallel_sums_as_often_backwards_as_forwards():
    found = train(tp=4)
    ops = found.phases["train"]["ops"]
    forward = [op for op in ops if op["op"] == "all_reduce" and op["module"]]
    backward = [op for op in ops if op["op"] == "all_reduce_backward" and op["module"]]
    assert sum(op["count"] for op in forward) == sum(op["count"] for op in backward) == 2 * 32 + 1
    assert sum(op["comm_bytes"] for op in forward) == sum(op["comm_bytes"] for op in backward)
    assert not [op for op in ops if op["op"] == "all_gather"]  # the loss is taken on each rank's part of the logits


def test_pipeline_waits_for_all_other_stages():
    """1F1B: p - 1 passes of m + p - 1 are waited for."""
    few, many = train(pp=4, micro_batches=4), train(pp=4, micro_batches=8)
    for found, batches in ((few, 4), (many, 8)):
        bubble, updated = found.metrics["pipeline_bubble_time_s"], found.metrics["optimizer_time_s"]
        passes = found.metrics["step_time_s"] - updated
        assert bubble / passes == pytest.approx(3 / (batches + 3), rel=1e-6)
    boundary = sum(op["comm_bytes"] for op in few.phases["train"]["ops"] if op["op"] == "send_recv")
    assert boundary == 8 * 4096 * 4096 * 2  # the last stage, the slowest, hands gradients back


def test_more_of_everything_takes_longer():
    base = train(batch=8).metrics["step_time_s"]
    assert train(batch=16).metrics["step_time_s"] > 1.8 * base
    assert train(batch=8, input_len=2048).metrics["step_time_s"] < 0.55 * base
    assert train(batch=8, runtime="eager").metrics["step_time_s"] >= base


@pytest.mark.parametrize(
    ("model", "hw", "plan", "published"),
    [
        (
            "llama-2-7b",
            "a100-sxm-80g",
            {"dp": 64, "batch": 1024, "micro_batches": 8, "zero": 1, "grad_checkpoint": "full"},
            0.39,
        ),
        (
            "llama-3.1-405b",
            "h100-sxm",
            {"tp": 8, "pp": 16, "dp": 64, "batch": 2048, "input_len": 8192, "micro_batches": 32, "zero": 1},
            0.43,
        ),
    ],
)
def test_near_what_was_published(model, hw, plan, published):
    """A range, no score: see tensorcast.training for the sources and for what differs."""
    found = train(model, hw, **plan).metrics["model_flops_utilisation"]
    assert 0.67 * published < found < 1.5 * published


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zero", "published"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.88)])
def test_states_of_the_zero_paper(zero, published):
    """Figure 1 of arXiv 1910.02054: 7.5 B parameters on 64 devices, in GB."""
    from types import SimpleNamespace

    group = WeightGroup(7_500_000_000, 15_000_000_000, "tp", (), "pre")
    settings = SimpleNamespace(zero=zero, optimizer="adamw")
    held = sum(_held(shares_of([group], ParallelPlan(dp=64)), Pipeline(), 0, settings))
    assert held / 1e9 == pytest.approx(published, rel=5e-3)


def test_memory_by_kind():
    memory = train(batch=1).memory
    assert memory["weights_bytes"] == memory["gradients_bytes"] == 2 * 6_738_415_616
    assert memory["optimizer_bytes"] == 12 * 6_738_415_616
    assert memory["kv_cache_bytes"] == 0
    kinds = ("weights", "gradients", "optimizer", "kv_cache", "activation_peak", "workspace", "reserved")
    assert memory["total_bytes"] == pytest.approx(sum(memory[f"{kind}_bytes"] for kind in kinds), abs=len(kinds))
    assert not memory["fits"] and memory["max_batch"] == 0


def test_checkpoints_keep_what_layers_start_with():
    """32 layers · 4096 tokens · 4096 · 2 bytes, the logits in fp32, and what one layer needs."""
    plain, full = (train(batch=1, grad_checkpoint=how).memory["activation_peak_bytes"] for how in ("none", "full"))
    starts, logits = 32 * 4096 * 4096 * 2, 4096 * 32000 * 4
    assert starts + logits < full < starts + 3 * logits
    assert plain > 6 * starts


def test_first_stage_keeps_the_most_micro_batches():
    """min(p - s, m) of them: eight micro-batches in four stages keep four of theirs, as four do."""
    one = {"batch": 8, "pp": 4}
    four, eight = (train(**one, micro_batches=m).memory["activation_peak_bytes"] for m in (4, 8))
    assert eight < 0.56 * four


def test_what_does_not_fit_says_what_would():
    memory = train(batch=8, dp=2).memory
    assert not memory["fits"]
    assert 0 < len(memory["suggestions"]) <= 3
    flags = memory["suggestions"][-1].partition(":")[0].replace("--", "").split()
    options = dict(zip(flags[::2], flags[1::2], strict=True))
    options = {name.replace("-", "_"): int(v) if v.isdigit() else v for name, v in options.items()}
    assert train(**{"batch": 8, "dp": 2, **options}).memory["fits"]


# -- experts -----------------------------------------------------------------------------------------------------------


def test_experts_across_copies_have_fewer_copies():
    """ep 4 with tp 1, dp 8: four copies share the experts, two groups of which hold the same ones."""
    plan = ParallelPlan(ep=4, dp=8)
    assert copy_plan(plan).dp == 4 and copy_plan(ParallelPlan(tp=8, ep=4, dp=2)).dp == 1
    assert copy_plan(ParallelPlan(tp=4, ep=6, dp=3)).dp == 3
    dense, experts = shares_of([WeightGroup(10, 20, "tp", (0,)), WeightGroup(30, 60, "experts", (0,))], plan)
    assert (dense.ranks, dense.stride, experts.ranks, experts.stride) == (8, 1, 2, 4)


def test_experts_spread_over_copies_share_their_weights():
    alone = train("qwen3-30b-a3b", "h100-sxm", dp=8, batch=8, grad_checkpoint="full")
    shared = train("qwen3-30b-a3b", "h100-sxm", dp=8, ep=8, batch=8, grad_checkpoint="full")
    experts = 48 * 128 * 3 * 2048 * 768
    assert alone.memory["weights_bytes"] - shared.memory["weights_bytes"] == 2 * experts * 7 // 8
    assert alone.phases["train"]["matrix_flops"] == pytest.approx(shared.phases["train"]["matrix_flops"])
    exchanged = {op["op"] for op in shared.phases["train"]["ops"] if op["op"].startswith(("moe_dis", "moe_com"))}
    assert exchanged == {"moe_dispatch", "moe_combine", "moe_dispatch_backward", "moe_combine_backward"}
    assert shared.metrics["model_flops_utilisation"] < 1  # by active parameters


def test_experts_in_a_loop_have_the_same_products_backwards():
    """Each expert's products for themselves, and the fused activation's gradient between them."""
    options = {"batch": 1, "input_len": 512, "layers": 2}
    grouped, loop = (
        train("qwen3-30b-a3b", "h100-sxm", **options, kernel=[f"moe_experts={name}"]).phases["train"]
        for name in ("grouped", "loop")
    )
    assert grouped["matrix_flops"] == pytest.approx(loop["matrix_flops"])
    assert grouped["step_time_s"] < loop["step_time_s"]


def test_popular_experts_take_longer_in_both_passes():
    options = {"dp": 8, "ep": 8, "batch": 8, "grad_checkpoint": "full"}
    even, skewed = (
        train("qwen3-30b-a3b", "h100-sxm", **options, moe_imbalance=how) for how in ("uniform", "power-law:1.2")
    )
    for part in ("forward", "recompute", "backward"):
        assert seconds(skewed, part) > 1.05 * seconds(even, part)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output_len": 5}, "--output-len is about inference"),
        ({"seq_lens": [5, 7]}, "--seq-lens is about inference"),
        ({"engine": "vllm"}, "--engine is about inference"),
        ({"phase": "decode", "zero": 1}, "--zero needs --phase train"),
        ({"phase": "auto", "optimizer": "sgd"}, "--optimizer needs --phase train"),
        ({"zero": 4}, "--zero 4: a whole number, 0 to 3"),
        ({"optimizer": "adam"}, "--optimizer 'adam': one of adamw, sgd"),
        ({"grad_checkpoint": "some"}, "--grad-checkpoint 'some': one of none, full"),
        ({"quant": "w8a8"}, "--phase train computes unquantised"),
        ({"dp": 16}, "--dp 16 needs at least as many sequences"),
        ({"micro_batches": 9}, "--micro-batches 9"),
        ({"input_len": 5000}, "--input-len 5000 tokens are more than llama-2-7b takes"),
        ({"model": "flux.1-dev"}, ""),
        ({"model": "deepseek-v3", "hw": "h100-sxm"}, "--phase train computes unquantised; this model has fp8-block"),
        ({"model": "deepseek-v3.2", "layers": 4, "quant": "none"}, "no gradient is described for operator index_"),
        ({"kernel": ["attention=paged"]}, "no gradient is described for operator paged_attention"),
    ],
)
def test_refused_in_one_line(options, said):
    with pytest.raises(TensorcastError) as refused:
        train(**options)
    text = str(refused.value)
    assert said in text and "\n" not in text


def test_the_models_own_length_is_taken(plain_folder):
    """A model of 512 positions trains on all of them, and says so."""
    from tests.verify.tiny import tiny

    tiny("llama", plain_folder)
    found = train(str(plain_folder), dtype="bf16")
    assert found.to_dict()["workload"]["input_len"] == 512
    assert any("sequences of 512 assumed" in warning for warning in found.warnings)


def test_command_line(run, plain_folder):
    code, out, err = run(
        "simulate", "-m", "llama-2-7b", "--hw", "a100-sxm-80g", "--phase", "train", "--batch", "8", "--dp", "8",
        "--zero", "2", "--grad-checkpoint", "full", "--layers", "2",
    )  # fmt: skip
    assert code == 0, err
    for text in ("one training step", "model FLOPs", "gradients", "optimizer adamw", "zero 2", "linear_backw"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 80
    code, _, err = run("simulate", "-m", "llama-2-7b", "--hw", "a100-sxm-80g", "--phase", "train", "--strict")
    assert code == 2 and err.count("\n") == 1 and "backward kernels" in err
    code, _, err = run("simulate", "-m", "llama-2-7b", "--hw", "a100-sxm-80g", "--phase", "train", "--zero", "9")
    assert code == 2 and len(err.splitlines()) == 1 and "--zero" in err
