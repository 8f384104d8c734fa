"""What the device needs for one step of a served model: running sequences, prompts, or both together.

Prompts and running sequences share every product over tokens, so a step of both reads the weights once. Attention and
scans are kernels of their own for each of the two:

    decode(b, past)     = S_d(b) + A_d(b, past)
    prompt(k, n)        = S_p(k n) + A_p(k, n)
    mixed(b, past, k n) = S_p(k n + b) + A_p(k, n) + A_d(b, past)

S: operators whose work goes with the number of tokens, A: attention and scans, d and p: the model's decode and prefill
tables. Seconds; b, k sequences, n new tokens of each, past tokens in cache. With t drafts a sequence has t + 1 tokens
in a step: S_p(k n + b (t + 1)).

With p pipeline stages p groups of sequences take turns, so that one group's step is p times S + A of a stage, each of
the stage that has most of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tensorcast.cost.passes import Pipeline, Steps, count_of, rows_of
from tensorcast.cost.pricing import price
from tensorcast.deployed import DeployedModel
from tensorcast.ops import operator_named
from tensorcast.optable import OpTable

OF_A_SEQUENCE = ("attention", "mla", "scan")
"""Families of operators whose time is no function of the tokens of a step alone."""
_PROMPT = 256  # tokens of the prompt that the shared part is priced as
GRID = np.array([*range(1, 16), *(eighth << power for power in range(1, 14) for eighth in range(8, 16)), 1 << 17])
"""Tokens of a step at which shared operators are priced: 1 to 131,072, eight an octave, kernels' tiles among them."""


def points(drafts: int = 0) -> Mapping[str, list[tuple[str, Steps]]]:
    """Forward passes that the two tables must cover."""
    decode = Steps(1, (drafts + 1,), (_PROMPT,))
    return {"prefill": [("prefill", Steps(1, (_PROMPT,), (0,)))], "decode": [("decode", decode)]}


@dataclass
class StepTimes:
    """Seconds of the steps of one deployed model on one machine.

    `eager`: prompt steps run op by op, so that they take no less than the host needs for their launches. `drafts`: more
    tokens of a decode step, predicted ahead. `stages` of a pipeline, `stride` devices apart.
    """

    deployed: DeployedModel
    hw: object
    eager: bool = False
    drafts: int = 0
    stages: int = 1
    stride: int = 1

    def shared(self, phase: str) -> np.ndarray:
        """Operators that go with the tokens of a step, at every number of tokens of `GRID`."""
        one, tokens = np.ones_like(GRID), np.maximum(GRID, 2)
        if phase == "decode":
            return self._priced("decode", GRID, one * (self.drafts + 1), np.full_like(GRID, _PROMPT), alone=False)
        # As one prompt, whose head works on its last token; a table of prompts begins at two tokens.
        return self._priced("prefill", one, tokens, np.zeros_like(GRID), alone=False)

    def alone(self, phase: str, sequences, tokens=None, past=0) -> np.ndarray:
        """Attention and scans of so many sequences; in decode each has the tokens of a step."""
        tokens = self.drafts + 1 if tokens is None else tokens
        b, n, c = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (sequences, tokens, past)))
        priced = self._priced(phase, b.reshape(-1), n.reshape(-1), c.reshape(-1), alone=True)
        return priced.reshape(b.shape)

    @cached_property
    def host_s(self) -> float:
        """The least a prompt step takes: the host's time for its launches."""
        if not self.eager:
            return self.graph_s
        table = self.deployed.tables["prefill"]
        rows = (table.piece_for(1, _PROMPT, 0) or table.pieces[-1]).rows
        return sum(row.count for row in rows) * self.hw.host_op_time_s

    @property
    def graph_s(self) -> float:
        """The least a captured step takes."""
        return self.hw.graph_launch_s

    @cached_property
    def _pipeline(self) -> Pipeline:
        return Pipeline(self.stages, layers=self.deployed.facts.layers, stride=self.stride)

    def _priced(self, phase: str, batch, tokens, past, *, alone: bool) -> np.ndarray:
        """Seconds of the rows of that kind at points, each with the piece of the table that covers it.

        Of all stages, as if each took as long as the one that has most of that kind.
        """
        table, facts, pipeline = self.deployed.tables[phase], self.deployed.facts, self._pipeline
        out = np.zeros(len(batch))
        for piece, at in _by_piece(table, batch, tokens, past):
            basis = piece.basis(batch[at], tokens[at], past[at])
            seconds = np.zeros((self.stages, len(at)))
            for row in rows_of(piece, pipeline, facts.hidden, facts.dtype):
                if (operator_named(row.op).family in OF_A_SEQUENCE) == alone:
                    dims = {name: np.asarray(c) @ basis for name, c in row.dims.items()}
                    counts = np.array([count_of(row, pipeline, stage) for stage in range(self.stages)])
                    seconds += counts[:, None] * price(row, dims, self.hw)[1].seconds
            out[at] = seconds.max(axis=0) * self.stages
        return out


def _by_piece(table: OpTable, batch, tokens, past):
    """(piece, indices of the points it covers); a point that none covers goes to the last piece."""
    left = np.ones(len(batch), dtype=bool)
    for piece in table.pieces:
        here = left if piece is table.pieces[-1] else left & piece.covers_all(batch, tokens, past)
        if here.any():
            yield piece, np.flatnonzero(here)
        left = left & ~here
