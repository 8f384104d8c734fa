"""What a reader sees of a Markdown file, by a Markdown parser of others: headings, items and the cells of tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from markdown_it import MarkdownIt

SCALES = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    "%": 0.01, "": 1, **{f"{prefix}FLOP": 1000**power for power, prefix in enumerate(("", "k", "M", "G", "T", "P"))},
}  # fmt: skip


@dataclass
class Section:
    title: str
    items: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def records(self) -> list[dict[str, str]]:
        return [dict(zip(self.rows[0], row, strict=True)) for row in self.rows[1:]]


def sections(text: str) -> list[Section]:
    """The sections of a page; markup in a text of it is an AssertionError."""
    found, where = [], ""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "heading_open":
            found.append(Section(""))
        if token.type.endswith("_open"):
            where = token.type
        if token.type == "tr_open":
            found[-1].rows.append([])
        if token.type == "inline":
            plain = _plain(token)
            if where == "heading_open":
                found[-1].title = plain
            elif where in ("th_open", "td_open"):
                found[-1].rows[-1].append(plain)
            else:
                found[-1].items.append(plain)
        if token.type == "fence":
            found[-1].items.append(token.content)
        assert token.type != "html_block", token.content
    return found


def _plain(token) -> str:
    kinds = {each.type for each in token.children}
    assert kinds <= {"text", "text_special", "softbreak"}, (kinds, token.content)
    return "".join(each.content for each in token.children)


def number(cell: str) -> float:
    """The figure of a cell such as "48.5 ms", in SI units."""
    digits, unit = re.fullmatch(r"<?([-0-9.,e+]+) ?(\D*)", cell).groups()
    return float(digits.replace(",", "")) * SCALES[unit]
