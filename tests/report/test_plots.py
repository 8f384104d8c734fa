"""What an estimate shows and draws in notebooks: the figures of its JSON, nothing but plain text from names."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from math import fsum

import pytest

import tensorcast as tc
from tensorcast.report.notebook.cells import estimate_cell
from tests.report.kinds import asked
from tests.report.sample import sample

EVIL = "<script>alert(1)</script>"
CODE = """
import sys, tensorcast as tc
estimate = tc.simulate(**{asked})
assert "<div" in estimate._repr_html_()
loaded = {{"plotly", "pandas", "torch", "pyarrow"}} & {{*sys.modules}}
assert not loaded, loaded
"""
ASKED = dict(model="qwen3-0.6b", hw="h100-sxm", tp=2, batch=4, input_len=64, output_len=8)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENSORCAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def estimate(cache) -> tc.Estimate:
    return tc.simulate(**ASKED)


def drawn(figure, *kinds: str) -> list:
    from plotly.graph_objects import Figure

    assert isinstance(figure, Figure)
    return [trace for trace in figure.data if trace.type in (kinds or ("bar", "scatter", "treemap"))]


class Text(HTMLParser):
    """The text of a piece of HTML; every element that is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.said = [], set(), ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.said += data


def test_breakdown_is_the_time_of_all_operators(estimate) -> None:
    (tree,) = drawn(estimate.plot_breakdown("prefill"), "treemap")
    assert fsum(tree["values"]) == pytest.approx(estimate.phases["prefill"].ops.time_s.sum(), rel=1e-5)


def test_roofline_has_a_point_for_each_operator_with_work(estimate) -> None:
    ops = estimate.phases["decode"].ops
    placed = ops[(ops.matrix_flops + ops.vector_flops > 0) & (ops.read_bytes + ops.write_bytes > 0) & (ops.time_s > 0)]
    points = [len(trace.x) for trace in drawn(estimate.plot_roofline(), "scatter") if trace.mode == "markers"]
    assert sum(points) == len(placed) > 5


def test_memory_adds_up(estimate) -> None:
    assert fsum(trace.x[0] for trace in drawn(estimate.plot_memory())) == estimate.memory["total_bytes"]


def test_bounds_are_shares_of_each_phase(estimate) -> None:
    bars = drawn(estimate.plot_bounds())
    for number, name in enumerate(bars[0].y):
        assert fsum(bar.x[number] for bar in bars) == pytest.approx(1)
        times = estimate.phases[name].time_by_bound_s
        assert bars[-1].x[number] == pytest.approx(times[bars[-1].name] / fsum(times.values()))


def test_communication_is_the_time_of_collectives(estimate) -> None:
    expected = fsum(
        op["time_s"] for phase in estimate.phases.values() for op in phase["ops"] if op["bound"] == "communication"
    )
    bars = [bar for bar in drawn(estimate.plot_communication()) if bar.xaxis == "x"]
    assert fsum(time for bar in bars for time in bar.x) == pytest.approx(expected, rel=1e-5) and expected > 0


def test_timeline_of_a_phase_and_of_a_layer(estimate) -> None:
    bars = drawn(estimate.plot_timeline("prefill"))
    end = max(start + time for bar in bars for start, time in zip(bar.base, bar.x, strict=True))
    assert end == pytest.approx(estimate.phases["prefill"].step_time_s, rel=1e-5)
    layer = estimate.timelines["decode"].passes[0].runs[3]
    bars = drawn(estimate.plot_timeline(run=layer.name))
    ends = [start + time for bar in bars for start, time in zip(bar.base, bar.x, strict=True)]
    assert max(ends) == pytest.approx(layer.end_s - layer.start_s, rel=1e-5)


def test_decode_is_drawn_where_nobody_says(estimate) -> None:
    assert estimate.plot_roofline() == estimate.plot_roofline("decode") != estimate.plot_roofline("prefill")


@pytest.mark.parametrize(
    ("plot", "said"),
    [
        (lambda e: e.plot_roofline("decod"), "no phase 'decod'; there is decode"),
        (lambda e: e.plot_breakdown("x"), "no phase 'x'; there is prefill, decode"),
        (lambda e: e.plot_timeline(["decode"]), "no phase ['decode']; there is decode"),
        (lambda e: e.plot_timeline("decode", "model.layers.99"), "no run 'model.layers.99'; there is model.layers."),
    ],
)
def test_unknown_names_are_said(estimate, plot, said: str) -> None:
    with pytest.raises(tc.InputError) as caught:
        plot(estimate)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_titles_and_words_below_leave_room_for_the_chart(estimate) -> None:
    for figure in (estimate.plot_memory(), estimate.plot_roofline(), estimate.plot_bounds()):
        layout = figure.layout
        assert layout.title.text.startswith("qwen3-0.6b on 2 × h100-sxm: ")
        assert layout.height - layout.margin.t - layout.margin.b > 90


def test_names_are_text(estimate) -> None:
    named = replace(estimate, _dict={**estimate._dict, "model": {**estimate._dict["model"], "name": EVIL}})
    assert "script" not in Text(named._repr_html_()).tags and EVIL in Text(named._repr_html_()).said
    assert "<" not in named.plot_memory().layout.title.text


def test_the_cell_says_the_answer(estimate) -> None:
    said = Text(estimate._repr_html_()).said
    for text in ("qwen3-0.6b on 2 × h100-sxm", "TTFT", "fits: ", "prefill, ", "decode, ", " GiB free"):
        assert text in said, text


def test_the_cell_of_what_does_not_fit() -> None:
    evil = sample(fits=False) | {"uncosted_ops": [EVIL], "warnings": [EVIL]}
    text = Text(estimate_cell(evil))
    assert "script" not in text.tags and text.said.count(EVIL) == 2
    for part in ("does not fit: 144 GiB of 64.0 GiB", "80.0 GiB missing", "--tp 32 (4 nodes): 48.0 GiB per device"):
        assert part in text.said, part


def test_training_draws_its_one_phase(cache) -> None:
    estimate = tc.simulate("qwen3-0.6b", "h100-sxm", phase="train", batch=2, input_len=64)
    assert estimate.memory["fits"] is True, "a plain truth, as in the JSON"
    there, back = (estimate.plot_timeline(run=name) for name in ("model.layers.3", "model.layers.3, backward"))
    ends = [max(start + time for bar in drawn(each) for start, time in zip(bar.base, bar.x, strict=True))
            for each in (there, back)]  # fmt: skip
    assert ends[1] > 1.5 * ends[0]
    assert estimate.plot_communication().data == () and estimate.plot_communication().layout.xaxis.visible is False
    assert "of train" in estimate.plot_breakdown().layout.title.text and "train, " in Text(estimate._repr_html_()).said


def test_nothing_heavy_is_imported_for_a_cell(estimate) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(asked=ASKED)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_makes_no_tokens_says_how_long_a_request_takes(cache, tmp_path) -> None:
    encoder = tc.simulate(**asked("encoder", tmp_path))
    assert f"request_latency_s={encoder.metrics['request_latency_s']:.6g}, fits=True" in repr(encoder)
