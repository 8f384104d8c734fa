"""The page of `simulate`, in a browser."""

from __future__ import annotations

import pytest

import tensorcast as tc


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    tc.simulate(model="qwen3-8b", hw="h100-sxm", tp=2, batch=4).to_html(path)
    return path


def test_the_answer_and_a_chart_are_shown(opened, report) -> None:
    with opened(report) as page:
        assert "qwen3-8b on 2" in page.title()
        assert page.locator("#bounds .bars path").count() > 2
