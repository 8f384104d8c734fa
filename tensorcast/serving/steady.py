"""Continuous batching in a steady state: a fixed number of clients, each with one request in the engine at all times.

Symbols, of one attention group: c requests in the system, prompts of I tokens, O tokens out (N = O - 1 after the
first), B the most tokens of a step; b running sequences. Seconds.

    q = ceil(I / B)                        steps of one prompt
    K = min(c, max(1, floor(B / I)))       prompts that fit into a step
    k = min(K, max(1, c / O))              prompts in a prompt step where requests come one by one
    T_d = decode(b) + h(b)                 a step of running sequences only; h: the engine's own time
    T_k = mixed(b, k I / q) + h(b) + p     a step with prompts in it (engines that mix), or prompts alone (the others)

Requests that come one by one: from its first to its last token a request sees every other's prompt once, in
s = (c / k - 1) q steps (s <= N when mixing).

    TPOT_1 = T_d + s (T_k - T_d) / N       mixing: a prompt step yields a token for each running sequence too
    TPOT_1 = T_d + s T_k / N               not mixing: these wait meanwhile
    TTFT_1 = w + q T_k + max(0, s - N) T_k with w = T_d / 2 for c > 1, else 0: the step that runs on arrival

Requests that come all at once: an engine that puts prompts first and does not mix computes all prompts before it goes
on, so that requests of equal length leave, and come, all at once again.

    TTFT_c = (c / K + 1) / 2 q T_K         the mean over the order in which they are taken
    TPOT_c = T_d + (c / K - 1) / 2 q T_K / N

With drafts, a step yields e tokens: N = (O - 1) / e steps, O = 1 + N above, and TPOT is that of a step over e. With p
pipeline stages the requests form p groups that take turns: c is that of one group, and every T that of p turns.

TPOT = (1 - v) TPOT_1 + v TPOT_c, v: the engine's share of such waves. TTFT likewise, plus e, the
engine's time for a request before its first step, and plus f (TTFT_c - TTFT_1) where that is longer: f is the share of
the first requests, which do come all at once. In the mean b = c N TPOT / (TTFT + N TPOT) sequences run; solved by
repetition from b = c. Validity: prompts of one length and outputs of one length, no prefix cache, no preemption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tensorcast.serving.engines import Engine
from tensorcast.serving.steps import GRID, StepTimes

ROUNDS = 12
FIRST_SHARE = 0.1
"""Share of a client's requests that is its first: load generators send about ten for each client."""
_SHARES = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 1.0])


@dataclass(frozen=True)
class Load:
    """What is asked of one served model: arrays, one element a case. `requests` of one attention group."""

    requests: np.ndarray
    input_len: np.ndarray
    output_len: np.ndarray
    tokens_per_step: np.ndarray | float = 1.0


@dataclass(frozen=True)
class Served:
    """Seconds to the first token and between tokens, and the mean number of running sequences."""

    ttft_s: np.ndarray
    tpot_s: np.ndarray
    running: np.ndarray


