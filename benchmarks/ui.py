"""Slider to new figures in `tensorcast ui`, in Chromium: event → figures in the page, event → charts drawn.

    python benchmarks/ui.py [--model deepseek-v3 --hw h200-sxm --moves 60]

Moves of sliders of the work, which need no new trace, then of --tp, which do the first time. Needs Chromium and the
extras `ui` and `test`; the server is a process of its own, as a user has it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from random import Random
from statistics import median, quantiles

BUDGET_MS = 200
WORK, PLAN = ("batch", "input_len", "output_len"), ("tp",)
# One move: the slider goes to another stop, and the page says when the new figures and the new charts are there.
MOVE = """
([name, seed]) => new Promise((done) => {
  const slider = document.querySelector(`[data-slides="${name}"]`);
  const stops = Number(slider.max) + 1;
  slider.value = (Number(slider.value) + 1 + seed % (stops - 1)) % stops;
  const desk = document.getElementById("desk"), root = document.documentElement;
  const before = document.getElementById("command").textContent, start = performance.now();
  let figures;
  const look = new MutationObserver(() => {
    const command = document.getElementById("command").textContent;
    if (desk.dataset.state === "error") finish(null);
    if (desk.dataset.state !== "ready" || command === before) return;
    figures ??= performance.now() - start;
    if (root.dataset.charts === command) finish({ figures, charts: performance.now() - start });
  });
  const finish = (found) => { look.disconnect(); done(found); };
  const watched = { subtree: true, childList: true, characterData: true, attributes: true };
  look.observe(root, watched);
  slider.dispatchEvent(new Event("input", { bubbles: true }));
})
"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="deepseek-v3")
    parser.add_argument("--hw", default="h200-sxm")
    parser.add_argument("--moves", type=int, default=60)
    asked = parser.parse_args()
    words = ["ui", "--port", "0", "--no-open", "--model", asked.model, "--hw", asked.hw]
    server = subprocess.Popen([sys.executable, "-m", "tensorcast", *words], stdout=subprocess.PIPE, text=True)
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{server.stdout.readline().strip()}&tp=8")
            page.wait_for_selector("html[data-charts]", state="attached", timeout=60_000)
            for title, names in (("work", WORK), ("plan", PLAN)):
                report(title, moves(page, names, asked.moves))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def moves(page, names: tuple[str, ...], count: int) -> list[dict[str, float]]:
    """Milliseconds of `count` moves that were answered with figures."""
    random, found = Random(7), []
    for number in range(count):
        move = page.evaluate(MOVE, [names[number % len(names)], random.randrange(1000)])
        found += [move] if move else []
    return found


def report(title: str, found: list[dict[str, float]]) -> None:
    for what in ("figures", "charts"):
        times = [move[what] for move in found]
        middle, most = median(times), quantiles(times, n=10)[-1]
        verdict = "within" if middle <= BUDGET_MS else "OVER"
        print(f"{title:5} {what:8} {len(times):3} moves: median {middle:4.0f} ms, p90 {most:4.0f} ms"
              f"  ({verdict} {BUDGET_MS} ms)")  # fmt: skip


if __name__ == "__main__":
    main()
