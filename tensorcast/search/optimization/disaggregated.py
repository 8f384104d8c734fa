"""`optimize --mode disaggregated`: prompts on instances of one plan, the rest on instances of another.

x instances of a plan P on n_P devices compute prompts, y of a plan D on n_D devices go on with them; all together are
at most the N devices. Each instance takes one batch after the other and never waits for work. Of I prompt tokens and O
tokens out, seconds; X requests a second:

    TTFT = prefill_P(b) + transfer         R_P = min(b / prefill_P(b), link)     of one prefill instance
    TPOT = decode_D(b) / e                 R_D = min(b / (TPOT (O - 1)), link)   of one decode instance
    X    = min(x R_P, y R_D)               tokens a second and device = X O / (x n_P + y n_D): of the devices used

A rank of D fetches of every prompt what it keeps, in_D bytes; the ranks of P share in sending it: the fullest sends
out_P = (all that D's ranks of one sequence keep) x (its share of what P's keep). So with the smaller group of ranks
each sends, or takes, its part at the same time as the others. The sequences of a batch that share ranks of P, g of
them, go one after the other, after the whole prompt is there (nothing overlaps with its computation):

    transfer = latency + g max(out_P, in_D) / BW      BW: of one device to another over the tier that all devices used
    link: dp_P BW / out_P requests a second leave a prefill instance, dp_D BW / in_D reach a decode instance

Exact: for a pair of plans the batches are chosen apart, because only the rates matter once the limits are met, and X
grows with both; of those that give the same X the quickest is taken. For every x the best y is one of the two next to
x R_P / R_D, or the nearest that the devices allow: below, X / devices grows with y (y R_D / (x n_P + y n_D)), above it
falls. Of equal ratios the one on more devices is taken. A plan that misses limits takes the batch that misses least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorcast.answer import Answer
from tensorcast.errors import InputError
from tensorcast.hardware.load import hardware
from tensorcast.search.evaluation.group import Columns
from tensorcast.search.evaluation.halves import DECODE, PREFILL
from tensorcast.search.optimization.bounds import Bounds
from tensorcast.search.optimization.objective import MEMORY, TPOT, TTFT, Limits
from tensorcast.search.optimization.optimize import Candidate, Search, shown
from tensorcast.search.optimization.optimum import Row
from tensorcast.search.optimization.pairs import Pair, Side, links, message, pairs_of
from tensorcast.search.optimization.variant import NOT_BOUNDED, Variant


class PairSearch(Search):
    """Every plan is priced for both phases, then every pair of plans of one machine and precision."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sides: dict[Variant, list[Side]] = {}
        self.factors: dict[Variant, tuple[float, Mapping[str, float]]] = {}
        self.met = False

    def _bounds(self, answer: Answer, variant: Variant) -> Callable[[Mapping[str, int]], tuple[float, float]]:
        """0 for plans that meet the limits in neither phase, as far as bounds can tell."""
        if answer.work.encoder:
            raise InputError(f"--mode disaggregated: {answer.facts.name} has an encoder, which stays with its decoder")
        if answer.work.output_len < 2:
            raise InputError("--mode disaggregated: an output of 1 token needs no decode; give --output-len 2 or more")
        if self.devices < 2:
            raise InputError("--mode disaggregated: an instance of each kind takes --devices 2 or more")
        answer.hw.topology.validate(self.devices)
        headroom = self.limits.headroom
        prefill = Bounds(answer, self.batch, Limits(self.limits.ttft_s, None, headroom), **variant.within)
        prefill.work = replace(answer.work, output_len=1)  # all that it keeps of a sequence is its prompt
        decode = Bounds(answer, self.batch, Limits(None, self.limits.tpot_s, headroom), **variant.within)
        return lambda plan: max(prefill.throughput(plan), decode.throughput(plan))

    @property
    def _beat(self) -> float:
        """Only what meets no limit is left out, once something else does."""
        return 0.0 if self.met else NOT_BOUNDED

    def _reach(self, candidate: Candidate) -> float:
        """All plans of a family are priced, whatever one phase would reach with the other on the same devices."""
        return NOT_BOUNDED

    def _take(self, candidate: Candidate, columns: Columns) -> None:
        good = np.flatnonzero(columns["reason"] == "")
        if not len(good):
            self.refused[str(columns["reason"][0])] += 1
            return
        side = Side(candidate.plan, {name: values[good] for name, values in columns.items()}, self.limits)
        known = self.sides.setdefault(candidate.variant, [])
        self.factors[candidate.variant] = candidate.weight, candidate.extra
        known.append(side)
        over = self._links(candidate.variant)
        for some, others in (([side], known), (known, [side])):
            self.met = self.met or any(pair.miss == 0 for pair in pairs_of(some, others, over))

    def _links(self, variant: Variant):
        return links(hardware(variant.fixed["hw"]).topology, self.devices)

    def _finish(self) -> None:
        """The rows: all pairs, the best first, of equal ones the quickest; what binds is said of the first `top`."""
        found = []
        for variant, sides in self.sides.items():
            weight, extra = self.factors[variant]
            pairs = pairs_of(sides, sides, self._links(variant))
            found += [(_row(pair, variant, weight, extra), pair) for pair in pairs]
        found.sort(key=lambda each: (*each[0].order, -each[0].devices, each[0].figures["request_latency_s"]))
        best = [replace(row, binding=pair.binding) if row.miss == 0 else row for row, pair in found[: self.top]]
        self.rows = [*best, *(row for row, _ in found[self.top :])]
        if self.sides and not self.rows:
            raise InputError(f"--devices {self.devices}: no two instances of the degrees asked have room on them")


