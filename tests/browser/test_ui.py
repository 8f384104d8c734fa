"""`tensorcast ui` in a real browser: a server of its own process, as a user has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from urllib.parse import urlencode

import pytest

import tensorcast as tc
from tensorcast.units import bytes_, seconds

from .conftest import PHONE, ROOT

pytest.importorskip("fastapi", reason="needs the extra `ui`")
DENSE = {"model": "qwen3-0.6b", "hw": "h100-sxm"}
READY = "#desk[data-state=ready]"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server, which must end cleanly on Ctrl-C."""
    command = [sys.executable, "-m", "tensorcast", "ui", "--port", "0", "--no-open"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def shown(page, name: str) -> str:
    return page.text_content(f"[data-figure={name}] b")


def type_in(page, field: str, value: str) -> None:
    page.fill(f"#{field}", value)
    page.press(f"#{field}", "Tab")


def slide(page, name: str, value: str) -> None:
    """Move a slider to a stop, as a hand does: one input event."""
    page.eval_on_selector(
        f"[data-slides={name}]",
        """(slider, value) => {
          slider.value = slider.dataset.scale.split(" ").indexOf(value);
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        value,
    )


def settled(page, **options) -> None:
    """Wait for the figures of these options, and for charts of them."""
    words = [f"--{name.replace('_', '-')} {value}" for name, value in {**DENSE, **options}.items()]
    command = " ".join(["tensorcast simulate", *words])
    page.wait_for_selector(f"{READY} #command:text-is('{command}')", timeout=20_000)
    page.wait_for_selector(f'html[data-charts="{command}"]', state="attached")


def test_controls_figures_refusals_pins_and_reports(server, opened, tmp_path):
    with opened(server) as page:
        assert page.text_content("#said") == "Choose a model and a machine."
        type_in(page, "model", DENSE["model"])
        assert page.text_content("#said") == "Choose a machine."
        type_in(page, "hw", DENSE["hw"])
        settled(page)
        truth = tc.simulate(**DENSE)
        assert shown(page, "ttft_s") == seconds(truth.metrics["ttft_s"])
        assert shown(page, "total_bytes") == bytes_(truth.memory["total_bytes"])
        assert page.get_attribute("#input_len", "placeholder") == "4096"
        assert page.get_attribute("[data-slides=input_len]", "aria-valuetext") == "4096"
        page.focus("#kv_cache_dtype")
        assert page.text_content("#help") == f"--kv-cache-dtype: {page.text_content('#kv_cache_dtype-help')}"
        clipped = """[...document.querySelectorAll("#asked .control, #asked label, #answers .answer")]
                       .filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.textContent)"""
        page.eval_on_selector_all("#asked details", "all => all.forEach((each) => (each.open = true))")
        assert page.evaluate(clipped) == []
        for chart in ("memory", "bounds", "treemap", "roofline"):
            assert page.locator(f"#{chart} .main-svg").count(), chart
        assert not page.is_visible("#communication")  # one device has nobody to talk to

        # A slider, then another before the answer: the last position counts.
        slide(page, "batch", "64")
        slide(page, "batch", "32")
        slide(page, "input_len", "1024")
        settled(page, batch=32, input_len=1024)
        truth = tc.simulate(**DENSE, batch=32, input_len=1024)
        assert shown(page, "tpot_s") == seconds(truth.metrics["tpot_s"])
        assert page.text_content("#said") == "It fits."
        assert page.input_value("#batch") == "32"

        # What cannot be had is said; the old figures are never shown as if they were its own.
        type_in(page, "tp", "7")
        page.wait_for_selector("#desk[data-state=error]")
        said = page.text_content("#said")
        assert said.startswith("--tp 7: ") and "The figures below are of: tensorcast simulate" in said
        assert page.locator(".control.wrong #tp").count() == 1
        page.fill("#more", "--sp 3")
        page.press("#more", "Tab")
        page.wait_for_selector("#asked details[open] .control.wrong #sp")
        type_in(page, "more", "")
        assert float(page.eval_on_selector("#answers", "each => getComputedStyle(each).opacity")) < 0.5
        page.click("#pin")
        assert page.text_content("#told") == "Wait for figures, or change what was refused."
        slide(page, "tp", "2")
        settled(page, tp=2, batch=32, input_len=1024)
        assert page.locator(".control.wrong").count() == 0
        assert page.locator("#communication .main-svg").count()

        # Four pins, a fifth is refused kindly, ratios are to the first.
        for tp in ("2", "1", "2", "1"):
            slide(page, "tp", tp)
            settled(page, tp=tp, batch=32, input_len=1024)
            page.click("#pin")
        page.click("#pin")
        assert page.text_content("#told") == "4 at most: remove one first."
        assert page.locator("#pins thead th").count() == 1 + 4 + 1
        memory = page.locator("#pins tr", has=page.get_by_role("rowheader", name="memory", exact=True))
        one, two = (tc.simulate(**DENSE, tp=n, batch=32, input_len=1024).memory["total_bytes"] for n in (1, 2))
        cells = memory.locator("td").all_text_contents()
        assert cells[0] == bytes_(two)
        assert cells[1].split() == [*bytes_(one).split(), f"×{one / two:.3g}"]
        assert page.locator("#compared .main-svg").count()
        page.get_by_role("button", name="remove pin 2").click()
        page.get_by_role("button", name="remove pin 2").click()
        assert page.locator("#pins thead th").count() == 1 + 2 + 1

        # The phase that is looked at, and the address, which has everything.
        page.select_option("#view", "prefill")
        page.wait_for_url(lambda url: url.count("pin=") == 2 and "view=prefill" in url and "tp=1" in url)
        page.reload()
        settled(page, tp=1, batch=32, input_len=1024)
        assert page.input_value("#view") == "prefill"
        assert page.locator("#pins thead th").count() == 1 + 2 + 1

        with page.expect_download() as waiting:
            page.get_by_role("button", name="download JSON").click()
        assert waiting.value.suggested_filename == "qwen3-0.6b-1x-h100-sxm.json"
        waiting.value.save_as(tmp_path / "report.json")
        truth = tc.simulate(**DENSE, tp=1, batch=32, input_len=1024)
        assert json.loads((tmp_path / "report.json").read_text())["metrics"] == truth.metrics

        # Paper has no controls and all figures; a choice that was made is no default; the defaults come back.
        page.select_option("#phase", "prefill")
        settled(page, tp=1, phase="prefill", batch=32, input_len=1024)
        assert page.text_content("#phase option") == "default: auto"
        page.emulate_media(media="print")
        assert not page.is_visible("#asked") and not page.is_visible("#pin")
        page.emulate_media(media="screen")
        page.click("#defaults")
        settled(page)
        assert page.input_value("#tp") == page.input_value("#phase") == ""


def test_on_a_phone_in_the_dark(server, opened):
    with opened(f"{server}?{urlencode({**DENSE, 'tp': 2})}", size=PHONE, scheme="dark") as page:
        settled(page, tp=2)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        sizes = page.evaluate(
            """[...document.querySelectorAll("#desk *")].filter((each) => !each.closest(".chart, details"))
               .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
               .map((each) => parseFloat(getComputedStyle(each).fontSize))"""
        )
        assert len(sizes) > 40 and min(sizes) >= 12
        # The figures stay in sight while the sliders below them move.
        page.locator("[data-slides=output_len]").scroll_into_view_if_needed()
        slide(page, "output_len", "64")
        settled(page, tp=2, output_len=64)
        assert page.locator("[data-figure=tpot_s]").bounding_box()["y"] >= 0


def test_names_are_text(server, opened, tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    config = {"architectures": ["BertModel"], "model_type": "bert", "num_hidden_layers": 1, "hidden_size": 64,
              "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 99}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    query = {"model": str(folder), "hw": "h100-sxm", "input_len": 64, "batch": "<script>alert(1)</script>"}
    with opened(f"{server}?{urlencode(query)}") as page:
        assert "'<script>alert(1)</script>' is not a whole number" in page.text_content("#said")
        type_in(page, "batch", "2")
        page.wait_for_selector(READY, timeout=20_000)
        page.click("#pin")
        assert page.text_content("h1") == f"{folder.name} on 1 × h100-sxm"
        page.wait_for_selector("#compared .main-svg")
        assert page.locator("img, #desk script").count() == 0


def test_how_long_a_move_takes_is_printed(server, opened, capsys):
    from benchmarks.ui import WORK, moves

    with opened(f"{server}?{urlencode(DENSE)}") as page:
        settled(page)
        found = moves(page, WORK, 9)
    assert found and all(0 < move["figures"] <= move["charts"] for move in found)
    with capsys.disabled():
        figures, charts = (median(move[what] for move in found) for what in ("figures", "charts"))
        print(f"\n  slider to figures {figures:.0f} ms, to charts {charts:.0f} ms (median of {len(found)} moves)")
