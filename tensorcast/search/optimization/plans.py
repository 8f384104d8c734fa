"""Parallel plans that a number of devices allows, for one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import gcd

from tensorcast.deployed import ModelFacts
from tensorcast.plan import divisors

DEGREES = ("tp", "pp", "dp", "ep")


def candidate_plans(
    facts: ModelFacts, devices: int, near: int, asked: Mapping[str, Sequence[int]] = {}
) -> Iterator[dict[str, int]]:
    """Every plan of an instance of which copies fill `devices` exactly: degrees by name.

    `asked` limits degrees to values. Those that are not asked take: `tp` what the model's heads allow, up to `near`
    devices, those of a server or rack (engines do not sum over slower links); `pp` what its layers allow; `dp` whatever
    is left, for models with routed experts (copies of a dense model are instances of their own, which share nothing);
    `ep` as many of the tp x dp ranks as the experts can be spread over, and 1 too where dp is 1 (with several attention
    groups, engines cut experts into parts only for want of experts).
    """
    for size in divisors(devices):
        for tp in asked.get("tp") or [tp for tp in facts.tp_values if tp <= near]:
            for pp in asked.get("pp") or divisors(size):
                if size % (tp * pp) or pp > max(facts.layers, 1):
                    continue
                dp = size // (tp * pp)
                if dp not in (asked.get("dp") or ((dp,) if facts.experts else (1,))):
                    continue
                for ep in asked.get("ep") or _expert_degrees(facts, tp, dp):
                    if (tp * dp) % ep == 0 and (ep == 1 or (facts.experts and facts.experts % ep == 0)):
                        yield {"tp": tp, "pp": pp, "dp": dp, "ep": ep}


def _expert_degrees(facts: ModelFacts, tp: int, dp: int) -> tuple[int, ...]:
    if not facts.experts:
        return (1,)
    most = gcd(tp * dp, facts.experts)
    return (1, most) if dp == 1 < most else (most,)


def devices_of(plan: Mapping[str, int]) -> int:
    """Devices of one instance."""
    return plan["tp"] * plan["pp"] * plan["dp"]
