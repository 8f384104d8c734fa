"""Pages are made of templates, the user's own first; an error in one is one line, and leaves no file."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import pytest

import tensorcast as tc
from tensorcast.cli.main import cli
from tensorcast.errors import InputError
from tensorcast.report.markdown import to_markdown
from tensorcast.report.pages import simulate_page
from tensorcast.report.pages.html import plotly_bundle, render

ASK = ["simulate", "--model", "qwen3-0.6b", "--hw", "h100-sxm", "--layers", "2", "-q"]
SHIPPED = Path(__file__).resolve().parents[2] / "reports"


@pytest.fixture(scope="module")
def estimate() -> dict:
    return tc.simulate(model="qwen3-0.6b", hw="h100-sxm", layers=2).to_dict()


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """./reports of an empty directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    return tmp_path / "reports"


def test_every_figure_of_the_answer_is_on_the_page(estimate) -> None:
    page = simulate_page(estimate)
    text = re.sub(r"<[^>]+>", "", page.split('id="figures"')[0])
    ms = f"{estimate['metrics']['ttft_s'] * 1e3:.2f} ms"
    assert "qwen3-0.6b on 1 × h100-sxm" in page and ms in text
    assert estimate["command"] in page
    for step in estimate["steps"]:
        assert step["name"] in text
    for row in estimate["assumptions"]:
        assert row["figure"] in text


def test_the_phase_that_takes_most_is_seen_first(estimate) -> None:
    """Of a pipeline all denoising steps, of a language model the prompt; its operators head the table."""
    other = json.loads(json.dumps(estimate))
    long, short = estimate["phases"]["prefill"], estimate["phases"]["decode"]
    other["phases"] = {"text_encoder": long, "denoise": short, "vae": long}
    other["workload"] |= {"phase": "denoise", "steps": round(2 * long["step_time_s"] / short["step_time_s"]) + 1}
    for made, first in ((estimate, "prefill"), (other, "denoise")):
        page = simulate_page(made)
        for view in re.findall(r'<div data-view="(?:treemap|roofline|step)-(\w+)">', page):
            assert view == first
        assert re.search(r"<td>(prefill|denoise|text_encoder)</td><td>\S+</td>", page)[1] == first


def test_the_page_says_whose_figures_they_are(estimate) -> None:
    staged = {**estimate, "plan": {**estimate["plan"], "pp": 2}}
    assert "bytes of one device; memory of the fullest" in simulate_page(estimate)
    assert "bytes of one device, of the slowest pipeline stage; memory of the fullest" in simulate_page(staged)


def test_the_page_names_no_address(estimate) -> None:
    page = simulate_page(estimate)
    shown = page.split('id="plotly"')[0]
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'\s>]+""", shown)
    assert "@import" not in shown and "url(" not in shown


def test_the_library_is_inside_whole() -> None:
    import plotly

    script = Path(plotly.__file__).with_name("package_data") / "plotly.min.js"
    assert gzip.decompress(base64.b64decode(plotly_bundle())) == script.read_bytes()


def test_what_does_not_fit_is_a_verdict_and_no_negative_figure(estimate) -> None:
    memory = estimate["memory"]
    small = {"capacity_bytes": memory["total_bytes"] // 2, "fits": False, "max_batch": 0, "suggestions": []}
    squeezed = {**estimate, "memory": memory | small}
    for text in (simulate_page(squeezed).split('id="plotly"')[0], to_markdown(squeezed)):
        assert "does not fit" in text
        assert not re.search(r"(?<![\w.])[-−]\d[\d.]* [KMGT]?i?B\b", text)
    assert " missing." in simulate_page(squeezed) and " free." not in simulate_page(squeezed)


def test_the_data_blocks_hold_no_markup(estimate) -> None:
    name = "</script><script>alert(1)</script><!--"
    hostile = json.loads(json.dumps(estimate).replace("qwen3-0.6b", name))
    page = simulate_page(hostile)
    assert "alert(1)</script>" not in page and "<!--" not in page.split("<body>")[1].split('id="plotly"')[0]
    block = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1]
    assert set(json.loads(gzip.decompress(base64.b64decode(block)))) >= {
        "bounds",
        "memory-bar",
        "treemap-prefill",
        "roofline-decode",
    }


