"""Communication beside computation: the schedule against one that goes from event to event, and what simulate says."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorcast.cost.overlap import COMPUTE, LINK, Task, hidden_seconds, in_order, lanes, runs_of
from tensorcast.estimate import simulate
from tensorcast.optable import Row

SIZES = {"m": (1.0,), "n": (1.0,), "k": (1.0,)}
KINDS = {
    "linear": ("linear", SIZES, {}),
    "all_reduce": ("all_reduce", {"elements": (1.0,)}, {}),
    "both": ("linear_all_reduce", SIZES, {"size": 2, "stride": 1, "out_format": "bf16"}),
}
LANES = {"linear": (COMPUTE,), "all_reduce": (LINK,), "both": (COMPUTE, LINK)}


def row(number: int, kind: str, after=(), layers=(), place="") -> Row:
    op, dims, attrs = KINDS[kind]
    stack = "layers" if layers else ""
    return Row(op, "", max(len(layers), 1), dims, attrs, ((), ()), stack, tuple(layers), place, number, tuple(after))


@st.composite
def chains(draw, most: int = 9, passes: int = 2) -> list[Task]:
    """Rows of a small model: a few outside of layers, the others in some of three layers, each after some before it."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=most))
    tasks, places = [], sorted(draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(kinds), max_size=len(kinds))))
    for number, (kind, where) in enumerate(zip(kinds, places, strict=True)):
        layers = tuple(sorted(draw(st.sets(st.integers(0, 2), min_size=1)))) if where == 1 else ()
        after = draw(st.sets(st.integers(0, number - 1))) if number else ()
        times = draw(st.lists(st.integers(0, 9), min_size=passes, max_size=passes))
        place = {0: "pre", 1: "", 2: "post"}[where]
        tasks.append(Task(row(number, kind, sorted(after), layers, place), np.array(times, float)))
    return tasks


def event_by_event(queues: list[list], needs: dict, lanes_of: dict, seconds: dict) -> float:
    """End of the last job. Each lane takes up its queue in order; a job starts once all its lanes are free for it and
    what it needs has ended."""
    waiting, running, done, now = [list(queue) for queue in queues], {}, set(), 0.0
    while any(waiting) or running:
        for job in {queue[0] for queue in waiting if queue}:
            free = all(waiting[lane] and waiting[lane][0] == job for lane in lanes_of[job])
            busy = {lane for other in running for lane in lanes_of[other]}
            if free and not busy & {*lanes_of[job]} and needs[job] <= done:
                running[job] = now + seconds[job]
                for lane in lanes_of[job]:
                    waiting[lane].pop(0)
        now = min(running.values())
        done |= {job for job, end in running.items() if end == now}
        running = {job: end for job, end in running.items() if end > now}
    return now


def alone(chain, index: int) -> tuple[float, float, float]:
    """Seconds of pass `index`: all in sequence, computing, talking."""
    each = [(lanes(t.row), t.row.count * t.seconds[index]) for t in chain]
    return tuple(sum(s for held, s in each if lane in (None, *held)) for lane in (None, COMPUTE, LINK))


def whole(chain) -> list[tuple[tuple, tuple]]:
    """Every call of the chain in lane order, with the calls that it needs; calls are (run, number)."""
    out, before = [], []
    for index, (_, _, run) in enumerate(runs_of(chain)):
        here = {task.row.number for task in run}
        for task in in_order(run):
            needs = {(index, n) for n in task.row.after if n in here} | {*before}
            out.append(((index, task.row.number), needs))
        before = [job for job, _ in out if job[0] == index]
    return out


@given(chains())
def test_streams_is_the_schedule_of_all_layers_event_by_event(chain):
    jobs, by_number = whole(chain), {task.row.number: task for task in chain}
    lanes_of = {job: lanes(by_number[job[1]].row) for job, _ in jobs}
    queues = [[job for job, _ in jobs if lane in lanes_of[job]] for lane in (COMPUTE, LINK)]
    hidden = hidden_seconds([chain])
    for index in (0, 1):
        seconds = {job: by_number[job[1]].seconds[index] for job, _ in jobs}
        serial, computing, talking = alone(chain, index)
        expected = event_by_event(queues, dict(jobs), lanes_of, seconds)
        assert serial - np.broadcast_to(hidden, 2)[index] == pytest.approx(expected, abs=1e-9)
        assert max(computing, talking) <= expected <= serial


