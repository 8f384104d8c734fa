"""What the page of an optimum says beside its charts: the winner, the plans behind it, and all that were priced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tensorcast.options import KNOWN
from tensorcast.report.pages.swept import refused
from tensorcast.report.tables import Table
from tensorcast.report.tables.columns import HALVES, Column, row_column
from tensorcast.report.terminal.optimize import answer, assumptions, heading_of, looked_at, names_of, verdict
from tensorcast.search.optimization.objective import OBJECTIVES
from tensorcast.search.optimization.optimum import Optimum

if TYPE_CHECKING:
    import pandas

WORTH = dict(zip(OBJECTIVES, ("tokens_per_s_per_device", "cost_per_million_tokens", "joules_per_token"), strict=True))
GOOD = "meets_limits"


def optimized(found: Optimum) -> dict[str, Any]:
    """Context of optimize.html, of an optimum with rows."""
    content = found.to_dict()
    row = content["best"] or content["nearest"]
    told = [*answer(content, row), *verdict(content, row)]
    reasons = sorted(content["plans"]["refused"].items(), key=lambda item: -item[1])
    return {
        "title": heading_of(content, row), "feasible": found.feasible, "limits": content["limits"],
        "facts": [(label, " · ".join(filter(None, parts))) for label, parts in told if any(parts)],
        "best": _ranked(content) if found.feasible else None, "looked_at": looked_at(content["plans"]),
        "halves": "ratio" in row,
        "assumptions": [*assumptions(content, row)], "warnings": content["warnings"],
        "refused": refused({"reasons": [{"reason": reason, "rows": many} for reason, many in reasons]}),
    }  # fmt: skip


def _ranked(content: Mapping[str, Any]) -> Table:
    """The best and the plans behind it."""
    rows = [content["best"], *content["runners_up"]]
    figures = [WORTH[content["objective"]], "tokens_per_s_per_device", "ttft_s", "tpot_s", "total_bytes"]
    figures = [name for name in dict.fromkeys(figures) if name in rows[0]]
    columns = (
        Column("plan", "", "degrees, batch, and the options that are not the same for all"),
        *map(row_column, figures), row_column("capacity_bytes"), row_column("binding"),
    )  # fmt: skip
    named = zip(names_of(rows), rows, strict=True)
    return Table("plans", "The best plans", columns, [{**row, "plan": name} for name, row in named])


def rows_of(found: Optimum) -> pandas.DataFrame:
    """Every plan that was priced, one row each; GOOD: whether it meets the limits."""
    import pandas

    frame = pandas.DataFrame([_flat(row.to_dict()) for row in found.rows])
    return frame.assign(**{GOOD: [row.miss == 0 for row in found.rows]})


def varying(frame: pandas.DataFrame) -> list[str]:
    """The options, of both kinds of instances, that are not the same for all plans."""
    return [
        name
        for name in frame.columns
        if _plain(name) in ("hw", "instances", "ratio", *KNOWN) and frame[name].astype(str).nunique() > 1
    ]


def _plain(name: str) -> str:
    return next((name.removeprefix(half) for half in HALVES if name.startswith(half)), name)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of one kind of instance under names such as prefill_tp; lists as texts."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}_{key}": each for key, each in _flat(value).items()}
        else:
            found[name] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return found
