"""Many configurations of a served model: `batch` clients at all times, prompts and running sequences mixed.

TTFT and TPOT are those of the steady state in serving/steady.py, whose docstring has the formulas. A client asks again
when it has its answer, so that it takes L = TTFT + (O - 1) TPOT seconds for O tokens, and `batch` clients together

    tokens_per_s = batch O / L

Memory: the weights, the caches of all clients' whole sequences, and the activations of the largest step: a decode step
of all sequences, or as many whole prompts (or so long a part of one) as a step takes (`Engine.step_tokens`, `--chunk`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tensorcast.errors import InputError
from tensorcast.search.evaluation.capacity import Capacity
from tensorcast.search.evaluation.cases import PROMPT, Cases, Passes, Shape
from tensorcast.search.evaluation.grid import Grid


@dataclass(frozen=True)
class ServedShape(Shape):
    """Passes of steps that take `step_tokens` tokens of prompts at most."""

    step_tokens: int = 8192

    def last_passes(self, phase: str, cases: Cases) -> Passes:
        if phase not in PROMPT:
            return super().last_passes(phase, cases)
        most = np.where(cases.chunk > 0, cases.chunk, self.step_tokens)
        tokens = np.minimum(most, cases.input_len)
        batch = np.clip(most // cases.input_len, 1, self.pass_batch(cases))
        past = cases.input_len - tokens
        case = np.arange(len(cases))
        table = np.where(past == 0, "prefill", np.where(tokens > 1, "chunked", "decode"))
        return Passes(case, table, batch, tokens, past)


class ServedGrid(Grid):
    """Figures under load."""

    def _shape(self) -> Shape:
        return ServedShape(self.request.plan, self.request.work, self.request.engine.step_tokens)

    def _memory(self, cases: Cases) -> dict[str, np.ndarray]:
        return Capacity(self.answer, self.shape).columns(cases)

    def _metrics(self, cases: Cases) -> dict[str, np.ndarray]:
        if cases.prefix_len.any():
            raise InputError("--prefix-len: not under load; --mode static takes it")
        found = self._under_load(cases, cases.batch)
        latency = found.ttft_s + found.tpot_s * (cases.output_len - 1)
        rate = cases.batch * cases.output_len / latency
        return {
            "ttft_s": found.ttft_s,
            "tpot_s": found.tpot_s,
            "request_latency_s": latency,
            "tokens_per_s": rate,
            "tokens_per_s_per_device": rate / self.request.plan.devices,
            "tokens_per_s_per_user": 1 / found.tpot_s,
        }
