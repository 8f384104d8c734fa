"""What a search prices: one machine, precision and choice of kernels, under plans that share their tables.

Pipeline stages run some of the operators of the whole stack each, so plans that differ in `pp` share their tables. And
p stages never serve more requests a device than one does with the p-th part of them: p groups take turns, one turn of
each takes p times the slowest stage, which is no less than the whole stack takes for that part. Only memory is another
matter. So what one stage reaches when memory is left out bounds all its pipelines:

    X_p(c) / p <= X_1(ceil(c / p)),  TTFT_p(c) >= TTFT_1(ceil(c / p)),  TPOT_p(c) >= TPOT_1(ceil(c / p))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tensorcast.answer import Answer
from tensorcast.errors import InputError, TensorcastError
from tensorcast.models.reference import LANGUAGE
from tensorcast.request import Request
from tensorcast.search.evaluation.cases import VARIABLES
from tensorcast.search.evaluation.grid import Grid
from tensorcast.search.evaluation.group import Columns, Group
from tensorcast.search.execution.models import Models
from tensorcast.search.optimization.bounds import SLACK
from tensorcast.search.optimization.objective import Limits

WITHIN_TP = ("dcp", "sequence_parallel")
"""Parts of a plan that one device cannot have, and that no others are derived from."""
NOT_BOUNDED = float("-inf")


class Variant:
    """All options but the plan and the batch."""

    def __init__(self, fixed: Mapping[str, Any], grid: type[Grid], cache: bool, models: Models) -> None:
        self.fixed = {name: value for name, value in fixed.items() if value is not None}
        self.grid, self.cache, self.models = grid, cache, models
        self.variables = {name: value for name, value in self.fixed.items() if name in VARIABLES}
        self.asked = {name: value for name, value in self.fixed.items() if name != "strict"}  # refuses figures alone
        self.options = {name: value for name, value in self.fixed.items() if name not in VARIABLES}

    def group(self, plan: Mapping[str, int], ready: Any = None) -> Group:
        return Group({**self.options, **plan}, cache=self.cache, kind=self.grid, ready=ready)

    def answer(self, progress: Callable | None) -> Answer:
        """The whole model on one device, whether it fits or not; InputError unless it generates text."""
        request = Request.of(**{name: value for name, value in self.asked.items() if name not in WITHIN_TP})
        if request.source.phases != LANGUAGE:
            what = ", ".join(request.source.phases)
            raise InputError(f"optimize is for models that generate text; {request.source.name} has {what}: try sweep")
        found = Answer(request, cache=self.cache, progress=progress)
        self.models.shown(request, found.traced.polynomial)
        return found

    @property
    def within(self) -> dict[str, Any]:
        """What tensor-parallel ranks share in a way of its own."""
        return {name: value for name, value in self.asked.items() if name in WITHIN_TP}

    def whole(self, plan: Mapping[str, int]) -> Any:
        """The model to cut for the plan; None where its tables are known or it has to be built anew."""
        try:
            return self.models.whole_for(self.group(plan).request, self.cache)
        except TensorcastError:
            return None

    def price(
        self, plans: Sequence[Mapping[str, int]], batch: np.ndarray, ready: Any, limits: Limits, beat: float
    ) -> list[Columns | None]:
        """Figures for every batch of plans that differ in `pp` alone, fewest stages first.

        None where a pipeline cannot reach `beat` tokens a second and device within the limits.
        """
        out: list[Columns | None] = []
        most = np.inf
        for plan in plans:
            if plan["pp"] > 1 and most <= beat:
                out.append(None)
                continue
            group = self.group(plan, ready)
            parts = [batch] if plan["pp"] > 1 else [batch, *(-(-batch // other["pp"]) for other in plans)]
            sizes, where = np.unique(np.concatenate(parts), return_inverse=True)
            columns = {name: np.full(len(sizes), value) for name, value in self.variables.items()} | {"batch": sizes}
            found = group.columns(columns)
            ready = group.deployed
            if plan["pp"] == 1 and beat > NOT_BOUNDED:
                most = _most(found, limits)
            out.append({name: values[where[: len(batch)]] for name, values in found.items()})
        return out


def _most(columns: Columns, limits: Limits) -> float:
    """Tokens a second and device within the limits on time; infinite where nothing is known."""
    if "ttft_s" not in columns:
        return np.inf
    good = columns["reason"] == ""
    for name, limit in (("ttft_s", limits.ttft_s), ("tpot_s", limits.tpot_s)):
        if limit is not None:
            good &= columns[name] * SLACK <= limit
    return float(np.max(columns["tokens_per_s_per_device"], where=good, initial=0.0)) / SLACK
