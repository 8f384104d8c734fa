"""What the page of a comparison says beside its charts: figures side by side, who leads where, what is assumed."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from tensorcast.options import flag
from tensorcast.report.charts.rows import title
from tensorcast.report.terminal.compare import covered, refusals, same, side_by_side, who_leads
from tensorcast.search.comparison.alternatives import MOST
from tensorcast.search.comparison.compare import Comparison

if TYPE_CHECKING:
    import pandas


def compared(found: Comparison) -> dict[str, Any]:
    """Context of compare.html."""
    letters, curve = string.ascii_uppercase[: len(found.names)], found.curve
    table = side_by_side(found)
    return {
        "title": " against ".join(found.names), "base": letters[found.base],
        "alternatives": [
            {"letter": letter, "name": each.name, "devices": each.devices}
            for letter, each in zip(letters, found.alternatives, strict=True)
        ],
        "same": same(found), "side_by_side": table, "refused": refusals(found, letters), "warnings": found.warnings,
        "along": None if curve is None else flag(curve.along)[2:], "covered": None if curve is None else covered(curve),
        "metric": None if curve is None else title(curve.metric), "less": None if curve is None else curve.figure.less,
        "leads": [] if curve is None else [*who_leads(curve, found.names, letters, most=MOST)],
    }  # fmt: skip


def rows_of(found: Comparison) -> pandas.DataFrame:
    """One row an alternative and point of the curve; without a curve, one row an alternative."""
    return found.table if found.curve is None else found.frame


def varying(found: Comparison) -> list[str]:
    return ["alternative", *([found.curve.along] if found.curve is not None else [])]
