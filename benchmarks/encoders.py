"""Which encoders and encoder-decoders of transformers trace, and are their parameters and FLOPs the library's?

    python benchmarks/encoders.py [TABLE …] [--type T …] [--no-flops] [--no-tp] [--write]

One line for each class of the tables of masked language models, images, sound and sequence-to-sequence models (see
tests/verify/encoders.py), and the totals; --write puts the table into docs/coverage.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import page

NOTES = (
    "`FLOPs`: matrix FLOPs of one forward, or of an encoder-decoder's prefill, beside torch's FlopCounterMode on the",
    "stock class: equal, the ratio ours over theirs, or – where torch cannot run that class on the meta device, and",
    "for decoders, which are compared above. `--tp 2`: modules that two ranks share, or why they cannot.",
)


def main() -> None:
    from tests.verify.encoders import TABLES, classes, survey, totals

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", nargs="*", default=TABLES)
    parser.add_argument("--type", action="append")
    parser.add_argument("--no-flops", action="store_true")
    parser.add_argument("--no-tp", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())  # no ./custom_model
    rows = []
    for table, kind, name in classes(asked.table):
        if not asked.type or kind in asked.type:
            rows.append(survey(table, kind, name, flops=not asked.no_flops, tp=not asked.no_tp))
            print(_line(rows[-1]), flush=True)
    print(*totals(rows), sep="\n")
    if asked.write:
        page.put("encoders", __file__, _section(rows, list(totals(rows))))


def _line(row) -> str:
    told = row.reason or f"{row.parameters:,} · {row.flops or '–'} · tp 2: {row.tp or '–'}"
    told += f" · uncosted {', '.join(row.uncosted)}" if row.uncosted else ""
    return f"{row.table:22} {row.kind:28} {row.architecture:42} {row.seconds:5.1f} s  {told[:300]}"


def _section(rows, lines: list[str]) -> list[str]:
    traced = [row for row in rows if not row.reason]
    return [
        "## Encoders and encoder-decoders",
        "",
        *(f"- {line}" for line in lines),
        "",
        *NOTES,
        "",
        *page.table(("table", "type", "class", "parameters", "FLOPs", "--tp 2"), map(_cells, traced)),
        "",
        "Not traced:",
        "",
        *page.table(
            ("table", "type", "class", "reason"),
            [(row.table, row.kind, row.architecture, row.reason[:220]) for row in rows if row.reason],
        ),
    ]


def _cells(row) -> tuple[str, ...]:
    compared = row.flops == "equal" or row.flops[:1].isdigit()
    cut = row.tp.removesuffix(" modules") if row.tp.endswith(" modules") else row.tp[:100]
    return row.table, row.kind, row.architecture, f"{row.parameters:,}", row.flops if compared else "–", cut


if __name__ == "__main__":
    main()
