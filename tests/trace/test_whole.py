"""A model that was built once and is then cut for a plan is the model built for that plan."""

from __future__ import annotations

import pytest

from tensorcast.answer import Answer
from tensorcast.request import Request
from tensorcast.trace.deploy import whole_model

PLANS = {
    "deepseek-v3": [{"tp": 4, "dp": 2, "ep": 8}, {"tp": 16}, {}],
    "gpt-oss-120b": [{"tp": 2, "ep": 2}, {"tp": 2}],
    "nemotron-3-nano": [{}, {"tp": 2}],
}


CASES = [(model, plan, number % 2 > 0) for model, plans in PLANS.items() for number, plan in enumerate(plans)]
LATER = [case for case in CASES if case[0] == "nemotron-3-nano" or case[:2] == ("deepseek-v3", {})]


@pytest.mark.parametrize(("model", "plan", "polynomial"), [case for case in CASES if case not in LATER])
def test_cut_later_or_at_once(model, plan, polynomial):
    request = Request.of(model=model, hw="h200-sxm", batch=8, **plan)
    whole = whole_model(
        request.source, request.deployment(), sources=request.sources, dtype=request.dtype, trust_remote_code=False
    )
    whole.polynomial = polynomial  # fewer checks, the same tables
    later, at_once = Answer(request, cache=False, ready=whole), Answer(request, cache=False)
    assert later.deployed.to_dict() == at_once.deployed.to_dict()


@pytest.mark.nightly
@pytest.mark.parametrize(("model", "plan", "polynomial"), LATER)
def test_more_that_are_cut_later_or_at_once(model, plan, polynomial):
    test_cut_later_or_at_once(model, plan, polynomial)


def test_a_kernel_that_was_asked_for_may_depend_on_the_plan():
    request = Request.of(model="qwen3-0.6b", hw="h100-sxm", kernel=["attention=eager"])
    found = whole_model(
        request.source, request.deployment(), sources=request.sources, dtype=request.dtype, trust_remote_code=False
    )
    assert found is None
