"""Several values in one text: `1,2,8:64:x2`. Commas separate, but not within brackets and quotes."""

from __future__ import annotations

import re
from decimal import Decimal

from tensorcast.errors import InputError

MOST_VALUES = 1 << 20
"""Of one option. More is a slip of the keyboard."""
NONE = "none"
"""Stands for leaving the option out."""
_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_DECIMAL = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_CLOSING = {"[": "]", "(": ")", "{": "}"}

Number = int | float


def pieces(text: str) -> list[str]:
    """The parts of `text` between commas, trimmed; InputError where one is empty or a bracket is left open.

    >>> pieces("1, 2:8"), pieces("re:a{1,2},'x,y'")
    (['1', '2:8'], ['re:a{1,2}', "'x,y'"])
    """
    parts, open_, quote = [""], [], ""
    for character in text:
        if character == "," and not open_ and not quote:
            parts.append("")
            continue
        parts[-1] += character
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _CLOSING:
            open_.append(_CLOSING[character])
        elif open_ and character == open_[-1]:
            open_.pop()
    if open_ or quote:
        raise InputError(f"{text!r}: {quote or open_[-1]} is missing")
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise InputError(f"{text!r}: a value is empty; write the values with one comma between, such as 1,2,8:64:x2")
    return parts


def unquoted(text: str) -> str:
    """`text` without the quotes around all of it."""
    whole = len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]
    return text[1:-1] if whole else text


def numbers(text: str, *, whole: bool) -> tuple[Number | None, ...]:
    """The numbers that a text of values and ranges names, in order; `none` is None; InputError.

    START:STOP counts by 1, START:STOP:STEP by STEP, START:STOP:xFACTOR multiplies. STOP is one of the numbers where
    they meet it. All arithmetic is decimal, so that 0.1:0.3:0.1 ends with 0.3.

    >>> numbers("1,2,8:64:x2", whole=True), numbers("0.1:0.3:0.1", whole=False)
    ((1, 2, 8, 16, 32, 64), (0.1, 0.2, 0.3))
    """
    found: list[Number | None] = []
    for piece in pieces(text):
        if piece == NONE:
            found.append(None)
        else:
            found += _span(piece, whole) if ":" in piece else [_plain(number(piece, whole), whole)]
        if len(found) > MOST_VALUES:
            raise InputError(f"{text!r}: more than {MOST_VALUES:,} values; take a larger step")
    return tuple(found)


def number(text: str, whole: bool) -> Decimal:
    """The number that `text` is; InputError."""
    text = text.strip()
    if not (_WHOLE if whole else _DECIMAL).fullmatch(text) or len(text) > 24:
        raise InputError(f"{text!r} is not a {'whole ' if whole else ''}number, nor a range such as 1:512:x2")
    return Decimal(text)


def is_range(text: str) -> bool:
    """Whether `text` is written as a range of numbers.

    >>> is_range("2:8:x2"), is_range("fp8"), is_range("power-law:1.2")
    (True, False, False)
    """
    first, *rest = (part.strip() for part in text.split(":"))
    return bool(rest) and len(rest) < 3 and all(_DECIMAL.fullmatch(part.removeprefix("x")) for part in (first, *rest))


def _span(text: str, whole: bool) -> list[Number]:
    """The numbers of one range."""
    parts = text.split(":")
    if len(parts) > 3:
        raise InputError(f"{text!r} is not a range; write START:STOP, START:STOP:STEP or START:STOP:xFACTOR")
    start, stop = (number(part, whole) for part in parts[:2])
    if start > stop:
        raise InputError(f"{text!r} is empty: it starts above its end; write the smaller number first")
    by = parts[2].strip() if len(parts) == 3 else "1"
    found = _geometric(text, start, stop, number(by[1:], False)) if by[:1] == "x" else None
    return [_plain(n, whole, text) for n in (_steps(text, start, stop, number(by, False)) if found is None else found)]


def _steps(text: str, start: Decimal, stop: Decimal, step: Decimal) -> list[Decimal]:
    if step <= 0:
        raise InputError(f"{text!r}: the step must be above 0")
    count = int((stop - start) // step) + 1 if (stop - start) / step < MOST_VALUES else MOST_VALUES + 1
    if count > MOST_VALUES:
        raise InputError(f"{text!r}: more than {MOST_VALUES:,} values; take a larger step")
    return [start + step * n for n in range(count)]


def _geometric(text: str, start: Decimal, stop: Decimal, factor: Decimal) -> list[Decimal]:
    if factor <= 1:
        raise InputError(f"{text!r}: the factor must be above 1, such as x2")
    if start <= 0:
        raise InputError(f"{text!r}: what is multiplied must start above 0")
    found = [start]
    while (following := found[-1] * factor) <= stop:
        found.append(following)
        if len(found) > MOST_VALUES:
            raise InputError(f"{text!r}: more than {MOST_VALUES:,} values; take a larger factor")
    return found


def _plain(value: Decimal, whole: bool, text: str = "") -> Number:
    if not whole:
        return float(value)
    if value != value.to_integral_value():
        raise InputError(f"{text!r} meets {value}, which is not a whole number")
    return int(value)
