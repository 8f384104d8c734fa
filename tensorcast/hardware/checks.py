"""Small validators of single values, shared by everything a hardware file describes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tensorcast.errors import HardwareError, near_names


def number(value: Any, what: str, *, zero: bool = False, at_most: float = math.inf) -> float:
    """`value` as a positive finite float (`zero` admits 0), or HardwareError naming `what`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        hint = ""
        if isinstance(value, str):
            hint = " (YAML reads 1e12 as text: write 1.0e+12)" if _reads_as_number(value) else ""
        raise HardwareError(f"{what} must be a number, not {value!r}{hint}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise HardwareError(f"{what} must be a finite number {'>= 0' if zero else '> 0'}, not {value!r}")
    if value > at_most:
        raise HardwareError(f"{what} must be at most {at_most:g}, not {value!r}")
    return float(value)


def count(value: Any, what: str) -> int:
    """`value` as a positive whole number, or HardwareError naming `what`."""
    result = number(value, what)
    if result != int(result):
        raise HardwareError(f"{what} must be a whole number, not {value!r}")
    return int(result)


def text(value: Any, what: str) -> str:
    """`value` as a non-empty string, or HardwareError naming `what`."""
    if not isinstance(value, str) or not value.strip():
        raise HardwareError(f"{what} must be a non-empty text, not {value!r}")
    return value


def one_of(value: Any, choices: Iterable[str], what: str) -> str:
    choices = list(choices)
    if value not in choices:
        near = near_names(str(value), choices)
        hint = f"; nearest: {near[0]}" if near else ""
        raise HardwareError(f"{what} must be one of {', '.join(choices)}, not {value!r}{hint}")
    return value


def _reads_as_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