@given(chains(passes=1), chains(passes=1))
def test_dual_batch_is_two_halves_that_take_turns_event_by_event(first, second):
    """Each half is one call after another; lanes take up the halves' turns alternately."""
    turns, needs, lanes_of, seconds = [], {}, {}, {}
    for half, chain in enumerate((first, second)):
        by_number, turn, last = {task.row.number: task for task in chain}, 0, None
        for call, _ in whole(chain):
            job, task = (half, *call), by_number[call[1]]
            needs[job], lanes_of[job], seconds[job] = {last} - {None}, lanes(task.row), task.seconds[0]
            turns.append((turn, half, job))
            turn, last = turn + (LINK in lanes_of[job]), job
    turns.sort(key=lambda entry: entry[:2])
    queues = [[job for _, _, job in turns if lane in lanes_of[job]] for lane in (COMPUTE, LINK)]
    expected = event_by_event(queues, needs, lanes_of, seconds)
    serial, computing, talking = np.sum([alone(chain, 0) for chain in (first, second)], axis=0)
    assert serial - hidden_seconds([first, second])[0] == pytest.approx(expected, abs=1e-9)
    assert max(computing, talking) <= expected <= serial


@given(chains())
def test_nothing_comes_before_what_it_waits_for(chain):
    for _, _, run in runs_of(chain):
        place = {task.row.number: index for index, task in enumerate(in_order(run))}
        assert sorted(place) == sorted(task.row.number for task in run)
        assert all(place[n] < place[t.row.number] for t in run for n in t.row.after if n in place)


@given(chains())
def test_runs_are_every_call_once(chain):
    calls = [task.row.number for run in runs_of(chain) for task in run.tasks]
    assert {t.row.number: calls.count(t.row.number) for t in chain} == {t.row.number: t.row.count for t in chain}


def test_lanes_of_operators():
    for kind, held in LANES.items():
        assert lanes(row(0, kind)) == held


def test_rows_that_wait_for_each_other_are_an_error():
    with pytest.raises(ValueError, match="wait for each other"):
        in_order([Task(row(0, "linear", (1,)), np.ones(1)), Task(row(1, "linear", (0,)), np.ones(1))])


def expert_block() -> list[Task]:
    """4 layers: router 1 s, dispatch 5, experts 3, combine 4; shared experts 6, written first; their sum 1."""
    rows = [
        ("linear", (), 6.0), ("linear", (), 1.0), ("all_reduce", (1,), 5.0), ("linear", (2,), 3.0),
        ("all_reduce", (3,), 4.0), ("linear", (0, 4), 1.0),
    ]  # fmt: skip
    return [Task(row(n, kind, after, range(4)), np.array([t])) for n, (kind, after, t) in enumerate(rows)]


def test_shared_experts_run_beside_the_combine():
    """1 router, 5 dispatch, 3 experts; then 6 of shared experts beside 4 of the combine; 1: 16 instead of 20."""
    assert hidden_seconds([expert_block()]).item() == 4 * 4.0


def test_only_the_layers_of_a_stage_count():
    assert hidden_seconds([expert_block()], range(1, 3)).item() == 2 * 4.0


def test_a_collective_between_two_operators_hides_nothing():
    chain = [
        Task(row(n, kind, (n - 1,) if n else ()), np.array([0.1]))
        for n, kind in enumerate(("linear", "all_reduce") * 5)
    ]
    assert hidden_seconds([chain]).item() == 0.0


def test_a_fused_kernel_hides_nothing_twice():
    """It holds both lanes: neither a collective nor a product that is free to run does so beside it."""
    for kinds, hidden in ((("both", "linear", "all_reduce"), 2.0), (("both", "linear", "both", "all_reduce"), 0.0)):
        assert hidden_seconds([[Task(row(n, kind), np.array([2.0])) for n, kind in enumerate(kinds)]]).item() == hidden
    halves = [[Task(row(n, "both", (n - 1,) if n else ()), np.array([2.0])) for n in range(3)] for _ in range(2)]
    assert hidden_seconds(halves).item() == 0.0