def _row(pair: Pair, variant: Variant, weight: float, extra: Mapping[str, float]) -> Row:
    """One pair, as options and figures. `extra`: as `Objective.figures`."""
    each, rate, pair = -pair.order[1], pair.requests_per_s, pair.relaxed()
    prefill, decode, at = pair.prefill, pair.decode, pair.first.at
    output = int(prefill.columns["output_len"][at])
    transfer, tpot = float(pair.transfer_s), float(decode.columns["tpot_s"][pair.second.at])
    ttft, each = float(prefill.columns["ttft_s"][at]) + transfer, each * output
    sides = {
        PREFILL: prefill.said(PREFILL, at, pair.x, pair.rates[0]),
        DECODE: decode.said(DECODE, pair.second.at, pair.y, pair.rates[1]),
    }
    fullest = max(sides.values(), key=lambda side: side["total_bytes"] / side["capacity_bytes"])
    memory = {name: fullest[name] for name in ("total_bytes", "capacity_bytes", "fits")}
    figures = {
        "ttft_s": ttft, "tpot_s": tpot, "request_latency_s": ttft + tpot * (output - 1), "kv_transfer_s": transfer,
        "kv_transfer_bytes": max(message(prefill, decode)), "kv_transfer_tier": pair.link.tier.name,
        "requests_per_s": rate, "tokens_per_s": rate * output, "tokens_per_s_per_device": each,
        "tokens_per_s_per_user": 1 / tpot, **memory,
        "input_len": int(prefill.columns["input_len"][at]), "output_len": output,
        **{name: factor / each for name, factor in extra.items()},
    }  # fmt: skip
    excess = {MEMORY: max(pair.first.excess[MEMORY], pair.second.excess[MEMORY])} | {
        n: c.excess[n] for n, c in ((TTFT, pair.first), (TPOT, pair.second)) if n in c.excess
    }
    machine, others = shown(variant)
    options = {**machine, **others, "ratio": f"{pair.x}:{pair.y}", **sides}
    plans = ((prefill, PREFILL), (decode, DECODE))
    asked = tuple({**variant.asked, **side.plan, "batch": sides[name]["batch"]} for side, name in plans)
    return Row(options, figures, excess, each * weight, pair.used, asked=asked)
