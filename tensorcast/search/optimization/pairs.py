"""Pairs of plans that pass KV caches on: the best batches, what the link between them carries, and how many of each.

disaggregated.py has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tensorcast.hardware.topology import Tier, Topology
from tensorcast.search.evaluation.halves import DECODE, PREFILL
from tensorcast.search.optimization.objective import MEMORY, TPOT, TTFT, Limits
from tensorcast.search.optimization.optimum import held_back, plain
from tensorcast.search.optimization.plans import devices_of

LINK = "KV transfer"
ROUNDED = 1 - 1e-12


@dataclass(frozen=True)
class Link:
    """One device to another, over the tier that `least` to `most` devices span; bytes a second, seconds."""

    tier: Tier
    least: int
    most: int

    @property
    def bandwidth(self) -> float:
        return self.tier.to_one_peer * self.tier.efficiency

    def seconds(self, nbytes):
        return self.tier.latency_s + nbytes / self.bandwidth


def links(topology: Topology, devices: int) -> list[Link]:
    """One for each number of devices up to `devices`, two at least; DeploymentError where the machine has fewer."""
    topology.validate(devices)
    out, least = [], 2
    for tier in topology.tiers:
        if least <= devices:
            out.append(Link(tier, least, min(tier.devices, devices)))
            least = tier.devices + 1
    return out


@dataclass(frozen=True)
class Choice:
    """A batch of one side: its position, requests a second of an instance, and by how much it misses which limit."""

    at: int
    rate: float
    excess: Mapping[str, float]
    rates: np.ndarray
    all_excess: Mapping[str, np.ndarray]

    @classmethod
    def best(cls, rates: np.ndarray, excess: Mapping[str, np.ndarray]) -> Choice:
        miss = np.maximum(np.max(list(excess.values()), axis=0), 0.0)
        at = int(np.lexsort((-rates, miss))[0])
        return cls(at, float(rates[at]), {name: float(v[at]) for name, v in excess.items()}, rates, excess)

    @property
    def miss(self) -> float:
        return max(0.0, *self.excess.values())

    def quickest(self, seconds: np.ndarray, rate: float) -> Choice:
        """The batch of the least `seconds` that still gives `rate`, and misses limits no more."""
        miss = np.maximum(np.max(list(self.all_excess.values()), axis=0), 0.0)
        good = (self.rates >= min(rate, self.rate) * ROUNDED) & (miss <= miss[self.at])
        at = int(np.flatnonzero(good)[np.argmin(seconds[good])])
        excess = {name: float(values[at]) for name, values in self.all_excess.items()}
        return Choice(at, float(self.rates[at]), excess, self.rates, self.all_excess)


@dataclass(frozen=True)
class Side:
    """A plan and its figures for every batch that it takes."""

    plan: Mapping[str, int]
    columns: Mapping[str, np.ndarray]
    limits: Limits

    @cached_property
    def devices(self) -> int:
        return devices_of(self.plan)

    @cached_property
    def dp(self) -> int:
        return self.plan["dp"]

    @cached_property
    def kept(self) -> tuple[float, float]:
        """Bytes of one prompt: on the fullest rank, and on all that share a sequence."""
        return float(self.columns["prompt_bytes"][0]), float(self.columns["group_prompt_bytes"][0])

    @cached_property
    def as_decode(self) -> Choice:
        tpot, more = self.columns["tpot_s"], self.columns["output_len"] - 1
        excess = {MEMORY: self._memory(DECODE)}
        if self.limits.tpot_s is not None:
            excess[TPOT] = tpot / self.limits.tpot_s - 1
        return Choice.best(self.columns["batch"] / (tpot * more), excess)

    def as_prefill(self, link: Link, message: float) -> Choice:
        """The best batch where each sequence takes the link for `message` bytes."""
        excess = {MEMORY: self._memory(PREFILL)}
        if self.limits.ttft_s is not None:
            ttft = self.columns["ttft_s"] + link.seconds(self.sequences * message)
            excess[TTFT] = ttft / self.limits.ttft_s - 1
        return Choice.best(self.columns["batch"] / self.columns["ttft_s"], excess)

    @cached_property
    def sequences(self) -> np.ndarray:
        """Those of a batch that share ranks."""
        return np.ceil(self.columns["batch"] / self.dp)

    def _memory(self, phase: str) -> np.ndarray:
        room = self.columns[f"{phase}_capacity_bytes"] * (1 - self.limits.headroom)
        return self.columns[f"{phase}_total_bytes"] / room - 1

    def said(self, phase: str, at: int, instances: int, rate: float) -> dict[str, Any]:
        """One instance, as plain values."""
        start = f"{phase}_"
        own = {name.removeprefix(start): values for name, values in self.columns.items() if name.startswith(start)}
        memory = {name: plain(name, values[at].item()) for name, values in own.items()}
        return {
            **self.plan, "batch": int(self.columns["batch"][at]), "instances": instances,
            "instance_devices": self.devices, "requests_per_s": rate, **memory,
        }  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """x instances of `prefill` and y of `decode`, with their batches, over a link."""

    prefill: Side
    decode: Side
    link: Link
    first: Choice
    second: Choice
    x: int
    y: int

    @property
    def used(self) -> int:
        return self.x * self.prefill.devices + self.y * self.decode.devices

    @property
    def miss(self) -> float:
        return max(self.first.miss, self.second.miss)

    @property
    def rates(self) -> tuple[float, float]:
        """Requests a second of a prefill and of a decode instance, no more than its links carry."""
        return capped(self.prefill, self.decode, self.link, self.first.rate, self.second.rate)

    @property
    def requests_per_s(self) -> float:
        return min(self.x * self.rates[0], self.y * self.rates[1])

    @property
    def transfer_s(self) -> float:
        """Until the last sequence of a prefill batch is where it goes on."""
        return self.link.seconds(self.prefill.sequences[self.first.at] * max(message(self.prefill, self.decode)))

    def relaxed(self) -> Pair:
        """The same with the quickest batches: a side that is faster than the other needs no larger one."""
        need = self.requests_per_s
        first = self.first.quickest(self.prefill.columns["ttft_s"], need / self.x)
        return replace(self, first=first, second=self.second.quickest(self.decode.columns["tpot_s"], need / self.y))

    @property
    def order(self) -> tuple[float, float, int]:
        """The smaller, the better; what differs by rounding is equal."""
        return self.miss, -float(f"{self.requests_per_s / self.used:.12e}"), -self.used

    @property
    def binding(self) -> str:
        """What keeps the slower side from being faster: a limit, the link, or nothing that was asked."""
        slower = 0 if self.x * self.rates[0] <= self.y * self.rates[1] else 1
        choice = (self.first, self.second)[slower]
        if self.rates[slower] < choice.rate:
            return LINK
        return held_back(choice.all_excess, choice.rates, choice.at)


def message(prefill: Side, decode: Side) -> tuple[float, float]:
    """Bytes of one request: (the fullest prefill rank sends, the fullest decode rank takes)."""
    (rank, group), (into, all_of_them) = prefill.kept, decode.kept
    return (all_of_them * rank / group if group else 0.0), into


def capped(prefill: Side, decode: Side, link: Link, first: float, second: float) -> tuple[float, float]:
    """Rates of both sides that the link carries."""
    out, into = message(prefill, decode)
    return (
        min(first, prefill.dp * link.bandwidth / out) if out else first,
        min(second, decode.dp * link.bandwidth / into) if into else second,
    )


def best_ratio(first: float, n_first: int, second: float, n_second: int, link: Link) -> tuple[int, int] | None:
    """(x, y) with the most min(x first, y second) / (x n_first + y n_second) on `link.least` to `link.most` devices."""
    x = np.arange(1, (link.most - n_second) // n_first + 1)
    left = link.most - x * n_first
    low, high = np.maximum(1, -(-(link.least - x * n_first) // n_second)), left // n_second
    x, low, high = (values[low <= high] for values in (x, low, high))
    if not len(x):
        return None
    even = np.minimum(x * first / second, link.most)
    y = np.concatenate([np.clip(near(even).astype(int), low, high) for near in (np.floor, np.ceil)])
    x = np.concatenate([x, x])
    used = x * n_first + y * n_second
    value = np.minimum(x * first, y * second) / used
    at = np.lexsort((-used, -np.round(value / value.max(), 12)))[0]
    return int(x[at]), int(y[at])


def pairs_of(prefill: Iterable[Side], decode: Iterable[Side], links: Iterable[Link]) -> Iterator[Pair]:
    """Of every two plans, which may be the same, the best batches, link and ratio."""
    decode, links = list(decode), list(links)
    for first in prefill:
        chosen: dict[tuple[Link, float], Choice] = {}
        for second in decode:
            found = [pair for link in links if (pair := _pair(first, second, link, chosen)) is not None]
            if found:
                yield min(found, key=lambda pair: pair.order)


def _pair(prefill: Side, decode: Side, link: Link, chosen: dict[tuple[Link, float], Choice]) -> Pair | None:
    key = link, max(message(prefill, decode))
    if key not in chosen:
        chosen[key] = prefill.as_prefill(*key)
    first, second = chosen[key], decode.as_decode
    rates = capped(prefill, decode, link, first.rate, second.rate)
    ratio = best_ratio(rates[0], prefill.devices, rates[1], decode.devices, link)
    return None if ratio is None else Pair(prefill, decode, link, first, second, *ratio)
