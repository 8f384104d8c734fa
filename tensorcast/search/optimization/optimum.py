"""The answer of a search: the best configuration, what binds it, and what comes next; or the nearest miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from tensorcast.report.files import SearchFiles
from tensorcast.search.evaluation.figures import FIGURES
from tensorcast.search.evaluation.group import WORK
from tensorcast.search.optimization.objective import MEMORY, TPOT, TTFT, Limits
from tensorcast.units import bytes_

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HALVES = ("prefill", "decode")
"""Options of a row whose instances are of two kinds."""
FLAGS = {TTFT: ("--ttft", "ttft_s"), TPOT: ("--tpot", "tpot_s")}


@dataclass(frozen=True)
class Row:
    """One configuration: its options, its figures, by how much it misses the limits, and its worth.

    `binding`: the limit that keeps more sequences, which would be worth more, out of this plan; "" for none. `asked`:
    the options of `tc.simulate` for each kind of instance.
    """

    options: Mapping[str, Any]
    figures: Mapping[str, Any]
    excess: Mapping[str, float]
    worth: float
    devices: int
    binding: str = ""
    asked: tuple[Mapping[str, Any], ...] = ()

    @property
    def instances(self) -> tuple[Mapping[str, Any], ...]:
        """Memory and more of each kind of instance."""
        return tuple(self.options[name] for name in HALVES if name in self.options) or (self.figures,)

    @property
    def miss(self) -> float:
        """The worst excess over a limit, as a share of it; 0 where all are met."""
        return max(0.0, *self.excess.values())

    @property
    def order(self) -> tuple[float, float]:
        """The smaller, the better."""
        return self.miss, -self.worth

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.options,
            "instance_devices": self.devices,
            **self.figures,
            "miss": self.miss,
            "binding": self.binding,
        }


def best_row(
    options: Mapping, columns: Mapping[str, np.ndarray], limits: Limits, worth, extra, devices: int
) -> Row | None:
    """The best batch of one plan; None where every batch was refused. `worth`: of a token a second and device."""
    good = np.flatnonzero(columns["reason"] == "")
    if not len(good) or "total_bytes" not in columns:
        return None
    excess = {name: values[good] for name, values in limits.excess(columns).items()}
    miss = np.maximum(np.max(list(excess.values()), axis=0), 0.0)
    value = columns["tokens_per_s_per_device"][good] * worth
    index = int(np.lexsort((-value, miss))[0])
    at = good[index]
    figures = {name: plain(name, values[at].item()) for name, values in columns.items() if name != "reason"}
    figures |= {name: factor / figures["tokens_per_s_per_device"] for name, factor in extra.items()}
    binding = held_back(excess, value, index) if miss[index] == 0 else ""
    missed = {name: float(values[index]) for name, values in excess.items()}
    return Row(dict(options), figures, missed, float(value[index]), devices, binding)


def plain(name: str, value: Any) -> Any:
    """Whole numbers as such: beside configurations that have no figure they are kept as floats."""
    whole = name in WORK or (name in FIGURES and FIGURES[name].whole)
    return int(value) if whole and value == value else value


def held_back(excess: Mapping[str, np.ndarray], value: np.ndarray, index: int) -> str:
    """The limit missed most by the batch of more value than `index` that is nearest to being allowed; "": none."""
    miss = np.maximum(np.max(list(excess.values()), axis=0), 0.0)
    more = (value > value[index]) & (miss > 0)
    if not more.any():
        return ""
    first = np.flatnonzero(more)[np.argmin(miss[more])]
    return max(excess, key=lambda name: excess[name][first])


def _memory(needed: float, capacity: float) -> str:
    """What gives a device the memory that it needs."""
    if needed <= capacity:
        return f"--memory-headroom {floor((1 - needed / capacity) * 1000) / 1000:g}"
    return f"memory for {bytes_(needed)} a device (it has {bytes_(capacity)})"


def _no_less(value: float) -> str:
    """A time that is no shorter, in three digits, as `--ttft` takes it.

    >>> _no_less(0.0022508), _no_less(12.31), _no_less(0.05)
    ('2.26ms', '12.4s', '50ms')
    """
    exact = Decimal(repr(value))
    up = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), ROUND_CEILING)
    return f"{float(up):g}s" if up >= 1 else f"{float(up * 1000):g}ms"


@dataclass(frozen=True)
class Optimum(SearchFiles):
    """Rows of plans that were priced, the best first; figures per device, in SI units.

    `considered` plans in all, of which `ruled_out` cannot be among the best `top`, and `refused` cannot be at all:
    reason → how many.
    """

    verb = "optimize"

    asked: Mapping[str, Any]
    limits: Limits
    rows: tuple[Row, ...]
    considered: int
    ruled_out: int
    refused: Mapping[str, int]
    warnings: tuple[str, ...] = ()
    top: int = 5
    _frame: Any = field(default=None, repr=False)

    @property
    def priced(self) -> int:
        """Plans that have figures."""
        return self.considered - self.ruled_out - sum(self.refused.values())

    @property
    def feasible(self) -> bool:
        """Whether any configuration meets the limits."""
        return bool(self.rows) and self.rows[0].miss == 0

    @property
    def best(self) -> dict[str, Any] | None:
        """The best configuration that meets the limits: options, `instance_devices`, figures."""
        return self._said(self.rows[0]) if self.feasible else None

    @property
    def nearest(self) -> dict[str, Any] | None:
        """Where none meets them, the one whose worst excess is least."""
        return self._said(self.rows[0]) if self.rows and not self.feasible else None

    @property
    def runners_up(self) -> list[dict[str, Any]]:
        """The best configurations of the next plans, as far as they meet the limits."""
        return [self._said(row) for row in self.rows[1 : self.top] if row.miss == 0] if self.feasible else []

    def _said(self, row: Row) -> dict[str, Any]:
        """A row and how often it fills the devices."""
        return {**row.to_dict(), "copies": self.asked["devices"] // row.devices}

    @property
    def lead(self) -> float | None:
        """By which share the best plan is worth more than the next; None where there is no next."""
        others = [row for row in self.rows[1:2] if row.miss == 0]
        return self.rows[0].worth / others[0].worth - 1 if self.feasible and others else None

    @property
    def what_would(self) -> list[str]:
        """The limits that the nearest miss would meet."""
        if self.feasible or not self.rows:
            return []
        row, out = self.rows[0], []
        for name, excess in row.excess.items():
            if excess <= 0:
                continue
            if name == MEMORY:
                out.append(_memory(row.figures["total_bytes"], row.figures["capacity_bytes"]))
            else:
                flag, key = FLAGS[name]
                out.append(f"{flag} {_no_less(row.figures[key])}")
        return out

    def start_line(self, engine: str) -> str:
        """What starts the best configuration on vllm, sglang, trtllm or mindie; raises as search.start.start_of."""
        from tensorcast.search.optimization.start import start_of

        return start_of(self, engine)

    @property
    def frame(self):
        """A pandas DataFrame: one row a plan that was priced, the best first."""
        import pandas

        return pandas.DataFrame([row.to_dict() for row in self.rows])

    def plot_limits(self) -> Figure:
        """What was found as a share of each limit: of the best configuration, or of the nearest miss.

        InputError where Plotly is not installed.
        """
        from tensorcast.report.charts.limits import limits_chart
        from tensorcast.report.notebook.plots import figure

        return figure(limits_chart(self.to_dict()), "figures and their limits")

    def __repr__(self) -> str:
        model, devices = self.asked["model"], self.asked["devices"]
        return f"Optimum({model!r}, devices={devices}, plans={len(self.rows)}, feasible={self.feasible})"

    def _repr_html_(self) -> str:
        """The report, for notebooks."""
        from tensorcast.report.notebook.cells import PAGE_WIDTH, lines_cell
        from tensorcast.report.terminal.optimize import optimum_lines

        return lines_cell(optimum_lines(self, PAGE_WIDTH))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {
            "schema": 1,
            **self.asked,
            "limits": self.limits.to_dict(),
            "best": self.best,
            "binding": self.rows[0].binding if self.feasible else "",
            "lead": self.lead,
            "runners_up": self.runners_up,
            "nearest": self.nearest,
            "what_would": self.what_would,
            "plans": {
                "considered": self.considered, "priced": self.priced, "ruled_out": self.ruled_out,
                "refused": dict(self.refused),
            },
            "warnings": list(self.warnings),
        }  # fmt: skip
