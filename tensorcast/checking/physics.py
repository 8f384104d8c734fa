"""What no priced phase may say: figures that are not finite, not positive, or beyond what the machine can do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tensorcast.checking.result import Failed
from tensorcast.cost.phase import Phase
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.units import seconds

ROUNDING = 1e-9  # relative error of a sum of floats


def check_phases(phases: Mapping[str, Phase], hw: HardwareProfile) -> float:
    """Seconds of all phases; Failed where a figure is not finite, not positive, or beyond the machine."""
    for name, phase in phases.items():
        where = f"{hw.name}, {name}"
        if not (math.isfinite(phase.step_time_s) and phase.step_time_s > 0):
            raise Failed(f"{where}: a step takes {phase.step_time_s} s")
        for figure in ("mfu", "mbu"):
            if not 0 <= getattr(phase, figure) <= 1:
                raise Failed(f"{where}: {figure} is {getattr(phase, figure):.3g}")
        for op in phase.ops:
            _check_op(op, hw, where)
        device = sum(op["time_s"] for op in phase.ops)
        if phase.step_time_s < device * (1 - ROUNDING):
            raise Failed(f"{where}: operators take {seconds(device)}, the step {seconds(phase.step_time_s)}")
    return sum(phase.step_time_s for phase in phases.values())


def _check_op(op: Mapping[str, Any], hw: HardwareProfile, where: str) -> None:
    label = f"{where}, {op['op']} {op['module']}".rstrip()
    if not (math.isfinite(op["time_s"]) and op["time_s"] >= 0):
        raise Failed(f"{label}: takes {op['time_s']} s")
    moved = op["read_bytes"] + op["write_bytes"]
    least = {
        "matrix engine": op["matrix_flops"] / max(hw.peaks.values()),
        "vector units": op["vector_flops"] / max(hw.vector.values()),
        "links": op["comm_bytes"] / max(tier.bandwidth for tier in hw.topology.tiers),
        "memory": 0.0 if op["comm_bytes"] else moved / hw.memory_bw,
    }
    limit = max(least, key=least.get)
    if op["time_s"] < least[limit] * (1 - ROUNDING):
        raise Failed(f"{label}: {seconds(op['time_s'])} is less than its {limit} allow, {seconds(least[limit])}")
