"""Published configurations: are parameters the class's own, and in which formats are the weights?

    python benchmarks/published.py [NAME …] [--write]

One line for each model and pipeline component of the catalogue and each file of ../shared/model_configs (see
tests/verify/published.py), and the totals; --write puts the tables into docs/coverage.md. A NAME is a part of one.
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

GROUPS = {
    "catalogue": "models of the catalogue", "pipeline": "components of the catalogue's pipelines",
    "llm": "published configurations", "llm_dirs": "folders", "diffusers": "components of pipeline folders",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", nargs="*", default=[""])
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    from tests.verify.published import look, references

    warnings.simplefilter("ignore")
    os.chdir(tempfile.mkdtemp())  # no ./custom_model
    rows = []
    for published in references():
        if any(part in published.name for part in asked.name):
            rows.append(look(published))
            print(" · ".join(_cells(rows[-1])), flush=True)
    print(*_totals(rows), sep="\n")
    if asked.write:
        page.put("published configurations", __file__, _section(rows))


def _cells(row) -> tuple[str, ...]:
    known = row.library if isinstance(row.library, str) else "equal" if row.library == row.parameters else row.library
    return (
        row.published.name,
        f"{row.parameters:,}" if row.parameters else "–",
        row.problem or str(known),
        row.method.removeprefix("checkpoint ") or "–",
        ", ".join(f"{label} {share:.2%}" for label, share in row.shares.items()) or "–",
    )


def _totals(rows) -> list[str]:
    lines = []
    for group, what in GROUPS.items():
        ours = [row for row in rows if row.published.group == group]
        counted = [row for row in ours if isinstance(row.library, int) and row.parameters]
        equal = sum(row.library == row.parameters for row in counted)
        lines.append(f"{len(ours)} {what}: {equal} of the {len(counted)} that a library's class holds count as it does")
    stated = [row for row in rows if row.method not in ("", "none")]
    lines.append(f"{len(stated)} state a quantisation, {sum(row.quantised > 0 for row in stated)} of them have one")
    return lines


def _section(rows) -> list[str]:
    quantised = [row for row in rows if row.method not in ("", "none")]
    left = [row for row in rows if row.problem or isinstance(row.library, str)]
    return [
        "## Published configurations",
        "",
        *(f"- {line}" for line in _totals(rows)),
        "",
        "Not compared with a library's class, or refused:",
        "",
        *page.table(("model", "parameters", "why"), [_cells(row)[:3] for row in left]),
        "",
        "What checkpoints state of their quantisation, as shares of the parameters (scales are not parameters):",
        "",
        *page.table(
            ("model", "parameters", "stated in", "weight formats"),
            [(*_cells(row)[:2], *_cells(row)[3:]) for row in quantised],
        ),
    ]


if __name__ == "__main__":
    main()
