"""Which calls wait for which: followed through views, writes in place and unseen code, against the code itself."""

from __future__ import annotations

import json

import torch

from tensorcast.answer import Answer
from tensorcast.optable import Piece
from tensorcast.request import Request
from tensorcast.trace.dataflow import waits
from tensorcast.trace.tracer import Tracer


def calls_of(code) -> list[tuple[str, list[int]]]:
    """(operator, places of the calls it waits for) of every call."""
    tracer = Tracer()
    with torch.no_grad(), tracer:
        code(torch.empty(4, 4, device="meta"), torch.empty(4, 4, device="meta"), tracer)
    found = waits(tracer.calls)
    return [(call.op.removeprefix("aten::"), sorted(found[call.number])) for call in tracer.calls]


def test_a_result_is_followed_through_views():
    def code(x, y, _):
        a = x + y
        b = x * y
        return a.view(2, 8).t()[1:].exp(), b.sin()

    assert calls_of(code) == [("add", []), ("mul", []), ("exp", [0]), ("sin", [1, 2])]


def test_who_writes_in_place_is_waited_for():
    def code(x, y, _):
        a = x * y
        b = x.sin()
        a[:2].add_(y[:2])
        return a.exp() + b

    assert calls_of(code) == [("mul", []), ("sin", []), ("add", [0]), ("exp", [2]), ("add", [1, 3])]


def test_operators_that_leave_no_call_hand_on():
    def code(x, y, tracer):
        a = x * y
        with tracer.suspended():
            b = a.sin()
        with tracer.fused():
            c = b.exp()
        return c + y

    assert calls_of(code) == [("mul", []), ("add", [0])]


def test_what_comes_behind_a_result_that_nobody_is_seen_to_read_waits_for_it():
    def code(x, y, _):
        a = x * y
        x.sin()  # dropped: something unseen stands for it
        b = y.exp()
        return a + b

    assert calls_of(code) == [("mul", []), ("sin", []), ("exp", [1]), ("add", [0, 1, 2])]


def test_layers_and_what_is_outside_of_them_are_apart():
    def code(x, y, tracer):
        a = x * y
        with tracer.block("first", "layers", 0):
            a = a.sin().exp()
        return a.cos()

    assert calls_of(code) == [("mul", []), ("sin", []), ("exp", [1]), ("cos", [0])]


def decode_table(model: str, **options) -> Piece:
    request = Request.of(model=model, hw="h200-sxm", dp=8, ep=8, batch=64, phase="decode", **options)
    return Answer(request, cache=False).deployed.tables["decode"].pieces[-1]


def reached(rows, row) -> set[str]:
    """`op module` of everything that a row waits for, near or far."""
    out = {f"{rows[n].op} {rows[n].module.rpartition('.*.')[2]}" for n in row.after}
    return out.union(*(reached(rows, rows[n]) for n in row.after))


def test_routed_and_shared_experts_wait_as_the_block_is_written():
    rows = decode_table("deepseek-v3", layers=5).rows
    at = {row.op: row for row in rows if row.op.startswith("moe_")}
    shared = [row for row in rows if "shared_experts" in row.module]
    assert "moe_route mlp.gate" in reached(rows, at["moe_dispatch"])
    assert "moe_dispatch mlp.experts" in reached(rows, at["moe_experts"])
    assert "moe_experts mlp.experts" in reached(rows, at["moe_combine"])
    assert shared
    for row in shared:
        assert not any(name.startswith(("moe_dispatch", "moe_experts", "moe_combine")) for name in reached(rows, row))
    both = next(row for row in rows if row.op == "aten::add" and row.module.endswith(".mlp"))
    assert {"moe_combine mlp.experts", "linear mlp.shared_experts.down_proj"} <= reached(rows, both)


def test_quantising_is_waited_for_by_the_product_that_reads_it():
    """In a block that runs its shared expert first, its quantised product holds up nothing but itself."""
    rows = decode_table("qwen3-next-80b-a3b", layers=4, quant="fp8").rows
    quantised = [row for row in rows if row.op in ("quantize", "quantize_inside")]
    assert quantised
    for row in quantised:
        assert any(row.number in other.after and other.op == "linear" for other in rows)
    dispatch = next(row for row in rows if row.op == "moe_dispatch")
    assert not any("shared_expert." in name and name.startswith("linear") for name in reached(rows, dispatch))


def test_a_stored_table_waits_as_it_did():
    piece = decode_table("deepseek-v3", layers=5)
    assert Piece.from_dict(json.loads(json.dumps(piece.to_dict()))).rows == piece.rows
    assert [row.number for row in piece.rows] == list(range(len(piece.rows)))