class SteadyState:
    """The step times of some loads, looked up once: to solve for one more engine is cheap."""

    def __init__(self, times: StepTimes, load: Load, step_tokens: int | np.ndarray) -> None:
        c, prompt, out = (np.asarray(v, dtype=float) for v in (load.requests, load.input_len, load.output_len))
        self.c, self.prompt = c, prompt
        self.yielded = np.broadcast_to(np.asarray(load.tokens_per_step, dtype=float), c.shape)
        self.tokens = np.full(len(c), times.drafts + 1.0)
        self.after_first = np.maximum((out - 1) / self.yielded, 1.0)
        self.steps = np.ceil(prompt / step_tokens)
        self.full = np.clip(np.floor(step_tokens / prompt), 1, c)
        self.single = np.clip(c / np.maximum(1 + (out - 1) / self.yielded, 1.0), 1, self.full)
        running = np.maximum(c[:, None] * _SHARES, 1.0)
        self.decode_alone = times.alone("decode", running, past=(prompt + out / 2)[:, None])
        self.prompt_alone = times.alone("prefill", 1, np.maximum(prompt, 2)) / self.steps
        self.full_alone = times.alone("prefill", self.full, np.maximum(prompt, 2)) / self.steps
        self.shared = {phase: np.repeat(times.shared(phase)[None], len(c), axis=0) for phase in ("decode", "prefill")}
        self.least = np.full(len(c), times.graph_s)
        self.least_prompt = np.full(len(c), times.host_s)

    @classmethod
    def joined(cls, states: Sequence[SteadyState]) -> SteadyState:
        """The cases of all states, one after the other."""
        whole = cls.__new__(cls)
        for name, value in vars(states[0]).items():
            if isinstance(value, dict):
                found = {key: np.concatenate([getattr(s, name)[key] for s in states]) for key in value}
            else:
                found = np.concatenate([getattr(s, name) for s in states])
            setattr(whole, name, found)
        return whole

    def decode(self, b) -> np.ndarray:
        """Seconds of a step of b running sequences."""
        return np.maximum(_along(GRID, self.shared["decode"], b) + self._attention(b), self.least)

    def prompts(self, k, b=0.0) -> np.ndarray:
        """Seconds of a step of k prompts, or of a part of each, beside b running sequences."""
        share = np.where(self.full > 1, (k - 1) / np.maximum(self.full - 1, 1e-9), 0.0)
        alone = self.prompt_alone + share * (self.full_alone - self.prompt_alone)
        shared = _along(GRID, self.shared["prefill"], k * self.prompt / self.steps + b * self.tokens)
        return np.maximum(shared + alone + np.where(np.asarray(b) > 0, self._attention(b), 0.0), self.least_prompt)

    def _attention(self, b) -> np.ndarray:
        """Decode attention of b sequences."""
        return _along(_SHARES, self.decode_alone, b / self.c)

    def solve(self, engine: Engine, first_share: float = FIRST_SHARE) -> Served:
        """The steady state under an engine."""
        b, n = self.c, self.after_first
        for _ in range(ROUNDS):
            step = self.decode(b) + engine.step_overhead(b)
            ttft, tpot = self._one_by_one(engine, step, b)
            burst, burst_tpot = self._at_once(engine, step)
            tpot = tpot + engine.waves * (burst_tpot - tpot)
            ttft = ttft + engine.waves * (burst - ttft)
            ttft = engine.request_s + ttft + first_share * np.maximum(burst - ttft, 0.0)
            b = 0.5 * b + 0.5 * np.clip(self.c * n * tpot / (ttft + n * tpot), 1.0, self.c)
        return Served(ttft, tpot / self.yielded, b)

    def _one_by_one(self, engine: Engine, step, b):
        """(time to the first token, between tokens) when requests come one by one."""
        k, n = self.single, self.after_first
        busy = self._prompt_step(engine, k, b)
        seen = np.maximum(self.c / k - 1, 0.0) * self.steps
        if engine.mixes:
            tpot = step + np.minimum(seen / n, 1.0) * (busy - step)
        else:
            tpot = step + seen * busy / n
        wait = np.where(self.c > 1, step / 2, 0.0)
        late = np.maximum(seen - n, 0.0) * busy if engine.mixes else 0.0
        return wait + self.steps * busy + late, tpot

    def _at_once(self, engine: Engine, step):
        """The same when all come at once."""
        groups = self.c / self.full
        busy = self.steps * (self.prompts(self.full) + engine.step_overhead(self.full) + engine.prompt_step_s)
        return (groups + 1) / 2 * busy, step + (groups - 1) / 2 * busy / self.after_first

    def _prompt_step(self, engine: Engine, k, b) -> np.ndarray:
        beside = np.maximum(b - k, 0.0) if engine.mixes else 0.0
        return self.prompts(k, beside) + engine.step_overhead(np.maximum(beside, k)) + engine.prompt_step_s


def under_load(times: StepTimes, load: Load, chunk, engine: Engine) -> Served:
    """One deployed model with the clients of an attention group; steps of `chunk` tokens where that is not 0.

    `load.requests` are those of all pipeline stages' groups together.
    """
    group = replace(load, requests=np.ceil(np.asarray(load.requests) / times.stages))
    return SteadyState(times, group, np.where(np.asarray(chunk) > 0, chunk, engine.step_tokens)).solve(engine)


def _along(grid, tables, x) -> np.ndarray:
    """Row by row of `tables` [cases, grid], the value at x [cases], along straight lines; flat beyond the ends."""
    x = np.broadcast_to(np.clip(x, grid[0], grid[-1]), len(tables))
    right = np.clip(np.searchsorted(grid, x), 1, len(grid) - 1)
    share = (x - grid[right - 1]) / (grid[right] - grid[right - 1])
    rows = np.arange(len(tables))
    return (1 - share) * tables[rows, right - 1] + share * tables[rows, right]
