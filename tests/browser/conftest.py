"""A real browser: Debian's Chromium, driven by Playwright. `make browser` installs it; without it these are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(os.environ.get("TENSORCAST_SCREENSHOTS", ROOT / "build" / "screenshots"))
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# Chromium's own traffic (updates, sync) is none of the page's.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """The browser, one a test process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: `make browser` installs it")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: `make browser` installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, request) -> Callable:
    """`with opened(file or address, size, scheme) as page`: a page whose charts are drawn.

    When the block ends a screenshot is kept, and it is checked that nothing was said on the console and nothing asked
    for beside the page itself (of a server: beside that server).
    """

    @contextmanager
    def opening(where: Path | str, size: dict = DESKTOP, scheme: str = "light") -> Iterator:
        address = where.resolve().as_uri() if isinstance(where, Path) else where
        said, asked = [], []
        context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda each: asked.append(each.url))
        try:
            page.goto(address)
            page.wait_for_selector("html[data-drawn]", state="attached", timeout=30_000)
            yield page
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            name = f"{request.node.name}-{size['width']}-{scheme}".replace("/", "_")
            page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
            # Parallel coordinates are drawn by WebGL; without a graphics card Chromium comments on its own driver.
            said = [line for line in said if "GL Driver Message" not in line]
            assert not said, said
            home = address if isinstance(where, Path) else urljoin(address, "/")
            beside = [url for url in asked if not url.startswith(("data:", "blob:", home))]
            assert not beside, beside
        finally:
            context.close()

    return opening
