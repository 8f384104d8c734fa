"""What `compare` sets side by side: deployments, their names, and their figures at one work and along one option."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tensorcast.errors import InputError, TensorcastError
from tensorcast.options import flag
from tensorcast.search.axes.space import DEFAULTS, Axes, Space
from tensorcast.search.axes.values import distinct
from tensorcast.search.evaluation.cases import VARIABLES
from tensorcast.search.evaluation.figures import METRICS
from tensorcast.search.evaluation.group import Columns, Group
from tensorcast.search.evaluation.served import ServedGrid
from tensorcast.search.frame import said
from tensorcast.search.optimization.objective import Objective

MOST = 8
LOAD = "concurrency"
PRICE = "price_per_hour"
UNDER_LOAD = {"ttft_s": "ttft_loaded_s", "tpot_s": "tpot_loaded_s"}
CLIENTS = (("--batch", "--concurrency"), ("--mode static", "--along batch"))
"""What a refusal calls the batch that clients stand for."""
ONE_VALUE = {"gpu_memory_utilization": 1.0}  # its default: a column where nothing else is one
HINT = "give an option several values, such as --hw h100-sxm,ascend-910c-die, or --with twice"


@dataclass(frozen=True)
class Alternative:
    """One deployment. `options`: of `tc.simulate`. `price`: of a device-hour, None: the profile's."""

    name: str
    options: Mapping[str, Any]
    price: float | None = None
    cache: bool = True
    progress: Callable | None = None

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name not in VARIABLES}

    @cached_property
    def _variables(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name in VARIABLES}

    @cached_property
    def _group(self) -> Group:
        return Group(self._fixed, cache=self.cache, progress=self.progress)

    @cached_property
    def _served(self) -> Group:
        """The same model with clients at all times."""
        return Group(self._fixed, cache=self.cache, progress=self.progress, kind=ServedGrid, ready=self._group.deployed)

    @property
    def priced(self) -> dict[str, float]:
        """The price as an option, where one is given."""
        return {} if self.price is None else {PRICE: self.price}

    @property
    def together(self) -> bool:
        """Whether many values can be priced at once; known when some were priced."""
        return self._group.deployed is not None or self._served.deployed is not None

    @cached_property
    def devices(self) -> int | None:
        """None: refused."""
        try:
            return self._group.request.plan.devices
        except TensorcastError:
            return None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is assumed, whatever the work."""
        return () if self.devices is None else self._group.request.standing

    @cached_property
    def work(self) -> dict[str, Any]:
        """Figures at the asked work, `fits` and `reason`; only a reason where it is refused."""
        columns = self._with_costs(self._group.columns(_filled(self._variables or ONE_VALUE, 1)))
        found = {name: _plain(name, values[0]) for name, values in columns.items()}
        return {name: value for name, value in found.items() if value is not None}

    def along(self, name: str, points: np.ndarray) -> Columns:
        """Figures with these values of an option: of `cases.VARIABLES`; clients stand for the batch."""
        served = name == LOAD
        columns = _filled(self._variables, len(points)) | {name: points}
        if not served:
            return self._with_costs(self._group.columns(columns))
        found = self._with_costs(self._served.columns(columns | {"batch": points}))
        found["reason"] = np.array([_of_clients(reason) for reason in found["reason"]], dtype=object)
        return {UNDER_LOAD.get(figure, figure): values for figure, values in found.items() if figure != "batch"}

    def _with_costs(self, found: Columns) -> Columns:
        if "tokens_per_s_per_device" not in found:
            return found
        factors = Objective(price_per_hour=self.price).figures(self._group.request.hw)
        return found | {name: factor / found["tokens_per_s_per_device"] for name, factor in factors.items()}


def alternatives(
    common: Mapping[str, Any], overlays: Sequence[Mapping[str, Any]], along: str | None, **how: Any
) -> list[Alternative]:
    """Every combination of the values of `common`, with each of `overlays` laid over it; named by what differs.

    Both: axes, option → values; `PRICE` is one too. `how`: as Alternative's. InputError.
    """
    chosen = [dict(each) for axes in _laid(common, overlays) for each in _combinations(axes)]
    if len(chosen) == 1:
        raise InputError(f"one alternative only; {HINT}")
    if along is not None and len({each.get(along) for each in chosen}) > 1:
        raise InputError(f"{flag(along)}: several values, but the curve runs along it; give its range as --values")
    prices = [Objective(price_per_hour=each.pop(PRICE, None)).price_per_hour for each in chosen]
    for i, j in itertools.combinations(range(len(chosen)), 2):
        if prices[i] == prices[j] and len(Space([_axes(chosen[i]), _axes(chosen[j])])) == 1:
            raise InputError(f"alternatives {i + 1} and {j + 1} are the same; {HINT}")
    names = _names([each | {PRICE: price} for each, price in zip(chosen, prices, strict=True)])
    return [
        Alternative(name, {option: value for option, value in each.items() if value is not None}, price, **how)
        for name, each, price in zip(names, chosen, prices, strict=True)
    ]


def _laid(common: Mapping, overlays: Sequence[Mapping]) -> list[dict[str, Sequence[Any]]]:
    laid = [{**common, **overlay} for overlay in overlays or [{}]]
    count = sum(math.prod(map(len, axes.values())) for axes in laid)
    if count > MOST:
        raise InputError(f"{count:,} alternatives; compare takes at most {MOST}, `sweep` any number")
    for axes in laid:
        Space([{name: values for name, values in axes.items() if name != PRICE}]).check()
    return laid


def _combinations(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _axes(options: Mapping[str, Any]) -> Axes:
    return {name: (value,) for name, value in options.items()}


def varying(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that do not mean the same in all alternatives."""
    names = dict.fromkeys(name for each in options for name in each)
    meant = {name: [DEFAULTS.get(name) if each.get(name) is None else each[name] for each in options] for name in names}
    return [name for name, found in meant.items() if len(distinct(found)) > 1]


def _names(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each alternative the options that are not the same in all: `h100-sxm tp 8`."""
    words = [[_text(name, each.get(name)) for name in varying(chosen)] for each in chosen]
    names = [" ".join(filter(None, texts)) or "default" for texts in words]
    # Two objects of one class, or a setting and its absence, may read the same.
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _text(name: str, value: Any) -> str:
    value = DEFAULTS.get(name) if value is None else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"{flag(name)[2:]} {'on' if value else 'off'}"
    text = str(said(value))
    return text if name in ("model", "hw", "custom") else f"{'price' if name == PRICE else flag(name)[2:]} {text}"


def _of_clients(reason: str) -> str:
    for words, others in CLIENTS:
        reason = reason.replace(words, others)
    return reason


def _filled(values: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    return {name: np.full(count, value) for name, value in values.items()}


def _plain(name: str, value: Any) -> Any:
    """One cell as a plain value; None for NaN."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if name in METRICS and METRICS[name].whole else value
    return value
