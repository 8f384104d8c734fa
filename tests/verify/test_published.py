"""Published configurations have their class's own parameter count, and the quantisation they state reaches the weights.

A sample always, all of them nightly; `benchmarks/published.py` prints the same figures.
"""

from __future__ import annotations

import pytest

from tests.verify.published import CONFIGS, Published, look, references

REFUSED = {"moonshotai--Kimi-K3": "no model code for kimi_k3: transformers' kimi_linear lacks its latent experts"}
"""Published models that no code at hand holds: refused, never built as another."""
NO_LIBRARY_CLASS = {"nvidia--Llama-3_3-Nemotron-Super-49B-v1": 49_867_145_216}
"""Built by our own code; the count is that of the published weights."""
needs_configs = pytest.mark.skipif(not CONFIGS.is_dir(), reason="no published configurations beside the checkout")


@pytest.mark.parametrize(
    "name, shares",
    [
        ("gpt-oss-20b", {"mxfp4": 91.37, "bf16": 8.63}),
        ("deepseek-v4-flash", {"w:mxfp4 a:fp8": 97.43, "fp8-block": 2.06, "bf16": 0.50, "fp32": 0.01}),
        ("qwen3-0.6b", {"bf16": 100.0}),
    ],
)
def test_weight_formats_of_the_catalogue(name, shares):
    found = look(Published(name, "catalogue", name))
    assert (found.problem, found.parameters) == ("", found.library)
    assert {label: round(100 * share, 2) for label, share in found.shares.items()} == shares


@needs_configs
def test_a_list_of_modules_reaches_them_all():
    """Half of these modules are listed one by one with a format each; the towers and the small projections are not."""
    found = look(_published("nvidia--Qwen3.6-27B-NVFP4"))
    assert {label: round(100 * share, 2) for label, share in found.shares.items()} == {
        "w:nvfp4 a:bf16": 67.20,
        "w:fp8 a:fp8 static": 26.37,
        "bf16": 6.43,
    }


@needs_configs
def test_what_no_class_holds_is_refused():
    for name, reason in REFUSED.items():
        assert reason in look(_published(name)).problem


@needs_configs
@pytest.mark.nightly
def test_every_published_configuration():
    found = [look(published) for published in references()]
    rows = {row.published.name: row for row in found}
    assert {row.published.group for row in found} == {"catalogue", "pipeline", "llm", "llm_dirs", "diffusers"}
    assert {name: row.problem for name, row in rows.items() if row.problem and name not in REFUSED} == {}
    ours = {row.published.name: row.parameters for row in found if isinstance(row.library, str)}
    assert ours == NO_LIBRARY_CLASS
    stated = {name for name, row in rows.items() if row.method not in ("", "none")}
    assert len(stated) >= 50
    assert {name: rows[name].quantised for name in stated if rows[name].quantised < 0.6} == {}
    assert {name: row.quantised for name, row in rows.items() if name not in stated and row.quantised} == {}


def _published(name: str) -> Published:
    return next(published for published in references() if published.name == name)