def test_a_users_template_extends_what_ships(own, estimate) -> None:
    (own / "simulate.html").write_text(
        '{% extends "shipped/simulate.html" %}{% block command %}<p>Ours: {{ estimate.model.name }}</p>{% endblock %}'
    )
    page = simulate_page(estimate)
    assert "<p>Ours: qwen3-0.6b</p>" in page and 'id="command"' not in page
    assert 'id="operators"' in page


def test_a_users_style_is_that_of_shipped_pages(own, estimate) -> None:
    (own / "style.css").write_text("body { color: teal; }")
    page = simulate_page(estimate)
    assert "color: teal" in page and "--panel: light-dark" not in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fine\n{% if %}", "simulate.html:2: "),
        ("fine\n\n{{ estimate.nothing }}", "simulate.html:3: UndefinedError: 'dict object' has no attribute 'nothing'"),
        ("{{ unheard }}", "simulate.html:1: UndefinedError: 'unheard' is undefined"),
        ("a\n{% include 'gone.html' %}", "simulate.html:2: no template 'gone.html' in "),
        ("{% extends 'shipped/gone.html' %}", "simulate.html:1: no template 'shipped/gone.html' in "),
        ("{{ 1 / 0 }}", "simulate.html:1: ZeroDivisionError: division by zero"),
        ("{{ estimate | unheard }}", "simulate.html:1: No filter named 'unheard'"),
        ("{% extends 'simulate.html' %}", "simulate.html"),
        (b"caf\xe9", "simulate.html: 'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_an_error_in_a_users_template_is_one_line(own, capsys, text, said) -> None:
    (own / "simulate.html").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cli.run([*ASK, "--html", "page.html"], "tensorcast") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: report template ") and said in error and error.count("\n") == 1
    assert not Path("page.html").exists() and [path.name for path in Path().iterdir()] == ["reports"]


@pytest.mark.parametrize("verb", ["sweep", "optimize", "compare"])
def test_an_error_that_can_be_seen_is_found_before_the_work(own, capsys, verb) -> None:
    """No row is priced, and the other files are not written."""
    (own / f"{verb}.html").write_text(
        '{% extends "shipped/' + verb + '.html" %}{% block content %}{% include "part.html" %}'
    )
    arguments = [verb, "--model", "no-such-model", "--hw", "h100", "--csv", "rows.csv", "--html", "page.html"]
    arguments += {"optimize": ["--devices", "1"], "compare": ["--with", "--hw a100"]}.get(verb, [])
    assert cli.run(arguments, "tensorcast") == 2
    error = capsys.readouterr().err
    assert f"{verb}.html:1: " in error and error.count("\n") == 1
    (own / f"{verb}.html").write_text("\n{% include 'part.html' %}")
    (own / "part.html").write_text("{{ rows |")
    assert cli.run(arguments, "tensorcast") == 2 and "part.html:1: " in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["reports"]


def test_a_folder_in_the_place_of_a_template(own, estimate) -> None:
    (own / "simulate.html").mkdir()
    with pytest.raises(InputError, match=r"report template .*simulate\.html: Is a directory"):
        simulate_page(estimate)


def test_a_link_to_nowhere_in_the_place_of_a_template(own, estimate) -> None:
    """Ours in its place would not be what was asked for."""
    (own / "simulate.html").symlink_to("gone.html")
    with pytest.raises(InputError, match=r"report template .*simulate\.html: No such file"):
        simulate_page(estimate)


def test_a_template_that_nobody_has() -> None:
    with pytest.raises(InputError, match=r"report template other\.html: no template 'other\.html' in .*reports"):
        render("other.html", {})


@pytest.mark.parametrize("path", [".", "nowhere/page.html", "reports/simulate.html/page.html"])
def test_a_path_that_cannot_be_written(own, capsys, path) -> None:
    (own / "simulate.html").write_text("page")
    assert cli.run([*ASK, "--html", path], "tensorcast") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --html") and error.count("\n") == 1


def test_templates_that_ship_trust_no_text() -> None:
    for path in SHIPPED.glob("*.html"):
        assert "| safe" not in path.read_text("utf-8") and "|safe" not in path.read_text("utf-8"), path
