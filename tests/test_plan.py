"""What is asked for is validated once, with messages that name the flag and what would work."""

from __future__ import annotations

import numpy as np
import pytest

from tensorcast.errors import TensorcastError
from tensorcast.plan import MOST_STEPS, MOST_TOKENS, ParallelPlan, Workload, divisors
from tensorcast.request import Request
from tensorcast.steps import micro_batches, steps_of


def test_devices_are_the_product_of_the_degrees() -> None:
    assert ParallelPlan(tp=4, dp=2, pp=3, ep=8).devices == 24
    assert ParallelPlan().to_dict() == {"tp": 1, "ep": 1, "dp": 1, "pp": 1, "sp": 1}


def test_numpy_numbers_are_numbers() -> None:
    assert type(ParallelPlan(tp=np.int64(8)).tp) is int
    work = Workload(batch=np.int32(3), seq_lens=np.array([1, 2, 3]))
    assert type(work.batch) is int and work.seq_lens == (1, 2, 3) and type(work.seq_lens[0]) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, "8", True, None, [8], float("nan"), 10**30])
@pytest.mark.parametrize("name", ["tp", "ep", "dp", "pp", "sp"])
def test_a_degree_is_a_positive_whole_number(name: str, value) -> None:
    with pytest.raises(TensorcastError, match=rf"^--{name} .*: a whole number, 1 to 1,048,576$"):
        ParallelPlan(**{name: value})


def test_experts_divide_the_ranks() -> None:
    with pytest.raises(TensorcastError, match="--ep 5 must divide tp x dp = 12; values that do: 1, 2, 3, 4, 6, 12"):
        ParallelPlan(tp=4, dp=3, ep=5)


def test_divisors() -> None:
    assert [divisors(n) for n in (1, 7, 36)] == [[1], [1, 7], [1, 2, 3, 4, 6, 9, 12, 18, 36]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "--batch 0: a whole number, 1 to"),
        ({"input_len": MOST_TOKENS + 1}, "--input-len 16777217: a whole number, 1 to 16,777,216"),
        ({"output_len": MOST_STEPS + 1}, "--output-len 1048577"),
        ({"prefix_len": -1}, "--prefix-len -1: a whole number, 0 to"),
        ({"mtp": 65}, "--mtp 65: a whole number, 0 to 64"),
        ({"mtp": 1, "acceptance_rate": float("nan")}, "--acceptance-rate nan: a number from 0 to 1"),
        ({"mtp": 1, "acceptance_rate": "high"}, "--acceptance-rate 'high'"),
        ({"seq_lens": (3, 0)}, "--seq-lens 0"),
        ({"phase": "idle"}, "--phase 'idle': one of auto, prefill, decode, chunked"),
        ({"input_len": MOST_TOKENS, "chunk": 1}, "--chunk 1: more than 1,048,576 steps; give at least 16"),
    ],
)
def test_work_that_is_none(options, said: str) -> None:
    with pytest.raises(TensorcastError) as caught:
        Workload(**options)
    assert str(caught.value).startswith(said)


def test_a_step_yields_the_accepted_run_of_drafts() -> None:
    assert Workload().tokens_per_step == 1
    assert Workload(mtp=3, acceptance_rate=0.5).tokens_per_step == 1 + 0.5 + 0.25 + 0.125
    assert Workload(mtp=2, acceptance_rate=1).tokens_per_step == 3


# -- the passes --------------------------------------------------------------------------------------------------------


def passes(**options) -> dict[str, list[tuple[str, list[tuple[int, int]]]]]:
    plan = ParallelPlan(pp=options.pop("pp", 1), dp=options.pop("dp", 1))
    return {
        phase: [(table, list(zip(steps.tokens, steps.past, strict=True))) for table, steps in parts]
        for phase, parts in steps_of(Workload(**options), plan).items()
    }


def test_a_chunk_sees_what_came_before_it() -> None:
    assert passes(input_len=10, chunk=4, output_len=3) == {
        "chunked": [("prefill", [(4, 0)]), ("chunked", [(4, 4), (2, 8)])],
        "decode": [("decode", [(1, 10), (1, 11)])],
    }


def test_a_last_chunk_of_one_token_is_a_decode_step() -> None:
    assert passes(input_len=9, chunk=4, phase="chunked")["chunked"] == [
        ("prefill", [(4, 0)]), ("chunked", [(4, 4)]), ("decode", [(1, 8)]),
    ]  # fmt: skip


def test_a_prefix_is_in_the_cache() -> None:
    assert passes(input_len=10, prefix_len=7, phase="prefill") == {"prefill": [("chunked", [(3, 7)])]}


def test_drafts_are_new_tokens_of_each_step() -> None:
    assert passes(input_len=10, output_len=3, mtp=2, phase="decode") == {"decode": [("decode", [(3, 10), (3, 11)])]}


def test_groups_and_micro_batches_round_up() -> None:
    plan = ParallelPlan(pp=4, dp=2)
    work = Workload(batch=9)
    assert micro_batches(work, plan) == 4
    assert {steps.batch for parts in steps_of(work, plan).values() for _, steps in parts} == {2}  # ceil(5 / 4)
    assert micro_batches(Workload(batch=4), plan) == 2


# -- anything at all ---------------------------------------------------------------------------------------------------

OPTIONS = (
    "tp", "ep", "dp", "pp", "sp", "phase", "batch", "input_len", "output_len", "prefix_len", "seq_lens", "chunk",
    "micro_batches", "quant", "kv_cache_dtype", "attention_quant", "exclude", "overrides", "layers", "dtype", "runtime",
    "kernel", "max_model_len", "gpu_memory_utilization", "model", "hw",
)  # fmt: skip
STRANGE = (-1, 0, 1.5, float("nan"), float("inf"), 10**30, "nothing", "", b"x", [], [None], {}, {1: 2}, object())
HARMLESS = {
    ("exclude", "[]"), ("kernel", "[]"), ("overrides", "{}"), ("kernel", "{}"), ("prefix_len", "0"), ("chunk", "0"),
    ("micro_batches", "0"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", STRANGE, ids=lambda v: type(v).__name__)
def test_no_value_of_python_gets_past_the_request(name: str, value) -> None:
    if (name, repr(value)) in HARMLESS:
        Request.of(**{"model": "qwen3-8b", "hw": "h100", "custom_dir": False, name: value})
        return
    with pytest.raises(TensorcastError) as caught:
        Request.of(**{"model": "qwen3-8b", "hw": "h100", "custom_dir": False, name: value})
    assert "\n" not in str(caught.value)


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TensorcastError, match="unknown option 'batchsize'; nearest: batch_size"):
        Request.of(model="qwen3-8b", hw="h100", batchsize=3)
    with pytest.raises(TensorcastError, match="given twice"):
        Request.of(model="qwen3-8b", hw="h100", batch=3, batch_size=4)


def test_one_text_is_one_pattern() -> None:
    request = Request.of(model="qwen3-8b", hw="h100", quant="fp8", exclude="down_proj", kernel="attention=eager")
    assert [k.op for k in request.kernels] == ["attention"]
    assert (
        request.cache_key()
        == Request.of(
            model="qwen3-8b", hw="h100", quant="fp8", exclude=["down_proj"], kernel=["attention=eager"]
        ).cache_key()
    )
