"""The pages of `optimize` and `compare`, in a browser."""

from __future__ import annotations

import numpy as np
import pytest

import tensorcast as tc
from tensorcast.report.pages import optimize_page
from tests.verify.tiny import TINY

NO_WEBGL = """<script>
const has = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind) {
  return kind.includes("webgl") ? null : has.call(this, kind);
};
</script>"""
SMALL = {"model": TINY["llama"], "input_len": 64, "output_len": 16}


@pytest.fixture(autouse=True)
def own_cache(own_folder) -> None:
    """No table of another test."""


def test_an_optimum_shows_its_limits_its_plans_and_how_to_start_it(opened, tmp_path) -> None:
    found = tc.optimize(**SMALL, hw="h100-sxm", devices=2, batch="1:8", tpot_s=1.0, memory_headroom=0.5, jobs=1)
    path = tmp_path / "optimum.html"
    page = optimize_page(found, "tensorcast optimize", "vllm serve <x>")
    path.write_text(page.replace("<head>", f"<head>{NO_WEBGL}"), encoding="utf-8")
    with opened(path) as page:
        assert page.locator("#limits .bars path").count() == 2 and "TPOT" in page.locator("#limits").inner_text()
        assert page.locator("#runners-up tbody tr").count() == min(5, len(found.rows)) > 1
        best = page.locator("#answer dl").inner_text()
        assert f"{found.best['batch']} clients each" in best and "binds" in best
        assert page.locator("#start-line").inner_text() == "vllm serve <x>"
        assert page.locator("#rows-table tbody tr").count() == len(found.rows)
        assert page.get_by_text("drawn with WebGL, which this browser does not have").is_visible()
        assert page.locator("#parallel").count() == 0
        points = page.evaluate("document.getElementById('pareto').data[0].y")
        assert points == pytest.approx(found.frame["tokens_per_s_per_device"].tolist())
        assert page.locator("#pareto .legendtext").first.text_content() == "meet the limits"


def test_a_comparison_shows_the_curve_who_leads_and_where_it_changes(opened, tmp_path) -> None:
    found = tc.compare(
        {"tp": 1, "hw": "h100-sxm"}, {"tp": 2, "hw": "ascend-910c-die"}, **SMALL, values="1:64", metric="tpot_s"
    )
    path = tmp_path / "comparison.html"
    found.to_html(path)
    with opened(path, scheme="dark") as page:
        assert page.locator("#side-by-side tbody tr").count() >= 8
        ratios = page.locator("#side-by-side tr:first-child td:last-child").inner_text().split(" ")
        assert ratios[-1].endswith("x") and len(ratios) > 3  # apart from the figure
        told = page.locator("#leads li").first.inner_text()
        assert told.startswith("A and B: ") and "leads" in told
        lines = page.evaluate("document.getElementById('curve').data.map(trace => [[...trace.x], [...trace.y]])")
        for (x, y), wanted in zip(lines, found.curve.fair, strict=True):
            assert x == found.curve.points.tolist() and np.array(y) == pytest.approx(wanted)
        scale = "['heatmap', 'parallel'].map(id => document.getElementById(id).data[0])"
        assert page.evaluate(f"{scale}.map(trace => (trace.line ?? trace).reversescale)") == [False, True]
        page.locator("[data-toggle-theme]").click()  # what is light on a dark page is dark on a light one
        page.wait_for_function(
            f"{scale}.map(trace => (trace.line ?? trace).reversescale ?? false).join() === 'true,false'"
        )
        page.locator('[data-chart="heatmap"] select[name="value"]').select_option("ttft_s")
        (cells,) = page.evaluate("document.getElementById('heatmap').data.map(trace => trace.z)")
        frame = found.frame
        for name, row in zip(found.names, cells, strict=True):
            assert row == pytest.approx(frame[frame["alternative"] == name]["ttft_s"].tolist())
