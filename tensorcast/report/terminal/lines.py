"""Styled lines of text that never exceed a width: what the terminal report is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

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


def crop_left(text: str, width: int) -> str:
    """The end of `text`, which tells a module path apart; at most `width` characters.

    >>> crop_left("model.layers.*.mlp.experts", 16)
    '…s.*.mlp.experts'
    """
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def crop_right(text: str, width: int) -> str:
    """The start of `text`; at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def remarks(title: str, texts: list[str], width: int, style: str = "") -> list[Text]:
    """A titled list; nothing when it is empty."""
    return [heading(title), *(line for text in texts for line in bullet(text, width, style))] if texts else []
