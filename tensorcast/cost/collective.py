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
from tensorcast.hardware.protocol import MOST_RANKS, OPS, Floor, Protocol, RankRow, RankTable, Shots, TwoProtocols
from tensorcast.hardware.topology import Tier
from tensorcast.ops.collective import wire_bytes

EXCHANGES = ("all_to_all", "dispatch", "combine")
BEST = "best"
EAGER = "_eager"  # ending of a library's curve for calls outside of captured graphs
_INSTANT = 1e-12  # seconds, where a curve says 0: ratios of times stay defined
_BLOCK = 16384  # calls evaluated at once: they stay in the processor's cache


def collective_time(
    op: str, nbytes: Any, size: Any, stride: Any, hw: HardwareProfile, *, library: str = ""
) -> np.ndarray:
    """Seconds of one collective over `size` ranks whose neighbours are `stride` devices apart.

    nbytes, size and stride are numbers or arrays that broadcast. `library` chooses another curve than the device's
    default one inside the innermost fabric ("vllm", "trtllm", "sglang" for custom all_reduce kernels); "best" takes for
    every size the fastest of all that the device has in captured graphs, the default one included, as engines do that
    use their own kernel for small messages; groups beyond that fabric are then served by the default one.
    InputError for an unknown op or negative bytes, DeploymentError for a group the machine does not connect,
    HardwareError for a library without a curve.
    """
    if op not in OPS:
        raise InputError(f"unknown collective {op!r}; one of {', '.join(OPS)}")
    nbytes, size, stride = np.asarray(nbytes, float), np.asarray(size), np.asarray(stride)
    if nbytes.size and not (np.isfinite(nbytes.sum()) and nbytes.min() >= 0):
        if not (np.isfinite(nbytes) & (nbytes >= 0)).all():
            raise InputError(f"{op}: nbytes must be finite and not negative")
    if size.ndim == stride.ndim == 0:  # one group for all
        price = _pricer(op, size.item(), stride.item(), hw, library)
        return _in_blocks(price, nbytes.reshape(-1)).reshape(nbytes.shape)
    nbytes, size, stride = np.broadcast_arrays(nbytes, size, stride)
    pricers: dict[tuple, Callable] = {}

    def mixed(b: np.ndarray, n: np.ndarray, step: np.ndarray) -> np.ndarray:
        return _mixed(b, n, step, pricers, lambda *group: _pricer(op, *group, hw, library))

    return _in_blocks(mixed, nbytes.reshape(-1), size.reshape(-1), stride.reshape(-1)).reshape(nbytes.shape)


def _in_blocks(price: Callable[..., np.ndarray], *columns: np.ndarray) -> np.ndarray:
    result = np.empty(len(columns[0]))
    for at in range(0, len(result), _BLOCK):
        part = slice(at, at + _BLOCK)
        result[part] = price(*(column[part] for column in columns))
    return result


def _mixed(b: np.ndarray, n: np.ndarray, step: np.ndarray, pricers: dict[tuple, Callable], pricer) -> np.ndarray:
    """Seconds of calls over several kinds of groups; `pricers` remembers those met before."""
    result, priced = np.full(b.shape, np.nan), 0
    one_step = bool((step == step[0]).all())

    def price(group: tuple) -> int:
        mine = n == group[0]
        rows = np.flatnonzero(mine if one_step and step[0] == group[1] else mine & (step == group[1]))
        if rows.size:
            result[rows] = pricers[group](b.take(rows))
        return rows.size

    for group in pricers:
        priced += price(group)
    while priced < b.size:
        first = int(np.argmax(np.isnan(result)))
        group = n[first].item(), step[first].item()
        pricers[group] = pricer(*group)
        priced += price(group)
    return result


def _pricer(op: str, size, stride, hw: HardwareProfile, library: str) -> Callable[[np.ndarray], np.ndarray]:
    """Bytes → seconds of `op` over one kind of group."""
    parts = hw.topology.split(size, stride)
    if not parts:
        return np.zeros_like
    if op == "send_recv":
        return lambda b: _hop(b, parts[-1][0])
    size, networks = int(size), _networks(parts)
    limits = [_egress(tiers) for tiers in networks]
    counts = [_ranks(tiers) for tiers in networks]
    first = networks[0][0][0].fabric == hw.topology.tiers[0].fabric
    if library not in ("", BEST) and (len(networks) > 1 or not first):
        raise DeploymentError(
            f"{library} {op} works inside {hw.topology.tiers[0].fabric} alone, {size} ranks reach beyond"
        )

    def flat(level: int, name: str, part: np.ndarray) -> np.ndarray:
        """Time of collective `name` over the ranks of one network alone."""
        n, link = counts[level], limits[level]
        wire = part * (wire_bytes(name, 1.0, n) / link)
        if level == 0 and first:
            seconds = _inside(name, part, wire, n, link, hw, library)
        else:
            seconds = _plain(name, wire, n, networks[level][-1][0])
        return np.maximum(seconds, wire)

    if op in EXCHANGES:
        return lambda b: _exchange(op, b, counts, size, flat)
    return lambda b: _nested(op, b, counts, 0, flat)


