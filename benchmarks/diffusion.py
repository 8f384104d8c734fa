"""Every model class of diffusers from its default configuration: `python benchmarks/diffusion.py [CLASS …] [--write]`.

Prints one line a class: parameters, FLOP of a step of two pictures (512 x 512 pixels; videos of two groups of frames),
whether torch counts the same on the untouched model, operators, CPU seconds of a full-depth trace, and whether two
ranks can share it by --tp and --sp; else the reason. --write puts the table into docs/coverage.md.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tensorcast.diffusion.survey import Finding, look_at, model_classes

DOCS = Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
BEGIN, END = "<!-- diffusers: written by benchmarks/diffusion.py -->", "<!-- end of diffusers -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("classes", nargs="*")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    gc.disable()
    warnings.simplefilter("ignore")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    found = []
    for name in asked.classes or model_classes():
        found.append(look_at(name))
        print(line(found[-1]), flush=True)
    text = summary(found)
    print(text)
    if asked.write:
        write(text + "\n\n" + table(found))


def line(found: Finding) -> str:
    if found.reason:
        return f"{found.name:42} no: {found.reason[:300]}"
    split = " ".join(f"{kind}: {answer[:150]}" for kind, answer in found.split.items())
    unknown = f" uncosted {', '.join(found.unknown)}" if found.unknown else ""
    return (
        f"{found.name:42} {found.parameters / 1e9:7.3f} B {found.flops / 1e12:10.3f} TFLOP {agreement(found):12} "
        f"{found.operators:5} operators {found.seconds:5.2f} s {split}{unknown}"
    )


def agreement(found: Finding) -> str:
    if found.counted is None:
        return f"not counted ({found.uncounted[:120]})"
    return "equal" if found.flops == found.counted else f"{found.flops / found.counted - 1:+.2%}"


def summary(found: list[Finding]) -> str:
    traced = [f for f in found if not f.reason]
    counted = [f for f in traced if f.counted is not None]
    equal = sum(f.flops == f.counted for f in counted)
    split = {kind: sum(f.split.get(kind) == "yes" for f in traced) for kind in ("tp", "sp")}
    slowest = max(traced, key=lambda f: f.seconds, default=None)
    return (
        f"{len(traced)} of {len(found)} model classes of diffusers trace; torch counts the same FLOP for {equal} of "
        f"the {len(counted)} that it can count; {split['tp']} split by --tp 2, {split['sp']} by --sp 2."
        + (f" The slowest full-depth trace takes {slowest.seconds:.2f} s of CPU ({slowest.name})." if slowest else "")
    )


def table(found: list[Finding]) -> str:
    rows = ["| class | parameters | FLOP of a step | torch counts | tp 2 | sp 2 |", "|---|---|---|---|---|---|"]
    for f in found:
        if not f.reason:
            split = ["yes" if f.split.get(kind) == "yes" else "–" for kind in ("tp", "sp")]
            rows.append(
                f"| {f.name} | {f.parameters / 1e9:.3f} B | {f.flops / 1e12:.3f} T | {agreement(f).split(' (')[0]} | "
                f"{' | '.join(split)} |"
            )
    rows += ["", "Not traced:", "", "| class | reason |", "|---|---|"]
    rows += [f"| {f.name} | {f.reason.replace('|', '/')[:220]} |" for f in found if f.reason]
    return "\n".join(rows)


def write(text: str) -> None:
    whole = DOCS.read_text(encoding="utf-8") if DOCS.exists() else "# Coverage\n"
    part = f"{BEGIN}\n\n## Classes of diffusers\n\n{text}\n\n{END}"
    if BEGIN in whole:
        whole = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: part, whole, flags=re.S)
    else:
        whole = f"{whole.rstrip()}\n\n{part}\n"
    DOCS.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
