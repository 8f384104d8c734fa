"""SI figures as people read them, in one place.

Policy
- Three significant digits; a figure never shows as 1000 of one unit when it is 1.00 of the next.
- Time in ns, us, ms, s. Memory in B, KiB, MiB, GiB, TiB (steps of 1024), as allocators count. Work in FLOP with a
  decimal prefix (a multiply-add is 2 FLOP). Bandwidth in decimal bytes per second, as data sheets quote it.
- Zero has no prefix. Negative figures keep their sign. What is not a finite number shows as "n/a".

>>> seconds(0.01234), bytes_(80 * 2**30), flop(1.5e12), flops(989.4e12), bandwidth(3.35e12)
('12.3 ms', '80.0 GiB', '1.50 TFLOP', '989 TFLOP/s', '3.35 TB/s')
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_TIME = ("ns", "us", "ms", "s")
_MEMORY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
NOT_A_NUMBER = "n/a"
_QUANTITY = re.compile(r"(?P<number>([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?)\s*(?P<unit>[a-zµ%]*)", re.ASCII)


def seconds(value: float | None) -> str:
    """A time given in seconds.

    >>> seconds(0), seconds(2.5e-7), seconds(0.0009999), seconds(75.25), seconds(4321)
    ('0 s', '250 ns', '1.00 ms', '75.2 s', '4,321 s')
    """
    return _scaled(None if value is None else value * 1e9, 1000, _TIME, zero="s")


def bytes_(value: float | None) -> str:
    """A size given in bytes, in steps of 1024.

    >>> bytes_(0), bytes_(1), bytes_(1023), bytes_(1024), bytes_(1536), bytes_(68719476736)
    ('0 B', '1 B', '1,023 B', '1.00 KiB', '1.50 KiB', '64.0 GiB')
    """
    return _scaled(value, 1024, _MEMORY, zero="B", whole_first=True)


def flop(value: float | None) -> str:
    """An amount of work given in FLOP.

    >>> flop(0), flop(2e9), flop(74.6e15)
    ('0 FLOP', '2.00 GFLOP', '74.6 PFLOP')
    """
    return _scaled(value, 1000, tuple(f"{prefix}FLOP" for prefix in _DECIMAL), zero="FLOP", whole_first=True)


def flops(value: float | None) -> str:
    """A rate of work given in FLOP/s.

    >>> flops(353.9e12)
    '354 TFLOP/s'
    """
    return _scaled(value, 1000, tuple(f"{prefix}FLOP/s" for prefix in _DECIMAL), zero="FLOP/s", whole_first=True)


def bandwidth(value: float | None) -> str:
    """A rate given in bytes/s, with decimal prefixes.

    >>> bandwidth(1.6e12), bandwidth(392e9)
    ('1.60 TB/s', '392 GB/s')
    """
    return _scaled(value, 1000, tuple(f"{prefix}B/s" for prefix in _DECIMAL), zero="B/s", whole_first=True)


def count(value: float | None) -> str:
    """A whole number, every digit.

    >>> count(671026404352)
    '671,026,404,352'
    """
    return f"{value:,.0f}" if _finite(value) else NOT_A_NUMBER


def rate(value: float | None, unit: str) -> str:
    """A number of things per second or such, three significant digits, no prefix.

    >>> rate(1234.5, "tokens/s"), rate(12.345, "tokens/s")
    ('1,234 tokens/s', '12.3 tokens/s')
    """
    return f"{_digits(value)} {unit}" if _finite(value) else NOT_A_NUMBER


def percent(fraction: float | None) -> str:
    """A share of one.

    >>> percent(0.4321), percent(1), percent(0), percent(0.0004)
    ('43.2 %', '100 %', '0 %', '<0.1 %')
    """
    if not _finite(fraction):
        return NOT_A_NUMBER
    value = fraction * 100
    if value == 0:
        return "0 %"
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.1f} %" if abs(value) < 99.95 else f"{value:,.0f} %"


def read_seconds(text: str) -> float:
    """The time that `text` names, in seconds: a number above 0 with ns, us, ms or s, alone in seconds; ValueError.

    >>> read_seconds("2s"), read_seconds("50 ms"), read_seconds("800us"), read_seconds("0.05")
    (2.0, 0.05, 0.0008, 0.05)
    """
    value = _read(text, {"": 0, "s": 0, "ms": -3, "us": -6, "µs": -6, "ns": -9}, "a time above 0, such as 2s or 50ms")
    if value == 0:
        raise ValueError(f"{text!r} is not a time above 0, such as 2s or 50ms")
    return value


def read_share(text: str) -> float:
    """The share of one that `text` names, with % or as a plain number, from 0 to below 1; ValueError.

    >>> read_share("10%"), read_share("0.1"), read_share("0")
    (0.1, 0.1, 0.0)
    """
    value = _read(text, {"": 0, "%": -2}, "a share from 0 to below 1, such as 10% or 0.1")
    if value >= 1:
        raise ValueError(f"{text!r} is not a share from 0 to below 1, such as 10% or 0.1")
    return value


def read_price(text: str) -> float:
    """An amount of money, above 0; ValueError.

    >>> read_price("2.5")
    2.5
    """
    value = _read(text, {"": 0}, "an amount above 0, such as 2.5")
    if value == 0:
        raise ValueError(f"{text!r} is not an amount above 0, such as 2.5")
    return value


def _read(text: str, units: dict[str, int], what: str) -> float:
    """A number and one of `units` (unit → power of ten), as a float; ValueError that says what was expected."""
    found = _QUANTITY.fullmatch(text.strip())
    unit = found["unit"] if found else None
    value = float(Decimal(found["number"]).scaleb(units[unit])) if unit in units else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not {what}")
    return value


def _finite(value: float | None) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _scaled(value: float | None, step: int, units: tuple[str, ...], *, zero: str, whole_first: bool = False) -> str:
    """`value`, given in `units[0]`, in the largest unit that leaves at least one digit before the point."""
    if not _finite(value):
        return NOT_A_NUMBER
    if value == 0:
        return f"0 {zero}"
    scaled, last = float(value), len(units) - 1
    for position, unit in enumerate(units):
        text = _digits(scaled)
        if position == 0 and whole_first and scaled == int(scaled):
            text = f"{scaled:,.0f}"
        if abs(float(text.replace(",", ""))) < step or position == last:
            return f"{text} {unit}"
        scaled /= step
    raise AssertionError("unreachable: the last unit always returns")


def _digits(value: float) -> str:
    """Three significant digits, or all digits before the point where there are more."""
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}"
