"""What no plan can beat, from the tables of the model on one device: so that plans can be left out unseen.

A plan only ever divides or repeats the work of the whole model: rank by rank its operators do at least the n-th part
(n devices) of the FLOP and of the bytes, and of the weights that every attention group reads, the tp-th. With p
pipeline stages p groups of sequences take turns, so that for b running sequences

    T(b) >= sum over operators max(F(b) / (n peak), B(b) / (n BW), W / (tp BW)) + L reduce(b / (dp p))

F, B: FLOP and bytes of the operator on one device, W its bytes for one sequence where it is a product with weights; the
last term where tp > 1: each of the L layers of attention sums its results over the tp ranks. Every step yields at most
e tokens a sequence (drafts), so that requests of O tokens come at no more than

    X <= min( b e / ((O - 1) T(b)),  n peak / (F_prompt + (O - 1) F(1) / e) )

F_prompt is left out where a part of the prompts is there already.

b / T(b) grows with b, which the limits bound: T(b) <= e TPOT, weights / ranks + b caches / ranks <= memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import ceil

import numpy as np

from tensorcast.answer import Answer
from tensorcast.cost.collective import BEST, collective_time
from tensorcast.cost.passes import Pipeline
from tensorcast.formats import bytes_of
from tensorcast.memory import stage_weights
from tensorcast.ops import operator_named
from tensorcast.optable import OpTable
from tensorcast.search.optimization.objective import Limits
from tensorcast.search.optimization.plans import devices_of

PRODUCTS = ("gemm", "bmm")
SLACK = 0.999
"""A bound stays below what it bounds when both are rounded."""


class Bounds:
    """Of one model, precision and machine; `answer`: that of the plan with one device."""

    def __init__(
        self, answer: Answer, batch: np.ndarray, limits: Limits, *, dcp: int = 1, sequence_parallel: bool = False
    ) -> None:
        """`batch`: the numbers of sequences that may be tried, in order. The others: of all plans."""
        self.answer, self.batch, self.limits, self.dcp = answer, batch, limits, dcp
        self.summed = not sequence_parallel and answer.request.given.get("overlap", "none") == "none"
        self.hw, self.facts, self.work = answer.hw, answer.facts, answer.work
        self.peak = max(self.hw.peak(fmt) for fmt in self.hw.peaks)

    def throughput(self, plan: Mapping[str, int]) -> tuple[float, float]:
        """Tokens a second and device that the plan cannot exceed; 0 where not even one sequence meets the limits.

        And what it could reach if prompts cost nothing, which tells plans apart that have the same bound.
        """
        step, fits = self._step(plan), self._held(plan) <= self._room
        if self.limits.tpot_s is not None:
            fits &= step <= self.limits.tpot_s * self.work.tokens_per_step
        if not fits.any() or self._late(plan):
            return 0.0, 0.0
        n, each_step = devices_of(plan), self.work.tokens_per_step
        rate = self.batch[fits] * each_step / (max(self.work.output_len - 1, 1) * step[fits])
        steps = (self.work.output_len - 1) / each_step
        busy = (self._prompt_flops + steps * self._one_flops) / (n * self.peak)
        each = self.work.output_len / n / SLACK
        return float(min(rate.max(), 1 / busy) * each), float(rate.max() * each)

    def _late(self, plan: Mapping[str, int]) -> bool:
        limit = self.limits.ttft_s
        return limit is not None and self._prompt_flops / (devices_of(plan) * self.peak) > limit

    def _step(self, plan: Mapping[str, int]) -> np.ndarray:
        """Seconds of a decode step of all sequences, for every batch."""
        flops, nbytes, weights = self._decode
        n = devices_of(plan)
        each = np.maximum(flops / (n * self.peak), nbytes / (n * self.hw.memory_bw))
        return np.maximum(each, weights / (plan["tp"] * self.hw.memory_bw)).sum(axis=0) * SLACK + self._sums(plan)

    def _sums(self, plan: Mapping[str, int]) -> np.ndarray | float:
        """Seconds of one sum over the tensor-parallel ranks in every layer that has a KV cache."""
        layers = len({layer for cache in self.facts.caches for layer in cache.layers})
        if plan["tp"] == 1 or not layers or not self.summed:
            return 0.0
        tokens = np.ceil(self.batch / (plan["dp"] * plan["pp"])) * (self.work.mtp + 1)
        nbytes = tokens * bytes_of(self.facts.hidden, self.facts.dtype)
        return layers * collective_time("all_reduce", nbytes, plan["tp"], 1, self.hw, library=BEST) * SLACK

    @cached_property
    def _decode(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[operators, batches] FLOP and bytes, [operators, 1] bytes of weights."""
        tokens, past = self.work.mtp + 1, self.work.input_len
        flops, nbytes, products = self._work_of(self.answer.deployed.tables["decode"], self.batch, tokens, past)
        one = self._work_of(self.answer.deployed.tables["decode"], np.array([1]), tokens, past)[1]
        return flops, nbytes, np.where(products[:, None], one, 0.0)

    @cached_property
    def _one_flops(self) -> float:
        """FLOP of a decode step of one sequence, the least for each that the numbers of sequences need."""
        return float((self._decode[0].sum(axis=0) / self.batch).min())

    @cached_property
    def _prompt_flops(self) -> float:
        """FLOP of one prompt."""
        if self.work.prefix_len:
            return 0.0
        table = self.answer.deployed.tables["prefill"]
        return float(self._work_of(table, np.array([1]), max(self.work.input_len, 2), 0)[0].sum())

    def _work_of(self, table: OpTable, batch: np.ndarray, tokens: int, past: int):
        """([operators, batches] matrix FLOP, bytes; which are products with weights)"""
        piece = table.piece_for(max(2, int(batch[0])), tokens, past) or table.pieces[-1]
        basis = piece.basis(batch, tokens, past)
        flops, nbytes, products = [], [], []
        for row in piece.rows:
            op = operator_named(row.op)
            work = op.work({name: np.asarray(c) @ basis for name, c in row.dims.items()}, row.attrs)
            flops.append(np.broadcast_to(work.matrix_flops * row.count, basis.shape[1:]))
            nbytes.append(np.broadcast_to((work.read_bytes + work.write_bytes) * row.count, basis.shape[1:]))
            products.append(op.family in PRODUCTS)
        return np.array(flops, float), np.array(nbytes, float), np.array(products)

    @property
    def _room(self) -> float:
        room = self.hw.memory_bytes * self.answer.request.utilization * (1 - self.limits.headroom)
        return room - self.hw.reserved_bytes

    def _held(self, plan: Mapping[str, int]) -> np.ndarray:
        """Bytes of weights and caches on a rank, for every batch."""
        ranks = {"tp": plan["tp"], "experts": plan["tp"] * plan["dp"]}
        pipeline = Pipeline(plan["pp"], layers=self.facts.layers)
        weights = [replace(g, nbytes=ceil(g.nbytes / ranks.get(g.split, 1))) for g in self.facts.weights]
        total = sum(stage_weights(weights, pipeline, stage) for stage in range(plan["pp"])) / plan["pp"]
        length = self.work.input_len + self.work.output_len
        cache = sum(c.nbytes(length) / (plan["tp"] if c.split else 1) for c in self.facts.caches) / self.dcp
        return (total + self.batch / plan["dp"] * cache / plan["pp"]) * SLACK
