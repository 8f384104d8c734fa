"""`compare`: machines, plans or models side by side, and where one overtakes the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.errors import InputError, near_names
from tensorcast.options import flag
from tensorcast.report.files import SearchFiles
from tensorcast.search.axes.space import Space
from tensorcast.search.comparison.alternatives import METRICS, PRICE, Alternative, alternatives
from tensorcast.search.comparison.curve import RANGES, Curve, curve_of, values_of
from tensorcast.search.evaluation.group import WORK, Columns
from tensorcast.search.frame import said

if TYPE_CHECKING:
    import pandas
    from plotly.graph_objects import Figure


@dataclass(frozen=True, repr=False)
class Comparison(SearchFiles):
    """Alternatives at one work, `table`, and along one option, `frame`. Figures are per device, in SI units."""

    verb = "compare"

    alternatives: tuple[Alternative, ...]
    curve: Curve | None

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.alternatives]

    @cached_property
    def base(self) -> int:
        """What ratios are to: the first that is not refused."""
        return next((i for i, each in enumerate(self.alternatives) if not each.work["reason"]), 0)

    def ratios(self, number: int) -> dict[str, float]:
        """Each figure over that of the base, where both have it and neither is 0."""
        base, own = self.alternatives[self.base].work, self.alternatives[number].work
        return {name: own[name] / base[name] for name in METRICS if own.get(name) and base.get(name)}

    @property
    def fit(self) -> bool:
        """Whether any alternative fits at the asked work."""
        return any(each.work.get("fits") for each in self.alternatives)

    @property
    def uneven(self) -> list[str]:
        """What of the work is not the same in all alternatives, asked for or a model's own limit."""
        works = {name: {each.work[name] for each in self.alternatives if name in each.work} for name in WORK}
        return [name for name, values in works.items() if len(values) > 1]

    @property
    def warnings(self) -> list[str]:
        """What alternatives assume, and that their work is not the same."""
        found = dict.fromkeys(warning for each in self.alternatives for warning in each.warnings)
        if self.uneven:
            flags = ", ".join(map(flag, self.uneven))
            found[f"the work is not the same in all alternatives: {flags}; give one that all take"] = None
        return list(found)

    @property
    def table(self) -> pandas.DataFrame:
        """One row an alternative: its figures at the asked work, `fits` and `reason`."""
        import pandas

        rows = [{"alternative": each.name, "devices": each.devices, **each.work} for each in self.alternatives]
        return pandas.DataFrame(rows)

    @property
    def frame(self) -> pandas.DataFrame:
        """One row an alternative and point of the curve: its figures, `fits` and `reason`. InputError: no curve."""
        import pandas

        if self.curve is None:
            raise InputError("there is no curve with along=None; `table` has the figures")
        found = [
            pandas.DataFrame({"alternative": name, self.curve.along: self.curve.points} | _typed(columns))
            for name, columns in zip(self.names, self.curve.columns, strict=True)
        ]
        whole = pandas.concat(found, ignore_index=True)
        ends = ["fits", "reason"]
        return whole[[name for name in whole.columns if name not in ends] + ends]

    def __repr__(self) -> str:
        along = "" if self.curve is None else f", {self.curve.metric} along {self.curve.along}"
        return f"Comparison({', '.join(self.names)}{along})"

    def plot_curve(self) -> Figure:
        """The metric of each alternative along the option, as a figure of Plotly. InputError: there is no curve."""
        from tensorcast.report.charts.curve import curve_chart
        from tensorcast.report.notebook.plots import figure

        if self.curve is None:
            raise InputError("there is no curve with along=None; `table` has the figures")
        return figure(curve_chart(self.curve, self.names), f"{self.curve.metric} along {self.curve.along}")

    def _repr_html_(self) -> str:
        """The report, for notebooks."""
        from tensorcast.report.notebook.cells import PAGE_WIDTH, lines_cell
        from tensorcast.report.terminal.compare import comparison_lines

        return lines_cell(comparison_lines(self, PAGE_WIDTH))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `alternatives`, `ratios_to` and, with a curve, its values, who leads, and break-even points."""
        rows = [
            {
                "name": each.name,
                "options": {name: said(value) for name, value in each.options.items()} | each.priced,
                "devices": each.devices,
                "fits": each.work.get("fits"),
                "reason": each.work["reason"],
                "work": {name: each.work[name] for name in WORK if name in each.work},
                "figures": {name: value for name, value in each.work.items() if name in METRICS},
                "ratios": self.ratios(number),
            }
            for number, each in enumerate(self.alternatives)
        ]
        curve = self.curve and self.curve.to_dict(self.names)
        base = self.names[self.base]
        return {"schema": 1, "alternatives": rows, "ratios_to": base, "curve": curve, "warnings": self.warnings}


def compare(
    *overlays: Mapping[str, Any],
    along: str | None = "batch",
    values: Any = None,
    metric: str | None = None,
    price_per_hour: float | Sequence[float] | None = None,
    cache: bool = True,
    progress: Callable[[str, float | None], None] | None = None,
    **options: Any,
) -> Comparison:
    """Two to eight alternatives side by side: every combination of options of `tc.simulate` that have several values.

    tc.compare(model="qwen3-32b", hw=["h100-sxm", "ascend-910c-die"], tp=4, batch=16, along="batch", values="1:256")

    `overlays`: mappings of options, each laid over the common ones: alternatives that differ in several options. Any
    option but the one of the curve takes several values; `price_per_hour` of a device too (None: the profile's).
    `along`: "batch", "input_len", "output_len", "concurrency" (clients of a served model: the figures are those under
    load), or None for no curve. `values`: whole numbers, a list or a text such as "1:512:x2"; every whole number from
    the least to the greatest is priced, so that break-even points are exact, where these are at most 65,536 and the
    model's batches can be priced together; else the values alone are. `metric`: of the curve; None: output tokens a
    second and device, or what the model has in their place. An alternative that does not fit, or is refused, does not
    count where that is so.

    Raises InputError for fewer or more alternatives, an unknown metric, and when every alternative is refused.
    """
    common = _axes(options | {PRICE: price_per_hour})
    return comparison(common, [_axes(each) for each in overlays], along, values, metric, cache, progress)


def comparison(
    common: Mapping[str, Sequence[Any]],
    overlays: Sequence[Mapping[str, Sequence[Any]]],
    along: str | None,
    values: Any = None,
    metric: str | None = None,
    cache: bool = True,
    progress: Callable[[str, float | None], None] | None = None,
) -> Comparison:
    """`compare` of axes: option → its values."""
    along = _checked_along(along, values, metric)
    if metric is not None and metric not in METRICS:
        raise InputError(f"--metric {metric!r}: no such figure; there is {', '.join(_near(metric))}")
    shown = None if along is None else values_of(along, values)
    tell = progress or (lambda text, share: None)
    rows = alternatives(
        common, overlays, along, cache=cache, progress=progress and (lambda text, _=None: tell(text, None))
    )
    for number, each in enumerate(rows):
        tell(f"pricing {each.name}", number / len(rows) / 4)
        _ = each.work
    curve = None if along is None else curve_of(rows, along, shown, metric, tell)
    if curve is None and all(each.work["reason"] for each in rows):
        raise InputError(f"every alternative is refused: {rows[0].work['reason']}")
    return Comparison(tuple(rows), curve)


def _axes(options: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Option → values, of one mapping as Python gives it; a price is one of them."""
    if not isinstance(options, Mapping):
        raise InputError(f"{options!r}: an alternative is a mapping of options, such as {{'hw': 'h100-sxm', 'tp': 8}}")
    price = options.get(PRICE)
    space = Space.of(**{name: value for name, value in options.items() if name != PRICE})
    found: dict[str, Sequence[Any]] = dict(space.products[0])
    if price is not None:
        found[PRICE] = tuple(price) if isinstance(price, (list, tuple)) else (price,)
        if not found[PRICE]:
            raise InputError("price_per_hour: an empty list; give a price, or leave the option out")
    return found


def _checked_along(along: str | None, values: Any, metric: str | None) -> str | None:
    """The option's short name."""
    if along is None:
        if values is not None or metric is not None:
            name = "--values" if values is not None else "--metric"
            raise InputError(f"{name} is about the curve, and --along none asks for no curve; leave one of them out")
        return None
    name = along.replace("-", "_") if isinstance(along, str) else along
    if name not in RANGES:
        raise InputError(f"--along {along!r}: one of {', '.join(flag(each)[2:] for each in RANGES)}, none")
    return name


def _near(metric: Any) -> list[str]:
    usual = ("tokens_per_s_per_device", "tokens_per_s_per_user", "ttft_s", "tpot_s", "total_bytes")
    return near_names(str(metric), METRICS) or list(usual)


def _typed(columns: Columns) -> dict[str, Any]:
    """Columns for a frame: figures, bytes as whole numbers; `fits`, NA where refused; `reason`."""
    import pandas

    refused = np.asarray(columns["reason"] != "", dtype=bool)
    fits = np.nan_to_num(np.asarray(columns.get("fits", refused), dtype=float)) == 1
    found: dict[str, Any] = {
        name: pandas.array(np.asarray(values, dtype=float), dtype="Float64").astype("Int64")
        if METRICS[name].whole
        else values
        for name, values in columns.items()
        if name in METRICS
    }
    return found | {
        "fits": pandas.arrays.BooleanArray(fits, refused),
        "reason": columns["reason"].astype(str),
    }
