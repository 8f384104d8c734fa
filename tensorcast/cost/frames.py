"""Price measured tables: the same functions that price `simulate`, on the tables' own columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tensorcast.cost.pricing import time_of
from tensorcast.cost.tables import Table, check_frame, groups, table
from tensorcast.errors import HardwareError, InputError
from tensorcast.formats import MATHS
from tensorcast.hardware.coefficient import Coefficient


def predict(family: str, frame, hw) -> np.ndarray:
    """Seconds of every row of `frame`, a table of kernel calls, on the machine `hw` (profile, name or file).

    family: gemm, bmm, attention_prefill, attention_decode, attention_encoder, mla_prefill, mla_decode,
    mla_module_prefill, mla_module_decode, moe, moe_all_to_all_deepep, collective, quantize, linear_attention. `frame`
    has the columns of that table (`tensorcast.cost.tables`); formats, backend and kernel choose the coefficients, where
    it has them, the nearest where the machine lacks them (`matches` tells which). Operands are as cold or warm as the
    loops of that table leave them. A column `device` is not read: `hw` says where.
    UnknownNameError, InputError, HardwareError.
    """
    from tensorcast.hardware.load import hardware

    hw, kind = hardware(hw), table(family)
    check_frame(kind, frame)
    if kind.seconds is not None:
        return np.asarray(kind.seconds(frame, hw), dtype=float)
    result = np.empty(len(frame))
    for group, rows in groups(frame):
        result[rows] = seconds_of(kind, group, frame.iloc[rows], hw)
    return result


def seconds_of(kind: Table, group: Mapping[str, str], frame, hw) -> np.ndarray:
    """Seconds of rows that share a format and a kernel."""
    coefficient = match(kind, group, hw).coefficient
    seconds = time_of(call_of(kind, group, frame, hw), coefficient, hw).seconds
    return np.broadcast_to(seconds, (len(frame),))


@dataclass(frozen=True)
class Match:
    """Which coefficients price a group of rows, and whether they are the group's own."""

    coefficient: Coefficient
    wanted: tuple[str, str]  # format and kernel

    @property
    def exact(self) -> bool:
        fmt, kernel = self.wanted
        return self.coefficient.format == fmt and kernel in ("", self.coefficient.kernel)


def match(kind: Table, group: Mapping[str, str], hw) -> Match:
    """The coefficients of that format and kernel, or the nearest the machine has. HardwareError if there are none."""
    fmt, kernel = kind.format(group), kind.kernel(group)
    return Match(hw.coefficient(kind.family_of(group), fmt, kernel), (fmt, kernel))


def matches(family: str, frame, hw) -> list[dict[str, Any]]:
    """For every group of `frame`: its values, rows, and the coefficients behind its predictions."""
    from tensorcast.hardware.load import hardware

    hw, kind = hardware(hw), table(family)
    check_frame(kind, frame)
    told = []
    for group, rows in groups(frame) if kind.seconds is None else ():
        found = match(kind, group, hw)
        c = found.coefficient
        told.append(
            {
                **group,
                "rows": len(rows),
                "kind": c.kind,
                "format": c.format,
                "priced_as": c.kernel,
                "exact": found.exact,
            }
            | {"error": c.error, "source": c.provenance}
        )
    return told


def call_of(kind: Table, group: Mapping[str, str], frame, hw):
    """The calls behind rows of one group, cold where the table says that they were measured so.

    InputError for a format the table does not know, HardwareError for one that the machine does not compute.
    """
    try:
        call = kind.call(frame, group, hw)
    except KeyError as unknown:
        known = dict.fromkeys(row.format for row in hw.coefficients.get(kind.family, ()))
        told = ", ".join(fmt for fmt in known if fmt != "any")
        raise InputError(f"{kind.name}: {unknown} is no format of this table; {hw.name} has {told}") from None
    if group.get("cache_state") == "cold":
        call = replace(call, loop_bytes=None)
    if call.math and call.math not in MATHS:
        raise InputError(f"{kind.name}: {call.math!r} is no format; formats: {', '.join(MATHS)}")
    if call.math and not hw.has(call.math):
        raise HardwareError(f"{hw.name} does not compute {call.math}; it has {', '.join(hw.peaks)}")
    return call
