"""Styled lines of text that never exceed a width: what the terminal report is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

LABEL_WIDTH = 12


def heading(text: str) -> Text:
    """A section's title."""
    return Text(text, style="bold")


def wrapped(text: str, width: int, style: str = "") -> list[Text]:
    """A text in lines of at most `width` characters, further lines indented; nothing of it is left out."""
    lines = textwrap.wrap(text, max(20, width), subsequent_indent="    ", break_on_hyphens=False)
    return [Text(line.rstrip(), style=style) for line in lines] or [Text("")]


def facts(label: str, parts: Iterable[str], width: int, style: str = "") -> list[Text]:
    """A label and its parts with dots between, wrapped under each other; nothing when there are no parts."""
    room = max(20, width - LABEL_WIDTH)
    chunks: list[str] = []
    for part in filter(None, parts):
        # A part is kept whole where it can be, so that a figure and its unit stay together.
        if chunks and len(chunks[-1]) + 3 + len(part) <= room:
            chunks[-1] += f" · {part}"
        else:
            chunks += textwrap.wrap(part, room, break_on_hyphens=False)
    lines = []
    for position, chunk in enumerate(chunks):
        line = Text(f"{label if position == 0 else '':<{LABEL_WIDTH}}", style="dim")
        line.append(chunk, style=style or "not dim")
        lines.append(line)
    return lines


def bullet(text: str, width: int, style: str = "") -> list[Text]:
    """One remark, wrapped and indented."""
    chunks = textwrap.wrap(text, max(20, width - 4), break_on_hyphens=False) or [""]
    return [Text(("  - " if position == 0 else "    ") + chunk, style=style) for position, chunk in enumerate(chunks)]


def pairs(mapping: Mapping[str, Any]) -> list[str]:
    """Each plain value of a mapping as "name value", and lists of plain values; None, empty and nested say nothing."""
    told = []
    for name, value in mapping.items():
        if isinstance(value, (list, tuple)) and not any(isinstance(item, (Mapping, list, tuple)) for item in value):
            value = shortened(value)
        if value is None or value == "" or isinstance(value, (Mapping, list, tuple)):
            continue
        if isinstance(value, bool):
            told.append(f"{name.replace('_', ' ')} {'yes' if value else 'no'}")
        elif isinstance(value, int):
            told.append(f"{name.replace('_', ' ')} {value:,}")
        else:
            told.append(f"{name.replace('_', ' ')} {value}")
    return told


def shortened(values: Sequence[Any], most: int = 8) -> str:
    """A list with commas; of a long one the first entries and the number of all.

    >>> shortened([128, 4096, 77]), shortened(range(100), most=3)
    ('128, 4096, 77', '0, 1, 2, … (100 in all)')
    """
    first = ", ".join(str(value) for value in values[:most])
    return first if len(values) <= most else f"{first}, … ({len(values)} in all)"


def crop_left(text: str, width: int) -> str:
    """The end of `text`, which tells a module path apart; at most `width` characters.

    >>> crop_left("model.layers.*.mlp.experts", 16)
    '…s.*.mlp.experts'
    """
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def crop_right(text: str, width: int) -> str:
    """The start of `text`; at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
