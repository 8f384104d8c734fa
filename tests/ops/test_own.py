"""Operators of user code: their cost at any size, their time, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tensorcast as tc
from tensorcast.answer import Answer
from tensorcast.cost.pricing import price
from tensorcast.hardware.load import hardware
from tensorcast.kernels import KERNELS
from tensorcast.ops import operator_named
from tensorcast.optable import Row
from tensorcast.request import Request
from tests.kernels.conftest import alone  # noqa: F401

H100 = hardware("h100")
MODEL = "qwen3-0.6b"


def define(name: str):
    """An operator like a norm, and a kernel `mine` of rms_norm that runs it."""

    @tc.op(f"{name}(Tensor x, Tensor w) -> Tensor", replace=True)
    def norm(x, w):
        return torch.empty_like(x)

    KERNELS.register(tc.KernelSpec("mine", "rms_norm", lambda: norm), replace=True)
    return norm


def table(**options):
    request = Request.of(model=MODEL, hw="h100", kernel="rms_norm=mine", input_len=256, output_len=4, **options)
    return Answer(request, cache=False).deployed.tables["prefill"]


def test_polynomial_figures_hold_at_every_size():
    norm = define("own_a::norm")

    @tc.register_op_cost(norm)
    def _(call):
        b, s = call.args[0].shape[:2]
        return tc.Cost(vector_flops=3 * b * s * s, read=call.read_bytes, write=call.write_bytes)

    found = table()
    assert not found.notes
    piece = found.piece_for(7, 1000, 0)
    row = next(r for r in piece.rows if r.op == "own_a::norm" and r.module.endswith("input_layernorm"))
    values = {name: float((np.asarray(c) @ piece.basis(7, 1000, 0))[0]) for name, c in row.dims.items()}
    assert values["vector_flops"] == 3 * 7 * 1000 * 1000 and row.count == 28
    assert values["read"] == 2 * (7 * 1000 * 1024 + 1024) and values["write"] == 2 * 7 * 1000 * 1024


def test_figures_that_are_no_polynomial_are_traced_where_they_are_asked():
    norm = define("own_b::norm")

    @tc.register_op_cost(norm)
    def _(call):
        return tc.Cost(read=max(call.args[0].numel(), 10**8), write=call.write_bytes)

    found = table()
    row = next(r for r in found.piece_for(1, 256, 0).rows if r.op == "own_b::norm")
    assert found.notes and row.dims["read"][0] == 10**8


@pytest.mark.parametrize(
    "cost, bound",
    [
        ({"matrix_flops": 1e15, "read": 1e6, "math": "bf16"}, lambda: 1e15 / H100.peak("bf16")),
        ({"vector_flops": 1e13, "read": 1e6}, lambda: 1e13 / H100.vector_peak("bf16")),
        ({"read": 1e10, "write": 1e10}, lambda: 2e10 / H100.memory_bw),
    ],
    ids=["matrix", "vector", "memory"],
)
def test_the_slowest_side_decides(cost, bound):
    @tc.register_op_cost("own_c::anything")
    def _(call):
        return tc.Cost(**cost)

    dims = operator_named("own_c::anything").dims(calls := _call(torch.empty(4, dtype=torch.bfloat16, device="meta")))
    attrs = dims.pop("attrs")
    row = Row("own_c::anything", "", 1, {k: (float(v),) for k, v in dims.items()}, attrs, ((), ()))
    _, time = price(row, {k: np.array([float(v)]) for k, v in dims.items()}, H100)
    assert bound() <= time.seconds[0] < 1.5 * bound()
    assert calls.read_bytes == 8


def _call(x):
    from tensorcast.ops.base import OpCall

    return OpCall((x,), {}, x, (x,), (x,))


def test_operators_of_other_code_get_a_cost():
    @torch.library.custom_op("own_d::scaled", mutates_args=())
    def scaled(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x * w

    @scaled.register_fake
    def _(x, w):
        return torch.empty_like(x)

    KERNELS.register(tc.KernelSpec("mine", "rms_norm", lambda: scaled))
    assert table().uncosted == {"own_d::scaled": table().uncosted["own_d::scaled"]}

    @tc.register_op_cost(scaled)
    def _(call):
        return tc.Cost(vector_flops=call.args[0].numel(), read=call.read_bytes, write=call.write_bytes)

    assert not table().uncosted


def test_overloads_and_spellings_of_one_operator_share_a_cost():
    define("own_e::norm")
    for replace, operator in enumerate(
        ("own_e::norm", torch.ops.own_e.norm, torch.ops.own_e.norm.default, torch.ops.own_e.norm)
    ):
        tc.register_op_cost(operator, replace=bool(replace))(lambda call: tc.Cost())
    with pytest.raises(tc.DuplicateError, match="'own_e::norm' is registered twice"):
        tc.register_op_cost("own_e::norm")(lambda call: tc.Cost(read=1))
    with pytest.raises(tc.DuplicateError, match="'aten::add' is registered twice"):
        tc.register_op_cost(torch.ops.aten.add.Tensor)(lambda call: tc.Cost())


@pytest.mark.parametrize(
    "cost, said",
    [
        (lambda call: call.missing, "AttributeError: 'OpCall' object has no attribute 'missing'"),
        (lambda call: 5, "returned 5, not a Cost"),
        (lambda call: None, "returned None, not a Cost"),
        (lambda call: tc.Cost(read=-1), "InputError: Cost: read must be a number of at least 0, not -1"),
        (lambda call: tc.Cost(write="2"), "Cost: write must be a number of at least 0, not '2'"),
        (lambda call: tc.Cost(vector_flops=float("nan")), "Cost: vector_flops must be a number"),
        (lambda call: tc.Cost(math="bf17"), "unknown number format 'bf17'"),
    ],
)
def test_a_cost_that_fails_names_the_operator_and_the_line(cost, said):
    tc.register_op_cost(define("own_f::norm"))(cost)
    with pytest.raises(tc.KernelError, match=r"^cost of operator own_f::norm \(.*test_own.py:\d+\): ") as caught:
        table()
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "act, said",
    [
        (lambda: tc.op("no_namespace(Tensor x) -> Tensor"), "expected namespace::name"),
        (lambda: tc.op(3), "expected namespace::name"),
        (lambda: tc.op("aten::mine(Tensor x) -> Tensor"), "namespace 'aten' is taken"),
        (lambda: tc.op("own_g::bad(Tensor x -> Tensor")(lambda x: x), "torch does not take this schema"),
        (lambda: tc.op("own_g::f(Tensor x) -> Tensor")(7), "decorate the function"),
        (lambda: tc.register_op_cost("mylib"), "expected namespace::name"),
        (lambda: tc.register_op_cost("a::b::c"), "expected namespace::name"),
        (lambda: tc.register_op_cost(len), "expected torch.ops.namespace.name"),
        (lambda: tc.register_op_cost("own_g::f")(3), "must be a function of the call"),
        (lambda: tc.register_op_cost("tensorcast::linear"), "carries its own work"),
    ],
)
def test_what_is_no_operator_is_refused(act, said):
    with pytest.raises(tc.InputError) as caught:
        act()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_operator_is_defined_once_unless_it_is_replaced():
    tc.op("own_h::f(Tensor x) -> Tensor")(lambda x: x.new_empty(1))
    with pytest.raises(tc.DuplicateError, match="'own_h::f' is registered twice"):
        tc.op("own_h::f(Tensor x) -> Tensor")(lambda x: x.new_empty(2))
    again = tc.op("own_h::f(Tensor x, int n) -> Tensor", replace=True)(lambda x, n: x.new_empty(n))
    assert again(torch.empty(3, device="meta"), 5).shape == (5,)

    @torch.library.custom_op("own_h::theirs", mutates_args=())
    def theirs(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    with pytest.raises(tc.InputError, match="other code has defined it; give its cost with register_op_cost"):
        tc.op("own_h::theirs(Tensor x) -> Tensor")(lambda x: x)


def test_an_operator_object_may_be_described_again():
    from tensorcast.trace.library import define_operators

    def describe(width: int, schema: str = "own_again(Tensor x) -> Tensor", **options):
        @tc.operator(schema, family="copy", **options)
        class Again:
            def meta(x, *rest):
                return x.new_empty(width)

            def dims(x, *rest):
                return {"elements": x.numel()}

            def work(d, a):
                return tc.Work(read_bytes=d["elements"])

        define_operators()
        return torch.ops.tensorcast.own_again

    x = torch.empty(3, device="meta")
    assert describe(4)(x).shape == (4,)
    assert describe(5, replace=True)(x).shape == (5,)
    assert describe(6, "own_again(Tensor x, int n) -> Tensor", replace=True)(x, 1).shape == (6,)
    with pytest.raises(tc.InputError, match="'swiglu' keeps its schema when it is replaced"):
        describe(7, "swiglu(Tensor x) -> Tensor", replace=True)


def test_the_worked_example_runs():
    from pathlib import Path

    file = Path(__file__).resolve().parents[2] / "custom_model" / "own_operator.py"
    options = {"custom": str(file), "input_len": 256, "output_len": 4, "cache": False}
    e = tc.simulate(MODEL, "h100", kernel="rms_norm=two_pass", **options)
    one = tc.simulate(MODEL, "h100", kernel="rms_norm=fused", **options)
    ops = e.phases["prefill"].ops
    elements = 256 * (28 * (24 * 128 + 2 * 1024) + 1024)
    weights = 28 * (2 * 128 + 2 * 1024) + 1024
    assert ops[ops["op"] == "two_pass_rms_norm"]["read_bytes"].sum() == 2 * (2 * elements + weights)
    assert e.metrics["ttft_s"] > one.metrics["ttft_s"]
