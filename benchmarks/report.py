"""The page of `simulate` or of a sweep beside its budget: seconds to write it, bytes, first paint; medians of N rounds.

    python benchmarks/report.py [--rounds 5] [--verb sweep] [--model deepseek-v3 --hw h200-sxm --tp 8]

Every round runs each case once, so that a busy machine slows them all alike. Exit code 1 when a budget is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {
    "simulate": "--model deepseek-v3 --hw h200-sxm --tp 8".split(),
    "sweep": "--model qwen3-8b,qwen3-32b --hw h100-sxm,ascend-910c-die --tp 1,2,4,8 --batch 1:625 --jobs 1".split(),
}
"""Of a sweep 10,000 configurations."""
BUDGET = {"page, MB": 5.0, "first paint, s": 1.5}
WRITE = {"simulate": 1.0, "sweep": 3.0}
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")


def seconds(asked: list[str]) -> float:
    """Of a whole process, the model's trace being cached."""
    start = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "cli.py"), *asked, "--quiet"], check=True)
    return time.perf_counter() - start


def painted(page: Path) -> Iterator[tuple[str, float]]:
    """Seconds from opening a page to its first paint, and to all of its charts."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.goto(page.as_uri())
        opened.wait_for_selector("html[data-drawn]", state="attached", timeout=60_000)
        yield "charts drawn, s", opened.evaluate("performance.now()") / 1e3
        first = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        yield "first paint, s", opened.evaluate(first) / 1e3
        browser.close()


def round_of(line: list[str], page: Path) -> Iterator[tuple[str, float]]:
    without = seconds(line)
    whole = seconds([*line, "--html", str(page)])
    yield from ((f"{line[0]}, s", without), (f"{line[0]} --html, s", whole), ("write, s", whole - without))
    yield "page, MB", page.stat().st_size / 1e6
    if CHROMIUM:
        yield from painted(page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verb", choices=FLAGS, default="simulate")
    asked, flags = parser.parse_known_args()
    line = [asked.verb, *(flags or FLAGS[asked.verb])]
    budgets = BUDGET | {"write, s": WRITE[asked.verb]}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TENSORCAST_CACHE"] = str(Path(folder) / "cache")
        seconds(line)
        found: dict[str, list[float]] = defaultdict(list)
        for _ in range(asked.rounds):
            for name, value in round_of(line, Path(folder) / "page.html"):
                found[name].append(value)
    missed = 0
    for name, values in found.items():
        median, most = statistics.median(values), budgets.get(name)
        missed += most is not None and median > most
        budget = "" if most is None else f"  budget {most:g}"
        print(f"{name:<20}{median:8.2f}  {min(values):.2f} to {max(values):.2f}{budget}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