def test_two_halves_hide_all_communication_but_the_last():
    """Layers of 3 s computing, 2 s talking: both halves compute without a pause, and the last collective is left."""
    chain = [
        Task(row(0, "linear", (), range(5)), np.array([3.0])),
        Task(row(1, "all_reduce", (0,), range(5)), np.array([2.0])),
    ]
    assert 2 * 5 * 5.0 - hidden_seconds([chain, chain]).item() == 2 * 5 * 3.0 + 2.0


# -- simulate ----------------------------------------------------------------------------------------------------------

V3 = {"model": "deepseek-v3", "hw": "h200-sxm", "dp": 8, "ep": 8, "input_len": 2048, "output_len": 5}


def phases(**options):
    return simulate(**options).to_dict()["phases"]


def computing_and_talking(phase) -> tuple[float, float]:
    names = ("all_reduce", "all_gather", "gather_slices", "reduce_scatter", "all_to_all", "moe_dispatch", "moe_combine")
    talking = sum(op["time_s"] for op in phase["ops"] if op["op"] in names)
    return sum(op["time_s"] for op in phase["ops"]) - talking, talking


def test_bounds_hold_for_deepseek_v3():
    none = phases(**V3, batch=256)
    found = {overlap: phases(**V3, batch=256, overlap=overlap) for overlap in ("streams", "dual-batch")}
    for overlap, name in product(found, ("prefill", "decode")):
        phase = found[overlap][name]
        serial, device = sum(op["time_s"] for op in phase["ops"]), phase["step_time_s"]
        assert serial - phase["overlapped_s"] == pytest.approx(device, rel=1e-9)
        assert max(computing_and_talking(phase)) * (1 - 1e-12) <= device < serial
        if overlap == "streams":
            assert serial == pytest.approx(none[name]["step_time_s"], rel=1e-12)
            assert {k: phase[k] for k in ("matrix_flops", "read_bytes", "comm_bytes", "time_by_bound_s")} == {
                k: none[name][k] for k in ("matrix_flops", "read_bytes", "comm_bytes", "time_by_bound_s")
            }
        else:
            assert phase["matrix_flops"] == pytest.approx(none[name]["matrix_flops"], rel=1e-12)
            assert phase["read_bytes"] > none[name]["read_bytes"]  # weights, once for each half


def test_streams_hides_the_shorter_of_combine_and_shared_experts():
    phase = phases(**V3, batch=256, overlap="streams", phase="decode")["decode"]
    combine = sum(op["time_s"] for op in phase["ops"] if op["op"] == "moe_combine")
    shared = sum(op["time_s"] for op in phase["ops"] if ".shared_experts" in op["module"])
    assert phase["overlapped_s"] == pytest.approx(min(combine, shared), rel=1e-9)


def test_halves_of_an_even_batch_are_two_passes_of_half_the_batch():
    """Serial time, work and counts are twice those of half the batch; all talking but the last collective is hidden."""
    dual = phases(**V3, batch=256, overlap="dual-batch", phase="prefill")["prefill"]
    half = phases(**V3, batch=128, phase="prefill")["prefill"]
    for name in ("matrix_flops", "read_bytes", "write_bytes", "comm_bytes"):
        assert dual[name] == pytest.approx(2 * half[name], rel=1e-12)
    assert [op["count"] for op in dual["ops"]] == [2 * op["count"] for op in half["ops"]]
    assert dual["step_time_s"] + dual["overlapped_s"] == pytest.approx(2 * half["step_time_s"], rel=1e-12)
    computing, talking = computing_and_talking(dual)
    assert computing > talking and dual["step_time_s"] == pytest.approx(computing, rel=0.01)


def test_an_odd_batch_is_cut_into_unequal_halves():
    dual = phases(**{**V3, "dp": 4, "ep": 4, "batch": 4 * 5}, overlap="dual-batch", phase="decode")["decode"]
    larger, smaller = (phases(**{**V3, "dp": 4, "ep": 4, "batch": 4 * n}, phase="decode")["decode"] for n in (3, 2))
    serial = larger["step_time_s"] + smaller["step_time_s"]
    assert dual["step_time_s"] + dual["overlapped_s"] == pytest.approx(serial, rel=1e-12)


