"""What is said of a row of a table beside its figures: the format of its products, and the ranks it talks to."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcast.hardware.profile import HardwareProfile
from tensorcast.ops import operator_named
from tensorcast.ops.base import Part, Work
from tensorcast.optable import Row


def described(row: Row, work: Work, hw: HardwareProfile) -> dict[str, Any]:
    """`math`, the format that its products are computed in; `collective`, `ranks` and `tier` as `link_of`."""
    products = {"math": row.attrs["math"]} if np.any(work.matrix_flops) else {}
    return products | (link_of(row, hw) or {})


def link_of(row: Row, hw: HardwareProfile) -> dict[str, Any] | None:
    """What a row that talks to other devices does: its collectives, over how many ranks, through which tiers.

    `tier`: the tiers of the machine's topology that the group of ranks reaches over, innermost first.
    """
    names = collectives_of(row)
    if not names:
        return None
    attrs = next(call.attrs for call in calls_of(row) if talks(call))
    tiers = hw.topology.split(attrs["size"], attrs["stride"])
    return {
        "collective": " + ".join(names),
        "ranks": int(attrs["size"]),
        "tier": " + ".join(tier.name for tier, _ in tiers),
    }


def collectives_of(row: Row) -> list[str]:
    """The collectives that a call of the row runs; a kernel may have two, and a backward pass has the conjugate."""
    return list(dict.fromkeys(call.attrs["collective"] for call in calls_of(row) if talks(call)))


def calls_of(row: Row) -> list[Part]:
    """What a row runs: itself, or the calls that a composed operator is made of. Every size is 1."""
    return _calls(Part(row.op, {name: 1.0 for name in row.dims}, row.attrs))


def _calls(part: Part) -> list[Part]:
    op = operator_named(part.op)
    if op.parts is None:
        return [part]
    found = op.parts(part.dims, part.attrs)
    return [call for inner in (*found.device, *found.links) for call in _calls(inner)]


def talks(call: Part) -> bool:
    """Whether it is a collective."""
    return operator_named(call.op).family == "collective"
