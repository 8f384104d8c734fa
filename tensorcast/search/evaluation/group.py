"""One group of a sweep: configurations that share everything but `cases.VARIABLES`, checked and evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from tensorcast.deployed import DeployedModel
from tensorcast.errors import InputError, TensorcastError
from tensorcast.estimate import simulate
from tensorcast.models.reference import FORWARD, LANGUAGE
from tensorcast.options import given_options
from tensorcast.plan import DUAL_BATCH, NO_OVERLAP, TRAIN
from tensorcast.request import Request
from tensorcast.search.evaluation.cases import Cases, distinct
from tensorcast.search.evaluation.grid import Grid

Columns = dict[str, np.ndarray]
SOURCE = ("model", "hw", "custom", "trust_remote_code", "custom_dir", "no_plugin")
"""What `Request.of` takes beside the options."""
WORK = ("batch", "input_len", "output_len")
"""Of the work, what every configuration has."""


class Group:
    """Configurations of one model, machine, plan, precision and choice of kernels.

    `fixed`: options under the names of `tc.simulate`. `progress`: as of `tc.simulate`.
    """

    def __init__(
        self,
        fixed: Mapping[str, Any],
        *,
        cache: bool = True,
        progress: Callable | None = None,
        kind: type[Grid] = Grid,
        ready: Any = None,
    ) -> None:
        """`kind`: what prices the configurations together. `ready`: as `Answer`'s."""
        self.strict = bool(fixed.get("strict"))  # which refuses figures, not requests
        fixed = {name: value for name, value in fixed.items() if name != "strict"}
        self.fixed, self.cache, self.progress, self.kind, self.ready = dict(fixed), cache, progress, kind, ready
        self._grid: Grid | None = None

    @cached_property
    def request(self) -> Request:
        """The request with the least work, which only a fault of the fixed options refuses."""
        least = {"output_len": 1} if "seq_lens" in self._options else {"batch": self._least}
        return Request.of(
            **{name: self.fixed[name] for name in SOURCE if name in self.fixed}, **self._options | least, idle=True
        )

    @property
    def deployed(self) -> DeployedModel | None:
        """What configurations were priced with; None before."""
        return None if self._grid is None else self._grid.answer.traced

    @cached_property
    def _options(self) -> dict[str, Any]:
        return given_options({name: value for name, value in self.fixed.items() if name not in SOURCE})

    @property
    def _least(self) -> int:
        """Sequences that every plan can share out."""
        halves = 2 * self._options.get("pp", 1) if self._options.get("overlap") == DUAL_BATCH else 1
        return self._options.get("dp", 1) * self._options.get("micro_batches", 1) * halves

    def columns(self, variables: Mapping[str, np.ndarray]) -> Columns:
        """Figures of every configuration, and under `reason` why one has none ("" where it has).

        `variables`: options of `cases.VARIABLES` → their values, all of one length. A figure that is not there is NaN.
        """
        count = len(next(iter(variables.values())))
        reason = np.full(count, "", dtype=object)
        try:
            if not self.together:
                return self._one_by_one(variables, count)
            cases = self._checked(variables, reason)
            good = np.flatnonzero(reason == "")
            if not len(good):
                return {"reason": reason}
            found = self._figures(cases.at(good))
        except TensorcastError as error:
            reason[reason == ""] = str(error)
            return {"reason": reason}
        found |= {name: getattr(cases, name)[good] for name in WORK}
        return {name: _spread(values, good, count) for name, values in found.items()} | {"reason": reason}

    @cached_property
    def together(self) -> bool:
        """Whether all configurations can be priced together; InputError where one by one is not the same either."""
        work, phases = self.request.work, self.request.source.phases
        apart = {
            f"a model that has {', '.join(phases)}": phases not in (LANGUAGE, FORWARD),
            "--phase train": work.phase == TRAIN,
            "--seq-lens": work.seq_lens,
            "--image": work.images,
            "--overlap": work.overlap != NO_OVERLAP,
        }
        found = [name for name, value in apart.items() if value]
        if found and self.kind is not Grid:
            raise InputError(f"{found[0]}: not under load; --mode static takes it")
        return not found

    def _checked(self, variables: Mapping[str, np.ndarray], reason: np.ndarray) -> Cases:
        """The configurations; `reason` gets what is wrong with each. Lengths and batches are checked apart."""
        columns = {name: np.asarray(values) for name, values in variables.items()}
        batch = columns.pop("batch", None)
        if batch is not None:
            self._check_batches(batch, reason)
        least = {} if batch is None else {"batch": self._least}
        which, requests = self._requests(columns, self._options | least, reason)
        cases = Cases.of(
            [request.work for request in requests],
            [request.max_model_len or 0 for request in requests],
            [request.utilization for request in requests],
            [request.concurrency or 0 for request in requests],
        ).at(which)
        return cases if batch is None else cases.with_(batch=batch)

    def _check_batches(self, batch: np.ndarray, reason: np.ndarray) -> None:
        """Say which numbers of sequences are too few or too many; what lies between two that pass, passes."""
        values = np.unique(batch)
        for ordered in (values, values[::-1]):
            for value in ordered:
                here = batch == value
                if (reason[here] != "").all():
                    return
                try:
                    self.request.doing(batch=value.item())
                    break
                except TensorcastError as error:
                    reason[here] = str(error)

    def _requests(self, columns: Columns, given: Mapping[str, Any], reason: np.ndarray):
        """(number of the combination of every position, the request of each); those refused give `reason`."""
        first, which = np.zeros(1, dtype=np.int64), np.zeros(len(reason), dtype=np.int64)
        if columns:
            first, which = distinct(*columns.values())
        base, found = replace(self.request, given=given), []
        for number, position in enumerate(first):
            try:
                found.append(base.doing(**{name: values[position].item() for name, values in columns.items()}))
            except TensorcastError as error:
                found.append(self.request)
                reason[(which == number) & (reason == "")] = str(error)
        return which, found

    def _figures(self, cases: Cases) -> Columns:
        if self._grid is None:
            first = {name: int(getattr(cases, name)[0]) for name in WORK}
            work = replace(
                self.request.work, **first, **{n: int(getattr(cases, n)[0]) for n in ("prefix_len", "chunk")}
            )
            request = replace(self.request, work=work)
            self._grid = self.kind(request, cache=self.cache, progress=self.progress, ready=self.ready)
            if self.strict:
                self._grid.answer.check_strict()
        return self._grid.columns(cases)

    def _one_by_one(self, variables: Mapping[str, np.ndarray], count: int) -> Columns:
        """What `simulate` says of each configuration."""
        rows = []
        for position in range(count):
            point = {name: np.asarray(values)[position].item() for name, values in variables.items()}
            try:
                answer = simulate(
                    **self.fixed, **point, strict=self.strict, cache=self.cache, progress=self.progress
                ).to_dict()
                given = {name: answer["workload"][name] for name in WORK if name in answer["workload"]}
                rows.append({**given, **answer["metrics"], **answer["memory"], "reason": ""})
            except TensorcastError as error:
                rows.append({"reason": str(error)})
        names = dict.fromkeys(name for row in rows for name in row if name not in ("suggestions", "reason"))
        out = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
        return out | {"reason": np.array([row["reason"] for row in rows], dtype=object)}


def _spread(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """`values` at the positions `rows` of a longer column, NaN (False for truth values) elsewhere."""
    if len(rows) == count:
        return values
    out = np.zeros(count, dtype=bool) if values.dtype == bool else np.full(count, np.nan)
    out[rows] = values
    return out


def _number(value: Any) -> float:
    return np.nan if value is None else value