def test_a_dense_model_on_one_device_has_nothing_to_hide():
    work = {"model": "qwen3-8b", "hw": "h100-sxm", "batch": 4, "input_len": 512, "output_len": 5}
    none, streams = phases(**work), phases(**work, overlap="streams")
    for name, phase in streams.items():
        assert phase.pop("overlapped_s") == 0.0
        assert phase == none[name]


def test_a_dense_model_with_tensor_parallelism_is_one_chain():
    work = {"model": "qwen3-8b", "hw": "h100-sxm", "tp": 4, "batch": 4, "input_len": 512, "output_len": 5}
    assert [phase["overlapped_s"] for phase in phases(**work, overlap="streams").values()] == [0.0, 0.0]
    for phase in phases(**work, overlap="dual-batch").values():
        assert phase["overlapped_s"] > 0


def test_layers_of_one_kind_or_all_of_them_traced():
    work = {**V3, "layers": 6, "batch": 64, "overlap": "streams"}
    assert phases(**work, reuse=False) == phases(**work)


def test_stages_are_scheduled_alone():
    """61 layers on 2 stages: the slowest hides what its own layers do."""
    work = {**V3, "dp": 4, "ep": 4, "batch": 64, "phase": "decode", "overlap": "streams"}
    one, two = phases(**work, pp=1)["decode"], phases(**work, pp=2)["decode"]
    serial = sum(op["time_s"] for op in two["ops"])
    assert serial - two["overlapped_s"] == pytest.approx(two["step_time_s"], rel=1e-9)
    assert 0 < two["overlapped_s"] < 2 * one["overlapped_s"]


def test_ragged_batches_are_cut_too():
    work = {"model": "qwen3-8b", "hw": "h100-sxm", "tp": 2, "output_len": 3}
    dual = phases(**work, seq_lens=[900, 100, 500], overlap="dual-batch")["prefill"]
    larger = phases(**work, seq_lens=[900, 500])["prefill"]
    smaller = phases(**work, input_len=100, batch=1)["prefill"]
    assert dual["matrix_flops"] == pytest.approx(larger["matrix_flops"] + smaller["matrix_flops"], rel=1e-9)


def test_the_host_is_no_faster_for_it():
    work = {"model": "qwen3-8b", "hw": "h100-sxm", "tp": 2, "batch": 4, "input_len": 128, "output_len": 3}
    none = phases(**work, runtime="eager", phase="decode")["decode"]
    dual = phases(**work, runtime="eager", phase="decode", overlap="dual-batch")["decode"]
    assert dual["host_time_s"] == pytest.approx(2 * none["host_time_s"], rel=1e-9)
    assert dual["step_time_s"] >= dual["host_time_s"]


def test_report_json_and_help_say_it(run):
    flags = ("--model", "qwen3-8b", "--hw", "h100-sxm", "--tp", "4", "--batch", "8", "--output-len", "4")
    code, out, _ = run("simulate", *flags, "--overlap", "dual-batch")
    assert code == 0 and "hidden by overlap" in out and "dual-batch" in out
    code, out, _ = run("simulate", *flags)
    assert code == 0 and "overlap" not in out
    assert "--overlap" in run("simulate", "--help")[1]
    told = simulate(model="qwen3-8b", hw="h100-sxm", tp=4, batch=8, overlap="dual-batch").to_dict()
    assert told["workload"]["overlap"] == "dual-batch"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--batch 8 --dp 8 --ep 8 --overlap dual-batch", "a group has 1 sequence; give --batch 16 or more"),
        ("--batch 4 --pp 4 --overlap dual-batch", "a micro-batch of 4 has 1 sequence; give --batch 8 or more"),
        ("--overlap dualbatch", "'none', 'streams', 'dual-batch'"),
        ("--batch 8 --concurrency 8 --overlap streams", "--concurrency does not go with --overlap"),
        ("--phase train --overlap streams", "a training step hides its collectives as it is"),
    ],
)
def test_requests_that_are_refused(run, flags, said):
    code, _, err = run("simulate", "--model", "qwen3-30b-a3b", "--hw", "h100-sxm", *flags.split())
    assert code == 2 and said in err.splitlines()[-1]
