"""The pages of the verbs: which template, and the charts in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorcast.report.charts.bounds import bounds_chart
from tensorcast.report.html import render


def simulate_page(estimate: Mapping[str, Any]) -> str:
    """The report of one estimate, `Estimate.to_dict()`, as one HTML file; InputError for an error in a template."""
    return render("simulate.html", {"bounds": bounds_chart(estimate)}, estimate=estimate)