def _inside(op: str, b, wire, n: int, link: float, hw: HardwareProfile, library: str) -> np.ndarray:
    """Seconds inside the innermost fabric, with the curve of one library or the fastest of all."""
    if library not in ("", BEST):
        curve = hw.protocol(op, library)
        default = _curve(hw.protocol(op), op, b, wire, n) if isinstance(curve, Shots) else None
        return _curve(curve, op, b, wire, n, default)
    seconds = default = _curve(hw.protocol(op), op, b, wire, n)
    if library == BEST:
        for key, other in hw.collective.items():
            if key.startswith(f"{op}/") and not key.endswith(EAGER):
                seconds = np.minimum(seconds, _curve(other, op, b, wire, n, default))
    return seconds


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


def _plain(op: str, wire: np.ndarray, n: int, tier: Tier) -> np.ndarray:
    """Where no curve was fitted: messages in a tree's depth, bytes at the tier's efficiency."""
    depth = 1 if op in EXCHANGES else int(np.ceil(np.log2(n))) * (2 if op == "all_reduce" else 1)
    return depth * tier.latency_s + wire / tier.efficiency


def _curve(curve: Protocol, op: str, b: np.ndarray, wire: np.ndarray, n: int, default=None) -> np.ndarray:
    """Seconds of one curve. wire: those the bytes need at link speed; default: those of the device's default library,
    for kernels that hand over to it."""
    if isinstance(curve, TwoProtocols):
        return two_protocols(curve, b, wire, n)
    if isinstance(curve, Shots):
        return shots(curve, b, wire, n, default)
    if isinstance(curve, Floor):
        return curve.t0 + wire / curve.efficiency
    return _table(curve, op, b, n)


def two_protocols(c: TwoProtocols, b: np.ndarray, wire: np.ndarray, n: int) -> np.ndarray:
    """Seconds of buffers of `b` bytes; `wire`: seconds their bytes need at link speed."""
    grown = min(n, MOST_RANKS) / 2
    base = max(c.t0 + c.hop * (n - 1), _INSTANT)
    if c.step:
        base = base * (1 + c.step) - base * c.step * c.at / (b + c.at)
    low = wire * (1 / (c.e1 * grown**c.low)) + base
    high = wire * (1 / (c.e2 * grown**c.high)) + (base + c.a2 * grown**c.late)
    seconds = low * high / np.cbrt(_cube(low) + _cube(high))
    return seconds + c.w * np.sqrt(wire * base) if c.w else seconds


def shots(c: Shots, b: np.ndarray, wire: np.ndarray, n: int, default: np.ndarray) -> np.ndarray:
    """Seconds of an engine's own all_reduce; `default`: of the library it hands large buffers over to."""
    base, grown = max(c.t0 + c.hop * (n - 1), _INSTANT), n / 2
    one = wire * (grown / (c.e1 * grown**c.low)) + base  # every rank reads n - 1 whole buffers: n/2 times the bytes
    two = wire * (1 / (c.e2 * grown**c.high)) + (base + c.a2)
    ratio = np.minimum(one, two) / np.maximum(one, two)
    own = np.minimum(one, two) / np.cbrt(np.cbrt(1 + _cube(_cube(ratio))))
    if c.w:
        own = own + c.w * np.sqrt(wire * base)
    if c.host:
        own = np.cbrt(_cube(own) + c.host**3)
    return np.where(b <= c.limit(n), own, c.beyond * default)


def _cube(x: np.ndarray) -> np.ndarray:
    return x * x * x


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
    small = row.floor + wire / row.bandwidth if row.norm == 1 else _rounded(row.floor, wire / row.bandwidth, row.norm)
    if row.switch is None:
        return small
    return np.where(b <= row.switch, small, np.maximum(row.plateau, row.alpha + wire / row.peak))


def _rounded(floor: float, wire: np.ndarray, norm: float) -> np.ndarray:
    """(floor^norm + wire^norm)^(1/norm)"""
    return (floor**norm + wire**norm) ** (1 / norm)
