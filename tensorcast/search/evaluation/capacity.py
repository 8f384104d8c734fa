"""Memory of many configurations of one deployed model at once, and the most sequences and tokens that fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorcast.answer import Answer
from tensorcast.deployed import CROSS
from tensorcast.memory import stage_cache, stage_weights
from tensorcast.plan import MOST_SEQUENCES, MOST_STEPS, MOST_TOKENS
from tensorcast.search.evaluation.cases import Cases, Shape, distinct
from tensorcast.search.evaluation.pricing import Missing

PARTS = ("weights_bytes", "kv_cache_bytes", "activation_peak_bytes", "workspace_bytes", "reserved_bytes")


class Capacity:
    """`Answer.memory_dict` for columns of configurations."""

    def __init__(self, answer: Answer, shape: Shape) -> None:
        self.answer, self.shape = answer, shape
        self.pipeline = answer.pipeline()

    def columns(self, cases: Cases) -> dict[str, np.ndarray]:
        """Bytes of the fullest device by kind, and whether they fit."""
        found = self._memory(cases)
        self._require(cases, np.isnan(found["activation_peak_bytes"]))
        total = sum(found.values())
        capacity = self.answer.hw.memory_bytes * cases.share
        return {name: np.rint(value) for name, value in found.items()} | {
            "total_bytes": np.rint(total),
            "capacity_bytes": np.rint(capacity),
            "fits": total <= capacity,
        }

    def most(self, cases: Cases) -> dict[str, np.ndarray]:
        """The most sequences, and the most tokens of each, that fit; NaN: not known."""
        lengths = ("input_len", "output_len", "prefix_len", "chunk", "max_model_len", "share")
        batches = ("batch", "output_len", "prefix_len", "chunk", "share")
        return {
            "max_batch": self._largest(self._with_batch, cases, lengths),
            "max_context": self._largest(self._with_context, cases, batches, context=True),
        }

    def _require(self, cases: Cases, unknown: np.ndarray, *, absent: bool = False) -> None:
        """Missing: passes of configurations whose footprint no table tells; `absent`: for want of the whole table."""
        if not unknown.any():
            return
        points = []
        for phase in self.shape.work.phases:
            passes = self.shape.last_passes(phase, cases.at(np.flatnonzero(unknown)))
            found = zip(passes.table, passes.batch, passes.tokens, passes.past, strict=True)
            points += [(str(table), (int(b), int(t), int(p))) for table, b, t, p in found]
        if absent:  # one point each: where its sizes are polynomials the table reaches all others
            points = list({name: (name, at) for name, at in points if name not in self.answer.deployed.tables}.values())
        if points:
            raise Missing(list(dict.fromkeys(points)))

    def _memory(self, cases: Cases) -> dict[str, np.ndarray]:
        weights, cache = self._held(cases)
        peak, workspace = self._footprints(cases)
        reserved = np.full(len(cases), float(self.answer.hw.reserved_bytes))
        return dict(zip(PARTS, (weights, cache, peak, workspace, reserved), strict=True))

    def _held(self, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        """(weights, KV cache and states) of the stage that holds most."""
        facts, work = self.answer.facts, self.shape.work
        new = cases.output_len + work.mtp
        tokens = np.where(cases.max_model_len > 0, cases.max_model_len, cases.input_len + new)
        caches, sequences, across = facts.caches, self.shape.group_batch(cases), 0.0
        if work.encoder:  # what the encoder read is kept apart from the decoder's own tokens
            across = sum(c.nbytes(cases.input_len) * sequences for c in caches if c.kind == CROSS)
            tokens, caches = new, [c for c in caches if c.kind != CROSS]
        stages = range(self.pipeline.stages)
        weights = np.array([stage_weights(facts.weights, self.pipeline, stage) for stage in stages], dtype=float)
        cache = np.array(
            [
                np.broadcast_to(stage_cache(caches, self.pipeline, stage, [(sequences, tokens)]), len(cases))
                for stage in stages
            ]
        )
        fullest = np.argmax(weights[:, None] + cache, axis=0)
        return weights[fullest], cache[fullest, np.arange(len(cases))] + across

    def _footprints(self, cases: Cases) -> tuple[np.ndarray, np.ndarray]:
        """(activation peak, workspace) over all passes; NaN where a table does not reach."""
        peak, workspace = np.zeros(len(cases)), np.zeros(len(cases))
        for phase in self.shape.work.phases:
            passes = self.shape.last_passes(phase, cases)
            first, which = distinct(passes.batch, passes.tokens, passes.past)
            names = passes.table[first]
            found = np.empty((2, len(first)))
            for name in np.unique(names):
                here = names == name
                at = first[here]
                found[:, here] = self.answer.footprints.at(
                    str(name), passes.batch[at], passes.tokens[at], passes.past[at]
                )
            with np.errstate(invalid="ignore"):
                for whole, values in zip((peak, workspace), found, strict=True):
                    np.maximum.at(whole, passes.case, values[which])
        return peak, workspace

    # -- what would fit ------------------------------------------------------------------------------------------------

    def _with_batch(self, cases: Cases, batch: np.ndarray) -> Cases:
        return cases.with_(batch=batch)

    def _with_context(self, cases: Cases, tokens: np.ndarray) -> Cases:
        """`tokens` a sequence: the prompt has what the output leaves, two tokens at least."""
        work = self.shape.work
        prompt = np.maximum(tokens - cases.output_len - work.mtp, cases.prefix_len + 2)
        return cases.with_(input_len=tokens if work.encoder else prompt, max_model_len=tokens)

    def _largest(self, change: Callable, cases: Cases, names: tuple[str, ...], context: bool = False) -> np.ndarray:
        """For each configuration the largest number that fits, with `change`; 0: not even 1; NaN: not known.

        The numbers tried are those of `memory.largest`.
        """
        first, which = cases.distinct(*names)
        asked = cases.at(first)
        most = np.full(len(asked), MOST_SEQUENCES)
        if context:
            longest = self.answer.facts.max_positions or MOST_TOKENS
            most = np.minimum(longest, np.where(asked.chunk > 0, asked.chunk, longest) * MOST_STEPS)
        known = np.ones(len(asked), dtype=bool)
        low, high = np.zeros(len(asked), dtype=np.int64), np.ones(len(asked), dtype=np.int64)

        def fits(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
            part = change(asked.at(rows), numbers)
            total = sum(self._memory(part).values())
            unknown = np.isnan(total)
            self._require(part, unknown, absent=True)
            known[rows[unknown]] = False
            return total <= self.answer.hw.memory_bytes * part.share

        growing = np.arange(len(asked))
        while len(growing := growing[(high[growing] <= most[growing]) & known[growing]]):
            growing = growing[fits(growing, high[growing])]
            low[growing] = high[growing]
            high[growing] *= 2
        high = np.minimum(high, most + 1)
        while len(rows := np.flatnonzero((high - low > 1) & known)):
            middle = (low[rows] + high[rows]) // 2
            good = fits(rows, middle)
            low[rows[good]], high[rows[~good]] = middle[good], middle[~good]
        return np.where(known, low, np.nan)[which]
