"""What is said of a row of a table beside its figures: the format of its products, and the ranks it talks to."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorcast.hardware.profile import HardwareProfile
from tensorcast.ops import operator_named
from tensorcast.ops.base import Work
from tensorcast.optable import Row


def described(row: Row, work: Work, hw: HardwareProfile) -> dict[str, Any]:
    """`math`, the format that its products are computed in; `collective`, `ranks` and `tier` as `link_of`."""
    products = {"math": row.attrs["math"]} if np.any(work.matrix_flops) else {}
    return products | (link_of(row, hw) or {})


def link_of(row: Row, hw: HardwareProfile) -> dict[str, Any] | None:
    """What a row that talks to other devices does: its collective, over how many ranks, through which tiers.

    `tier`: the tiers of the machine's topology that the group of ranks reaches over, innermost first.
    """
    op, attrs = operator_named(row.op), row.attrs
    if op.parts is not None:
        links = op.parts({name: 1.0 for name in row.dims}, attrs).links
        attrs = links[0].attrs if links else {}
    if "collective" not in attrs:
        return None
    tiers = hw.topology.split(attrs["size"], attrs["stride"])
    return {
        "collective": attrs["collective"],
        "ranks": int(attrs["size"]),
        "tier": " + ".join(tier.name for tier, _ in tiers),
    }
