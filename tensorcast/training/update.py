"""What a stage does with its weights in a step: gradients added up over the copies, weights gathered, the optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tensorcast.cost.passes import Pipeline, Steps
from tensorcast.cost.phase import Phase, evaluate
from tensorcast.ops.base import item_bytes
from tensorcast.optable import OpTable, Piece, Row
from tensorcast.training.shares import STATES, Share

REDUCE, GATHER, OPTIMIZER = "gradients", "weights", "optimizer"
_ANYWHERE = ((0, None),) * 3
_ONE = Steps(0, (0,), (0,))  # one pass, of no sequence


def reduce_rows(shares: Iterable[Share], zero: int, fmt: str) -> list[tuple[Share, Row]]:
    """The sum of gradients over the copies: whole on every rank, or with ZeRO each its part."""
    how = "all_reduce" if zero < STATES else "reduce_scatter"
    return [(share, _collective(share, how, REDUCE, fmt)) for share in shares if share.ranks > 1]


def gather_rows(shares: Iterable[Share], fmt: str) -> list[tuple[Share, Row]]:
    """Weights gathered from the ranks that hold parts of them."""
    return [(share, _collective(share, "all_gather", GATHER, fmt)) for share in shares if share.ranks > 1]


def optimizer_rows(shares: Iterable[Share], zero: int, optimizer: str, fmt: str) -> list[tuple[Share, Row]]:
    """The update of this rank's part of the weights."""
    attrs = {"optimizer": optimizer, "format": fmt, "part": OPTIMIZER}
    return [
        (share, _row("optimizer_step", OPTIMIZER, {"parameters": share.parameters * share.left(zero, STATES)}, attrs))
        for share in shares
    ]


def tied_rows(shares: Iterable[Share], stride: int, fmt: str) -> list[tuple[Share, Row]]:
    """Gradients of weights that the first and the last stage both hold, added up between the two."""
    ends = [replace(share, ranks=2, stride=stride) for share in shares if share.place == "ends"]
    return [(share, _collective(share, "all_reduce", REDUCE, fmt)) for share in ends]


def priced(rows: list[tuple[Share, Row]], pipeline: Pipeline, hw, eager: bool) -> Phase | None:
    """The rows once, on the stage that they take longest on; None where there are none."""
    stages = []
    for stage in range(pipeline.stages):
        here = [replace(row, count=n) for share, row in rows if (n := share.count(pipeline, stage))]
        if here:
            stages.append(evaluate([(table_of(here), _ONE)], hw, pipeline=Pipeline(), eager=eager))
    return max(stages, key=lambda phase: phase.device_time_s, default=None)


def table_of(rows: Iterable[Row]) -> OpTable:
    """The rows as a table that no sequence changes."""
    return OpTable("update", (Piece(_ANYWHERE, ((0, 0, 0),), tuple(rows)),))


def shown(phase: Phase, times: int, seconds: float) -> Phase:
    """`phase` run `times` times, of which `seconds` in all are not hidden behind computation: these are its time."""
    share = seconds / phase.device_time_s
    totals = {name: value * times for name, value in phase.totals.items()}
    ops = [
        {
            **op,
            **{name: op[name] * times for name in totals},
            "count": op["count"] * times,
            "time_s": op["time_s"] * share,
        }
        for op in phase.ops
    ]
    return Phase(
        step_time_s=seconds,
        host_time_s=0.0,
        device_time_s=seconds,
        launches=phase.launches * times,
        totals=totals,
        mfu=0.0,
        mbu=0.0,
        time_by_bound_s={name: value * share for name, value in phase.time_by_bound_s.items()},
        ops=ops,
    )


def _collective(share: Share, how: str, part: str, fmt: str) -> Row:
    attrs = {"collective": how, "size": share.ranks, "stride": share.stride, "format": fmt, "part": part}
    return _row(how, part, {"elements": share.nbytes / item_bytes(fmt)}, attrs)


def _row(op: str, module: str, sizes: dict[str, float], attrs) -> Row:
    dims = {name: (float(value),) for name, value in sizes.items()}
    return Row(op, module, 1, dims, attrs, ((0.0,), (0.0,)))
