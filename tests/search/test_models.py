"""What one plan has shown of a model counts for that model alone."""

from __future__ import annotations

from dataclasses import replace

from tensorcast.answer import Answer
from tensorcast.request import Request
from tensorcast.search.execution.models import Models
from tensorcast.trace.table import _exact_calls


def request(model: str, **options) -> Request:
    return Request.of(model=model, hw="h100-sxm", **options)


def test_polynomials_of_one_model_say_nothing_of_another():
    models, one = Models(), request("qwen3-0.6b")
    models.shown(one, True)
    assert models.whole_for(request("qwen3-0.6b", tp=2), cache=False).polynomial
    assert not models.whole_for(request("qwen3-1.7b", tp=2), cache=False).polynomial
    assert not models.whole_for(request("qwen3-0.6b", tp=2, quant="fp8"), cache=False).polynomial


def test_single_points_are_no_polynomials():
    found = Answer(request("qwen3-0.6b"), cache=False).traced
    assert found.polynomial
    decode = found.tables["decode"]
    points = replace(decode, pieces=(_exact_calls([], (1, 1, 7)),))
    assert not points.polynomial and not replace(decode, pieces=decode.pieces * 2).polynomial
    assert not replace(found, tables=found.tables | {"decode": points}).polynomial
