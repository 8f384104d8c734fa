"""A table evaluated anywhere is the trace taken there: operator by operator, layer by layer, to the last unit."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace

import pytest

from tensorcast.models.reference import resolve_model
from tensorcast.optable import OpTable
from tensorcast.plan import ParallelPlan
from tensorcast.quantization.plan import plan_from_request
from tensorcast.trace.run import trace_step
from tensorcast.trace.table import build_table
from tests.verify.deployed import deploy

# name, layers, tp, ep, quant: latent and sparse attention, windows, chunks, scans, experts, drafts, formats
CASES = {
    "llama-3.1-8b": (3, 2, 1, "none", 0),
    "deepseek-v3": (5, 4, 4, "auto", 1),
    "deepseek-v3.2": (4, 2, 1, "none", 0),
    "gpt-oss-20b": (4, 1, 1, "auto", 0),
    "gemma-3-1b": (7, 1, 1, "none", 0),
    "llama-4-scout": (5, 4, 1, "none", 0),
    "qwen3-next-80b-a3b": (5, 2, 2, "none", 0),
    "nemotron-3-nano-30b-a3b": (8, 1, 1, "none", 0),
    "qwen3-30b-a3b": (3, 2, 2, "w8a8", 0),
}
POINTS = 50


@pytest.fixture(scope="module", params=sorted(CASES))
def model(request):
    layers, tp, ep, scheme, mtp = CASES[request.param]
    source = resolve_model(request.param, layers=layers)
    quant = plan_from_request(scheme, source.config, source.quant_side, lambda fmt: True)
    return deploy(source, plan=ParallelPlan(tp=tp, ep=ep), quant=quant, mtp=mtp)


def drawn(phase: str, drafts: int) -> list[tuple[int, int, int]]:
    """Points near and far, batch 1 among them. The number of tokens of a decode step is fixed."""
    rng = random.Random(f"{phase} {drafts}")

    def size(low, high):
        return min(high, max(low, int(2 ** rng.uniform(0, high.bit_length()))))

    out = []
    for i in range(POINTS // 3 + 1):
        batch = 1 if i % 3 == 0 else size(2, 300)
        tokens = drafts + 1 if phase == "decode" else size(2, 20_000)
        out.append((batch, tokens, 0 if phase == "prefill" else size(1, 200_000)))
    return out


def by_layer_of_table(table: OpTable, point):
    """((stack, layer) → its operators with attributes and sizes, in any order), and the most bytes in use."""
    piece = table.piece_for(*point)
    basis = [float(x) for x in piece.basis(*point)[:, 0]]

    def value(coefficients):
        return sum(c * x for c, x in zip(coefficients, basis, strict=True))

    out = defaultdict(list)
    for row in piece.rows:
        sizes = {name: value(coefficients) for name, coefficients in row.dims.items()}
        assert row.count == (len(row.layers) or 1)
        for layer in row.layers or [None]:
            out[row.stack, layer].append(_call(row.op, row.attrs, sizes))
    return _sorted(out), max(value(coefficients) for row in piece.rows for coefficients in row.memory)


def by_layer_of_trace(tracer):
    out = defaultdict(list)
    for call in tracer.calls:
        for layer in call.layers or [None]:
            out[call.stack, layer].append(_call(call.op, call.attrs, call.dims))
    return _sorted(out), max(max(call.live, call.before) for call in tracer.calls)


def _call(op, attrs, sizes):
    return op, sorted(attrs.items()), sorted((name, float(size)) for name, size in sizes.items())


def _sorted(layers):
    return {where: sorted(calls, key=repr) for where, calls in layers.items()}


@pytest.mark.parametrize("phase", ["prefill", "decode", "chunked"])
def test_table_is_the_trace_at_random_points(model, phase):
    points = drawn(phase, model.deployment.mtp)
    table = build_table(phase, lambda at: trace_step(model, phase, *at), points[0])
    assert table.notes == ()
    for point in points:
        got, peak = by_layer_of_table(table, point)
        expected, expected_peak = by_layer_of_trace(trace_step(model, phase, *point))
        assert got == expected, point
        assert peak == pytest.approx(expected_peak, abs=0.5), point


def test_a_prompt_of_one_token(model):
    table = build_table("prefill", lambda at: trace_step(model, "prefill", *at), (3, 1, 0))
    assert by_layer_of_table(table, (3, 1, 0)) == by_layer_of_trace(trace_step(model, "prefill", 3, 1, 0))
    assert by_layer_of_table(table, (5, 300, 0)) == by_layer_of_trace(trace_step(model, "prefill", 5, 300, 0))
    assert table.piece_for(2, 1, 0) is None


def test_a_single_token_where_steps_have_drafts(model):
    """The last chunk of a prompt may be one token; the table still holds for every step of the decode."""
    step = model.deployment.mtp + 2
    table = build_table("decode", lambda at: trace_step(model, "decode", *at), (2, 1, 100), step=step)
    for point in ((2, 1, 100), (3, step, 5000)):
        assert by_layer_of_table(table, point) == by_layer_of_trace(trace_step(model, "decode", *point))


def test_json_keeps_everything(model):
    table = build_table("decode", lambda at: trace_step(model, "decode", *at), (2, model.deployment.mtp + 1, 500))
    again = OpTable.from_dict(json.loads(json.dumps(table.to_dict())))
    assert again.to_dict() == table.to_dict()
    point = (7, model.deployment.mtp + 1, 12_345)
    assert by_layer_of_table(again, point) == by_layer_of_table(table, point)


def test_operators_that_depend_on_the_size_are_traced_at_the_point_asked():
    """A model that runs one operator more above 400 tokens has no one table: each point gets its own piece."""
    model = deploy(resolve_model("llama-3.2-1b", layers=1))

    def trace(point):
        tracer = trace_step(model, "prefill", *point)
        if point[1] > 400:
            tracer.calls.append(replace(tracer.calls[-1]))
        return tracer

    table = build_table("prefill", trace, (2, 500, 0))
    assert "not polynomial" in table.notes[0]
    assert len(table.pieces) == 1 and table.pieces[0].ranges == ((2, 2), (500, 500), (0, 0))
    assert by_layer_of_table(table, (2, 500, 0)) == by_layer_of_trace(trace((2, 500, 0)))


@pytest.mark.parametrize("bend", [3, 100, 3000])
def test_sizes_that_bend_are_noticed(bend):
    """A size that stops growing at `bend` tokens, below or above the points of the fit, is no polynomial."""
    model = deploy(resolve_model("llama-3.2-1b", layers=1))

    def trace(point):
        tracer = trace_step(model, "prefill", *point)
        call = tracer.calls[-1]
        tracer.calls[-1] = replace(call, dims={**call.dims, "m": min(point[1], bend)})
        return tracer

    table = build_table("prefill", trace, (2, 5000, 0))
    got, _ = by_layer_of_table(table, (2, 5000, 0))
    expected, _ = by_layer_of_trace(trace((2, 5000, 0)))
    assert got == expected
    for point in ((4, 2, 0), (1, 2, 0)):
        if table.piece_for(*point) is not None:
            assert by_layer_of_table(table, point)[0] == by_layer_of_trace(trace(point))[0]
