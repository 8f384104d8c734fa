"""Seconds and bytes of communication between ranks.

A group of ranks is spread over the tiers of the machine's topology (`Topology.split`). Adjoining tiers of one fabric
are one flat network, for which the device has a fitted curve; fabrics are composed:

    all_reduce      reduce-scatter inside, all_reduce across on 1/inner of the data, all-gather inside
    all_gather      across on 1/inner of the result, then inside          (reduce_scatter the other way round)
    all_to_all      each peer's share over the tier that leads there, all at once: the slowest counts

`nbytes` is the full buffer as nccl-tests counts it: the gathered result of all_gather, the input of reduce_scatter and
all_reduce; for all_to_all, dispatch and combine the send buffer of one rank, own share included; for send_recv the
message. Everything is NumPy on arrays of one shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorcast.errors import DeploymentError, InputError
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.hardware.protocol import OPS, Floor, Protocol, RankRow, RankTable, TwoProtocols
from tensorcast.hardware.topology import Tier
from tensorcast.ops.collective import wire_bytes

EXCHANGES = ("all_to_all", "dispatch", "combine")


def collective_time(
    op: str, nbytes: Any, size: Any, stride: Any, hw: HardwareProfile, *, library: str = ""
) -> np.ndarray:
    """Seconds of one collective over `size` ranks whose neighbours are `stride` devices apart.

    nbytes, size and stride are numbers or arrays that broadcast. `library` chooses another curve than the device's
    default one inside the innermost fabric ("vllm", "trtllm", "sglang" for custom all_reduce kernels).
    InputError for an unknown op or negative bytes, DeploymentError for a group the machine does not connect,
    HardwareError for a library without a curve.
    """
    if op not in OPS:
        raise InputError(f"unknown collective {op!r}; one of {', '.join(OPS)}")
    nbytes, size, stride = np.broadcast_arrays(np.asarray(nbytes, float), np.asarray(size), np.asarray(stride))
    if not (np.isfinite(nbytes) & (nbytes >= 0)).all():
        raise InputError(f"{op}: nbytes must be finite and not negative")
    result = np.zeros(nbytes.shape)
    for ranks, step in {*zip(size.ravel().tolist(), stride.ravel().tolist(), strict=True)}:
        here = (size == ranks) & (stride == step)
        parts = hw.topology.split(ranks, step)
        if parts:
            result[here] = _time(op, nbytes[here], parts, int(ranks), hw, library)
    return result


def _time(op: str, b: np.ndarray, parts: list, size: int, hw: HardwareProfile, library: str) -> np.ndarray:
    if op == "send_recv":
        return _hop(b, parts[-1][0])
    networks = _networks(parts)
    limits = [_egress(tiers) for tiers in networks]
    counts = [_ranks(tiers) for tiers in networks]
    first = networks[0][0][0].fabric == hw.topology.tiers[0].fabric
    if library and (len(networks) > 1 or not first):
        raise DeploymentError(
            f"{library} {op} works inside {hw.topology.tiers[0].fabric} alone, {size} ranks reach beyond"
        )

    def flat(level: int, name: str, part: np.ndarray) -> np.ndarray:
        """Time of collective `name` over the ranks of one network alone."""
        n, link = counts[level], limits[level]
        if level == 0 and first:
            curve = hw.protocol(name, library)
            seconds = _curve(curve, name, part, n, link)
        else:
            seconds = _plain(name, part, n, link, networks[level][-1][0])
        return np.maximum(seconds, wire_bytes(name, part, n) / link)

    if op in EXCHANGES:
        return _exchange(op, b, counts, size, flat)
    return _nested(op, b, counts, 0, flat)


def _nested(op: str, b: np.ndarray, counts: list[int], level: int, flat: Callable) -> np.ndarray:
    """all_reduce, all_gather and reduce_scatter over the networks from `level` outwards."""
    if level == len(counts) - 1:
        return flat(level, op, b)
    outer = _nested(op, b / counts[level], counts, level + 1, flat)
    if op == "all_reduce":
        return flat(level, "reduce_scatter", b) + outer + flat(level, "all_gather", b)
    return flat(level, op, b) + outer


def _exchange(op: str, b: np.ndarray, counts: list[int], size: int, flat: Callable) -> np.ndarray:
    """Pairwise exchange: peers behind each network get their share of the buffer at the same time."""
    slowest, inside = np.zeros_like(b), 1
    for level, count in enumerate(counts):
        reach = min(inside * count, size)
        # `flat` sends (count-1)/count of what it is given; the peers first reached here hold (reach-inside)/size.
        share = (reach - inside) / size * count / (count - 1)
        slowest = np.maximum(slowest, flat(level, op, b * share))
        inside = reach
    return slowest


def _networks(parts: list[tuple[Tier, int]]) -> list[list[tuple[Tier, int]]]:
    """The parts of a group, adjoining tiers of one fabric together."""
    networks: list[list[tuple[Tier, int]]] = []
    for tier, ranks in parts:
        if networks and networks[-1][-1][0].fabric == tier.fabric:
            networks[-1].append((tier, ranks))
        else:
            networks.append([(tier, ranks)])
    return networks


def _ranks(tiers: list[tuple[Tier, int]]) -> int:
    return int(np.prod([ranks for _, ranks in tiers]))


def _egress(tiers: list[tuple[Tier, int]]) -> float:
    """B/s one device can send into a network: the sum over its tiers, those on shared ports counted once."""
    return sum(tier.egress(ranks) for i, (tier, ranks) in enumerate(tiers) if not (tier.shared and i))


def _hop(b: np.ndarray, tier: Tier) -> np.ndarray:
    """One message over the group's outermost tier, the slowest of a pipeline's hops."""
    return tier.latency_s + b / (tier.to_one_peer * tier.efficiency)


def _plain(op: str, b: np.ndarray, n: int, link: float, tier: Tier) -> np.ndarray:
    """Where no curve was fitted: messages in a tree's depth, bytes at the tier's efficiency."""
    depth = 1 if op in EXCHANGES else int(np.ceil(np.log2(n))) * (2 if op == "all_reduce" else 1)
    return depth * tier.latency_s + wire_bytes(op, b, n) / (link * tier.efficiency)


def _curve(curve: Protocol, op: str, b: np.ndarray, n: int, link: float) -> np.ndarray:
    if isinstance(curve, TwoProtocols):
        return _two_protocols(curve, wire_bytes(op, b, n) / link, n)
    if isinstance(curve, Floor):
        return curve.t0 + wire_bytes(op, b, n) / (link * curve.efficiency)
    return _table(curve, op, b, n)


def _two_protocols(c: TwoProtocols, wire: np.ndarray, n: int) -> np.ndarray:
    """`wire`: seconds the bytes need at link speed."""
    base = c.t0 + c.hop * (n - 1)
    low, high = base + wire / c.e1, base + c.a2 + wire / c.e2
    return (low**-4.0 + high**-4.0) ** -0.25 + c.w * np.sqrt(wire * base)


def _table(table: RankTable, op: str, b: np.ndarray, n: int) -> np.ndarray:
    rows = table.rows
    above = next((i for i, row in enumerate(rows) if row.ranks >= n), len(rows) - 1)
    if rows[above].ranks <= n or above == 0:
        return _row(rows[above], op, b, n)
    low, high = rows[above - 1], rows[above]
    weight = np.log(n / low.ranks) / np.log(high.ranks / low.ranks)
    return _row(low, op, b, n) ** (1 - weight) * _row(high, op, b, n) ** weight


def _row(row: RankRow, op: str, b: np.ndarray, n: int) -> np.ndarray:
    wire = wire_bytes(op, b, n)
    small = (row.floor**row.norm + (wire / row.bandwidth) ** row.norm) ** (1 / row.norm)
    if row.switch is None:
        return small
    return np.where(b <= row.switch, small, np.maximum(row.plateau, row.alpha + wire / row.peak))
