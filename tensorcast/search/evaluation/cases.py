"""Configurations of one deployed model as columns, and the forward passes that each of them takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorcast.plan import ParallelPlan, Workload

VARIABLES = (
    "batch", "input_len", "output_len", "prefix_len", "chunk", "acceptance_rate", "max_model_len",
    "gpu_memory_utilization", "concurrency",
)  # fmt: skip
"""Options that change no graph and no price of an operator at given sizes: the columns of `Cases`."""
PROMPT = ("prefill", "chunked")
"""Phases that compute a prompt, in one pass or in chunks."""


@dataclass(frozen=True)
class Cases:
    """Columns, an element a configuration; 0 stands for what was not asked.

    `tokens_per_step`: expected tokens that a decode step yields. `share` of the memory that may be used.
    """

    batch: np.ndarray
    input_len: np.ndarray
    output_len: np.ndarray
    prefix_len: np.ndarray
    chunk: np.ndarray
    tokens_per_step: np.ndarray
    max_model_len: np.ndarray
    share: np.ndarray
    concurrency: np.ndarray

    @classmethod
    def of(cls, works: list[Workload], max_model_len: Any, share: Any, concurrency: Any) -> Cases:
        """Of validated workloads; the other arguments: one value, or one for each."""

        def column(values, kind=np.int64) -> np.ndarray:
            return np.broadcast_to(np.asarray(values, dtype=kind), (len(works),))

        names = ("batch", "input_len", "output_len", "prefix_len", "chunk")
        return cls(
            **{name: column([getattr(work, name) for work in works]) for name in names},
            tokens_per_step=column([work.tokens_per_step for work in works], float),
            max_model_len=column(max_model_len),
            share=column(share, float),
            concurrency=column(concurrency),
        )

    def __len__(self) -> int:
        return len(self.batch)

    def at(self, rows) -> Cases:
        """The configurations of these positions."""
        return Cases(**{name: column[rows] for name, column in vars(self).items()})

    def with_(self, **columns: np.ndarray) -> Cases:
        return replace(self, **columns)

    def distinct(self, *names: str) -> tuple[np.ndarray, np.ndarray]:
        """(positions of one configuration of each combination of these columns; for all, which combination)."""
        return distinct(*(getattr(self, name) for name in names))


def distinct(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(position of the first of each combination of values, for every element the number of its combination)."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        _, key = np.unique(key * len(values) + codes.reshape(-1), return_inverse=True)
        key = key.reshape(-1)
    _, first = np.unique(key, return_index=True)
    return first, key


@dataclass(frozen=True)
class Passes:
    """Forward passes: which configuration takes them, the table they are priced with, and where in it."""

    case: np.ndarray
    table: np.ndarray  # names
    batch: np.ndarray
    tokens: np.ndarray
    past: np.ndarray


@dataclass(frozen=True)
class Shape:
    """What all configurations of a group share: the plan, and of the work what is no column."""

    plan: ParallelPlan
    work: Workload

    def group_batch(self, cases: Cases) -> np.ndarray:
        """Sequences of the fullest attention group."""
        return -(-cases.batch // self.plan.dp)

    def micro_batches(self, cases: Cases) -> np.ndarray:
        if self.work.micro_batches:
            return np.full(len(cases), self.work.micro_batches)
        return np.minimum(self.plan.pp, self.group_batch(cases))

    def pass_batch(self, cases: Cases) -> np.ndarray:
        """Sequences of one pass."""
        return -(-self.group_batch(cases) // self.micro_batches(cases))

    def decode_span(self, cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens of a decode step, tokens in cache at the first, number of steps)"""
        steps = np.maximum(cases.output_len - 1, 1)
        if self.work.encoder:  # tokens: what the encoder has read; the decoder's cache begins with its first token
            return cases.input_len, np.ones_like(steps), steps
        return np.full_like(steps, self.work.mtp + 1), cases.input_len, steps

    def cuts(self, phase: str, cases: Cases) -> np.ndarray:
        """Passes that the phase takes: of a prompt one, or one a chunk."""
        if phase not in PROMPT:
            return np.ones(len(cases), dtype=np.int64)
        return -(-(cases.input_len - cases.prefix_len) // self._size(cases))

    def _size(self, cases: Cases) -> np.ndarray:
        return np.where(cases.chunk > 0, cases.chunk, cases.input_len - cases.prefix_len)

    def passes(self, phase: str, cases: Cases) -> Passes:
        """Every pass of the phase of every configuration, in order; not for decode."""
        count = self.cuts(phase, cases)
        case = np.repeat(np.arange(len(cases)), count)
        number = np.arange(len(case)) - np.repeat(np.cumsum(count) - count, count)
        return self._numbered(phase, cases, case, number)

    def last_passes(self, phase: str, cases: Cases) -> Passes:
        """Of every configuration the first pass and the last two of every kind, which hold the most memory."""
        each, count = np.arange(len(cases)), self.cuts(phase, cases)
        if phase == "decode":
            tokens, start, steps = self.decode_span(cases)
            back = np.minimum(steps, 2)
            case = np.concatenate([each, each])
            past = np.concatenate([start + steps - 1, start + steps - back])
            batch = self.pass_batch(cases)
            return Passes(case, np.full(len(case), phase), batch[case], tokens[case], past)
        size = self._size(cases)
        rest = cases.input_len - cases.prefix_len - (count - 1) * size
        back = np.where((rest == 1) & (size > 1), 3, 2)  # a last token on its own is a pass of another kind
        found = [(each, np.zeros_like(count))]
        for n in (1, 2, 3):
            here = (count > n) & (n <= back)
            found.append((each[here], (count - n)[here]))
        case, number = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return self._numbered(phase, cases, case, number)

    def _numbered(self, phase: str, cases: Cases, case: np.ndarray, number: np.ndarray) -> Passes:
        batch = self.pass_batch(cases)[case]
        if phase not in PROMPT:
            return Passes(case, np.full(len(case), phase), batch, cases.input_len[case], np.zeros_like(case))
        size = self._size(cases)[case]
        start = cases.prefix_len[case] + number * size
        tokens = np.minimum(size, cases.input_len[case] - start)
        table = np.where(start == 0, "prefill", np.where(tokens > 1, "chunked", "decode"))
        return Passes(case, table, batch, tokens, start)
