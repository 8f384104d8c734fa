"""The page of `simulate`, in a browser."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import tensorcast as tc
from tensorcast.report.pages import simulate_page
from tests.browser.conftest import PHONE

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
MARKS = {
    "bounds": ".bars path", "treemap-prefill": ".slice", "roofline-prefill": ".points path", "memory-bar": ".bars path",
    "collectives": ".bars path", "step-prefill": ".bars path", "layer-prefill-1": ".bars path",
}  # fmt: skip
TICK = "document.querySelector('#bounds .xtick text')"
LEGIBLE = """() => {
  const number = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = number(getComputedStyle(node).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    throw Error("no background");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !node.checkVisibility() || node.closest("svg, script, style, caption")) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(number(style.color)), light(behind(node))].sort((a, b) => b - a);
    found.push([text.slice(0, 40), parseFloat(style.fontSize), (one + 0.05) / (other + 0.05)]);
  }
  return found;
}"""
CHART_LETTERS = """() => [...document.querySelectorAll(".chart text, .chart tspan")]
  .filter((each) => each.checkVisibility({ opacityProperty: true }) && each.textContent.trim())
  .filter((each) => !each.closest("[transform*='scale(0']"))
  .map((each) => [each.textContent, parseFloat(getComputedStyle(each).fontSize)])"""


@pytest.fixture(scope="module")
def estimate() -> dict:
    return tc.simulate(model="qwen3-8b", hw="h100-sxm", tp=2, batch=4).to_dict()


@pytest.fixture(scope="module")
def report(estimate, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(simulate_page(estimate), "utf-8")
    return path


def check_legible(page) -> None:
    texts = page.evaluate(LEGIBLE)
    assert len(texts) > 200
    assert not [each for each in texts if each[1] < 12]
    assert not [each for each in texts if each[2] < 4.5]
    letters = page.evaluate(CHART_LETTERS)
    assert len(letters) > 30 and not [each for each in letters if each[1] < 12 and each[0].strip("−0123456789")]
    width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= room


def test_on_a_desk(opened, report, estimate) -> None:
    """Charts, table, choices, file, copy and theme of one page."""
    with opened(report) as page:
        assert page.title() == "qwen3-8b on 2 × h100-sxm"
        check_drawn(page)
        check_legible(page)
        check_sorting(page, estimate)
        check_filter_and_file(page, estimate)
        check_views(page)
        check_hover(page, estimate)
        check_copy(page, estimate)
        check_theme(page)


def check_drawn(page) -> None:
    for chart, mark in MARKS.items():
        assert page.locator(f"#{chart} {mark}").count() >= 2, chart
        words = page.locator(f"#{chart}").get_attribute("aria-label")
        assert words and words == page.locator(f"#{chart} + figcaption").inner_text()
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert first < 1500
    assert page.locator("[data-title*='cloud' i], [data-title*='share' i]").count() == 0  # nothing sends a chart away


def cells(page, name: str) -> list[str]:
    """The column of the operators that is seen."""
    return page.evaluate(
        """(name) => { const table = document.querySelector("#operators table");
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.dataset.name === name);
        return [...table.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) =>
          row.cells[at].dataset.value ?? row.cells[at].textContent); }""",
        name,
    )


def check_sorting(page, estimate) -> None:
    times = [op["time_s"] for phase in estimate["phases"].values() for op in phase["ops"]]
    header = page.locator("#operators th[data-name=time_s]")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [float(each) for each in cells(page, "time_s")] == sorted(times, reverse=True)
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert [float(each) for each in cells(page, "time_s")] == sorted(times)
    page.locator("#operators th[data-name=module] button").click()
    assert header.get_attribute("aria-sort") is None
    assert cells(page, "module") == sorted(cells(page, "module"))


def check_filter_and_file(page, estimate) -> None:
    section = page.locator("#operators")
    section.locator("[data-choose=phase]").select_option("decode")
    section.locator("[data-filter]").fill("LINEAR mlp")
    ops = [op for op in estimate["phases"]["decode"]["ops"] if op["op"] == "linear" and ".mlp." in op["module"]]
    assert sorted(cells(page, "module")) == sorted(op["module"] for op in ops)
    rows = sum(len(phase["ops"]) for phase in estimate["phases"].values())
    assert section.locator("[data-count]").inner_text() == f"{len(ops)} of {rows} rows"
    with page.expect_download() as started:
        section.locator("[data-csv]").click()
    assert started.value.suggested_filename == "operators.csv"
    read = list(csv.DictReader(io.StringIO(Path(started.value.path()).read_text("utf-8"))))
    assert {(row["phase"], row["module"], float(row["time_s"])) for row in read} == {
        ("decode", op["module"], op["time_s"]) for op in ops
    }
    section.locator("[data-filter]").fill("nothing is called so")
    assert cells(page, "module") == []


def check_views(page) -> None:
    assert not page.locator("#treemap-decode").is_visible()
    page.locator("#time [data-views]").select_option("treemap-decode")
    page.wait_for_selector("#treemap-decode .slice")
    assert page.locator("#treemap-decode").is_visible() and not page.locator("#treemap-prefill").is_visible()


def check_hover(page, estimate) -> None:
    run = estimate["phases"]["prefill"]["timeline"]["runs"][5]
    bar = page.locator("#step-prefill .bars .point").nth(5)
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#step-prefill .hovertext")
    said = page.locator("#step-prefill .hovertext").text_content()
    assert said == f"{run['name']}{(run['end_s'] - run['start_s']) * 1e3:.2f} ms"


def check_copy(page, estimate) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("[data-copy]").click()
    page.wait_for_function("document.querySelector('[data-copy]').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == estimate["command"]


def check_theme(page) -> None:
    back, ink = "getComputedStyle(document.body).backgroundColor", f"getComputedStyle({TICK}).fill"
    colours = f"[{back}, {ink}]"
    before = page.evaluate(colours)
    page.locator("[data-toggle-theme]").click()
    page.wait_for_function(f"(before) => {colours}.every((each, at) => each !== before[at])", arg=before)
    check_legible(page)


def test_on_a_phone_in_the_dark(opened, report) -> None:
    with opened(report, PHONE, "dark") as page:
        check_legible(page)
        small = "(each) => each.checkVisibility() && each.getBoundingClientRect().height < 40"
        for control in ("header button", "p.controls button", "p.controls select", "p.controls input", "nav a"):
            found = page.locator(control)
            assert found.count() and found.evaluate_all(f"(all) => all.filter({small}).length") == 0, control


def test_on_paper(opened, report) -> None:
    """Charts are dark on white and as wide as paper, without controls; afterwards all is as before."""
    with opened(report, scheme="dark") as page:
        ink = f"getComputedStyle({TICK}).fill"
        width = "document.querySelector('#bounds svg').getBoundingClientRect().width"
        before = page.evaluate(f"[{ink}, {width}]")
        page.emulate_media(media="print", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function(f"{ink} === 'rgb(27, 31, 36)' && {width} === 700")
        assert not page.locator("p.controls").first.is_visible()
        page.emulate_media(media="screen", color_scheme="dark")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        page.wait_for_function(f"(before) => JSON.stringify([{ink}, {width}]) === JSON.stringify(before)", arg=before)


def test_names_are_text_wherever_they_are_shown(opened, estimate, tmp_path) -> None:
    hostile = json.loads(json.dumps(estimate))
    hostile["model"]["name"] = hostile["hardware"]["description"] = hostile["command"] = HOSTILE
    hostile["warnings"] = hostile["uncosted_ops"] = [HOSTILE, "</script>"]
    hostile["steps"][0]["reason"] = hostile["kernels"][0]["name"] = hostile["assumptions"][0]["source"] = HOSTILE
    for phase in hostile["phases"].values():
        for op in phase["ops"]:
            op["module"] = op["module"].replace("mlp", HOSTILE)
            op["op"] = op["op"].replace("linear", HOSTILE)
        for kind in (*phase["timeline"]["kinds"], *phase["timeline"]["runs"]):
            kind["name"] = kind["name"].replace("model", HOSTILE)
    path = tmp_path / "hostile.html"
    path.write_text(simulate_page(hostile), "utf-8")
    with opened(path) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a name was run: {dialog.message}"))
        assert page.locator("h1").inner_text() == f"{HOSTILE} on 2 × h100-sxm"
        assert page.locator("img").count() == 0
        assert page.locator("#treemap-prefill text", has_text="<script>alert(1)</script>").count() > 0
        assert page.locator("#step-prefill .legendtext", has_text="<script>alert(1)</script>").count() > 0
        assert page.locator("#operators td", has_text=HOSTILE).count() > 4
        assert page.locator("#command pre").inner_text() == HOSTILE
