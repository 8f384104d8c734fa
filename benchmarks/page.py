"""Sections of docs/coverage.md, each between two markers: a survey replaces its own and leaves the rest alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
END = "<!-- end -->"


def put(subject: str, script: str, lines: Iterable[str]) -> None:
    """Put `lines` where the section about `subject` is that `script` wrote before, or at the end of the page."""
    begin = f"<!-- {subject}: written by benchmarks/{Path(script).name} -->"
    page = PAGE.read_text("utf-8")
    if begin not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{END}\n"
    head, _, rest = page.partition(begin)
    PAGE.write_text(head + "\n".join([begin, *lines, ""]) + END + rest.partition(END)[2], "utf-8")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table."""
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]
