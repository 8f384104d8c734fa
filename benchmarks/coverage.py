"""Every causal-LM type of transformers: does it trace, is it cut, are its parameters and FLOPs the library's?

    python benchmarks/coverage.py [TYPE …] [--no-flops] [--write]

Prints one line a type and the totals; --write puts the table into docs/coverage.md. Each type is made from the default
configuration of its class (see tests/verify/survey.py): most are no published model, and it is their structure that
counts here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "coverage.md"
BEGIN, END = "<!-- causal language models: written by benchmarks/coverage.py -->", "<!-- end -->"
NOTES = (
    "`cut`: share of the parameters that --tp 2 spreads over both ranks. `FLOPs`: matrix FLOPs of one prefill and one",
    "step of decoding beside torch's FlopCounterMode on the stock class, at the depth that shows every kind of layer:",
    "equal as whole numbers, equal after terms of the operators named, the ratio ours over theirs, or why the stock",
    "class cannot be counted on the meta device. `trace ms`: the slower first trace of the two phases at full depth,",
    "layers reused.",
)
TERM_NOTES = (
    "Terms: what the stock code multiplies where it does not run what a production kernel of the operator runs,",
    "computed from the shapes of the operator (tests/verify/terms.py). b sequences of s tokens, n chunks of C tokens,",
    "h heads with states [dk, dv].",
)
COLUMNS = (
    "type", "class", "parameters", "prefill and decode", "--tp 2", "cut", "FLOPs prefill", "FLOPs decode", "trace ms",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("types", nargs="*")
    parser.add_argument("--no-flops", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    from tests.verify.survey import model_types, survey, totals

    os.chdir(tempfile.mkdtemp())  # no ./custom_model
    rows = []
    for kind in asked.types or model_types():
        rows.append(survey(kind, flops=not asked.no_flops))
        print(" · ".join(_cells(rows[-1])), flush=True)
    print(*totals(rows), sep="\n")
    if asked.write:
        _write(rows, list(totals(rows)))


def _cells(row) -> tuple[str, ...]:
    traced = "ok" if row.traces else next(text for text in (row.prefill, row.decode) if text != "ok")
    if row.uncosted:
        traced += f"; by bytes alone: {', '.join(row.uncosted)}"
    return (
        row.kind,
        row.architecture or "–",
        f"{row.parameters:,}" if row.parameters else "–",
        traced,
        row.tp or "–",
        f"{row.cut:.1%}" if row.tp == "ok" else "–",
        *(row.flops.get(phase, "–") for phase in ("prefill", "decode")),
        f"{row.seconds * 1e3:.0f}",
    )


def _write(rows, lines: list[str]) -> None:
    """Replace what stands between the markers of docs/coverage.md; the rest of the page is kept."""
    from tests.verify.terms import EVERY_EXPERT, ROTARY, TERMS

    formulas = {**{name: term.formula for name, term in TERMS.items()}, "moe_experts": EVERY_EXPERT, "rotary": ROTARY}
    table = [COLUMNS, ("---",) * len(COLUMNS), *(_cells(row) for row in rows)]
    text = "\n".join([
        BEGIN,
        "## Causal language models",
        "",
        *(f"- {line}" for line in lines),
        "",
        *NOTES,
        "",
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table),
        "",
        *TERM_NOTES,
        "",
        "| operator | the stock code |",
        "| --- | --- |",
        *(f"| {name} | {formula} |" for name, formula in formulas.items()),
        END,
    ])  # fmt: skip
    page = PAGE.read_text("utf-8") if PAGE.exists() else f"# What is covered\n\n{BEGIN}\n{END}\n"
    if BEGIN not in page:
        page += f"\n{BEGIN}\n{END}\n"
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(head + text + rest.partition(END)[2], "utf-8")


if __name__ == "__main__":
    main()
