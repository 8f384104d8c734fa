"""Comparisons against brute force: who leads by the definition, and `tc.simulate` at every point of a curve."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tensorcast as tc
from tensorcast.hardware.load import hardware
from tensorcast.search.comparison.stretches import leads, pairs
from tests.verify.tiny import TINY

SMALL = {"model": TINY["llama"], "hw": "h100-sxm"}
COPIES = {"model": "llama-3.1-8b", "hw": "h100-sxm"}
"""Where two copies of the attention meet four slices, the order changes to and fro: batches must divide by two."""


@pytest.fixture(autouse=True)
def alone(plain_folder) -> None:
    """In an empty folder."""


def simulated(**options) -> dict:
    """What `tc.simulate` says, `reason` where it refuses."""
    try:
        found = tc.simulate(**options).to_dict()
    except tc.TensorcastError as error:
        return {"reason": str(error), "fits": False}
    return {**found["metrics"], **found["memory"], "reason": ""}


def expanded(stretches) -> list[tuple]:
    """(point, who leads, who counts) for every whole number that the stretches span."""
    return [(at, each.best, each.among) for each in stretches for at in range(each.first, each.last + 1)]


VALUES = arrays(float, st.tuples(st.integers(2, 4), st.integers(1, 30)), elements=st.sampled_from([1, 2, 2.5, np.nan]))


@settings(max_examples=150, deadline=None)
@given(VALUES, st.booleans(), st.integers(1, 9))
@example(np.array([[1.0, 1.0 + 1e-12, 1.0 + 1e-6], [1.0, 1.0, 1.0]]), False, 1)
def test_stretches_are_those_of_the_definition_and_partition_the_points(values, less: bool, start: int) -> None:
    points = np.arange(start, start + values.shape[1])

    def best(column: dict[int, float]) -> tuple[int, ...]:
        top = (min if less else max)(column.values(), default=math.nan)
        return tuple(who for who, value in column.items() if math.isclose(value, top, rel_tol=1e-9))

    columns = [{who: value for who, value in enumerate(column) if value == value} for column in values.T]
    whole = expanded(leads(values, points, less))
    assert [(at, who) for at, who, _ in whole] == [
        (at, best(column)) for at, column in zip(points, columns, strict=True)
    ]
    for pair in pairs(values, points, less):
        both = [{who: v for who, v in column.items() if who in (pair.first, pair.second)} for column in columns]
        wanted = [(at, best(column), tuple(column)) for at, column in zip(points.tolist(), both, strict=True)]
        assert expanded(pair.stretches) == wanted
        compared = [(at, who) for at, who, among in wanted if len(among) == 2]
        changes = [at for (_, before), (at, now) in pairwise(compared) if before != now]
        assert list(pair.break_even) == changes


def test_of_neighbouring_stretches_no_two_say_the_same() -> None:
    values = np.array([[1.0, 1, 3, np.nan, np.nan], [2.0, 2, 2, 2, np.nan]])
    (pair,) = pairs(values, np.arange(4, 9), less=True)
    told = [(each.first, each.last, each.best, each.among) for each in pair.stretches]
    assert told == [(4, 5, (0,), (0, 1)), (6, 6, (1,), (0, 1)), (7, 7, (1,), (1,)), (8, 8, (), ())]
    assert pair.break_even == (6,)
    assert pair.stretches[0].most == 2 and pair.stretches[1].most == 1.5 and math.isnan(pair.stretches[2].most)


def test_every_batch_agrees_with_simulate_around_break_even_points_that_go_to_and_fro() -> None:
    found = tc.compare({"dp": 2}, {"tp": 4}, **COPIES, values="1:40")
    assert found.names == ["dp 2 tp 1", "dp 1 tp 4"]
    (pair,) = found.curve.pairs
    assert pair.break_even == (23, 33, 34)
    wanted, metric = [], "tokens_per_s_per_device"
    for batch in range(1, 41):
        rows = [simulated(**COPIES, batch=batch, **plan) for plan in ({"dp": 2}, {"tp": 4})]
        figures = {who: row[metric] for who, row in enumerate(rows) if row["fits"]}
        wanted.append((batch, (max(figures, key=figures.get),), tuple(figures)))
        for who, row in enumerate(rows):
            if row["fits"]:
                assert found.curve.values[who][batch - 1] == pytest.approx(row[metric], rel=1e-9)
    assert expanded(pair.stretches) == wanted
    frame = found.frame
    assert len(frame) == 80 and frame["batch"].tolist() == [*range(1, 41)] * 2
    assert (
        frame["reason"][0] == "--dp 2 needs at least as many sequences: --batch 1" and frame["fits"].isna().sum() == 1
    )


def test_where_one_stops_fitting_it_stops_counting() -> None:
    asked = {"model": "llama-3.1-8b", "input_len": 2048, "output_len": 64}
    found = tc.compare(**asked, hw=["h100-sxm", "h200-sxm"], values="1:512:x2")
    for number, hw in enumerate(("h100-sxm", "h200-sxm")):
        fits, unfit = found.curve.standings(number)
        assert (fits.first, fits.state, unfit.state, unfit.last) == (1, "fits", "does not fit", 512)
        assert unfit.first == fits.last + 1 == simulated(**asked, hw=hw)["max_batch"] + 1
        assert simulated(**asked, hw=hw, batch=fits.last)["fits"]
        assert not simulated(**asked, hw=hw, batch=unfit.first)["fits"]
    both, alone, none = found.curve.pairs[0].stretches
    assert (both.among, alone.among, none.among) == ((0, 1), (1,), ())
    assert both.last == found.curve.standings(0)[0].last and alone.last == found.curve.standings(1)[0].last


def test_figures_and_ratios_are_those_of_simulate() -> None:
    asked = {"model": SMALL["model"], "batch": 4, "input_len": 100, "output_len": 20}
    found = tc.compare(**asked, hw=["h100-sxm", "ascend-910c-die"], along=None).to_dict()
    first, second = (simulated(**asked, hw=hw) for hw in ("h100-sxm", "ascend-910c-die"))
    assert found["curve"] is None and found["ratios_to"] == "h100-sxm"
    for row, wanted in zip(found["alternatives"], (first, second), strict=True):
        for name in (
            "ttft_s",
            "tpot_s",
            "tokens_per_s_per_device",
            "tokens_per_s_per_user",
            "total_bytes",
            "max_batch",
        ):
            assert row["figures"][name] == pytest.approx(wanted[name], rel=1e-9)
            assert row["ratios"][name] == pytest.approx(wanted[name] / first[name], rel=1e-9)
        assert row["fits"] and row["work"] == {"batch": 4, "input_len": 100, "output_len": 20}


@pytest.mark.parametrize("along", ["input_len", "output_len"])
def test_along_lengths(along: str) -> None:
    asked = {"model": TINY["windows"], "hw": "h100-sxm", "input_len": 20, "output_len": 30}
    found = tc.compare(**asked, tp=[1, 2], along=along, values="2:60", metric="request_latency_s")
    assert found.curve.figure.less and found.curve.every_number and len(found.curve.points) == 59
    for number, tp in enumerate((1, 2)):
        for at in (2, 15, 16, 17, 60):
            wanted = simulated(**asked | {along: at}, tp=tp)["request_latency_s"]
            assert found.curve.values[number][at - 2] == pytest.approx(wanted, rel=1e-9)
    best = found.curve.values.argmin(axis=0).tolist()
    assert [who for _, (who,), _ in expanded(found.curve.leads)] == best


def test_clients_at_all_times_get_the_figures_under_load() -> None:
    found = tc.compare({"tp": 1}, {"tp": 2}, **SMALL, along="concurrency", values=[1, 3, 8], batch=2)
    frame = found.frame.set_index(["alternative", "concurrency"])
    for tp in (1, 2):
        for clients in (1, 3, 8):
            row, wanted = frame.loc[f"tp {tp}", clients], simulated(**SMALL, tp=tp, concurrency=clients)
            assert row["ttft_loaded_s"] == pytest.approx(wanted["ttft_loaded_s"], rel=1e-9)
            assert row["tpot_loaded_s"] == pytest.approx(wanted["tpot_loaded_s"], rel=1e-9)
            # A client asks again when it has its answer: clients x tokens of an answer / its time.
            latency = wanted["ttft_loaded_s"] + 101 * wanted["tpot_loaded_s"]
            assert row["tokens_per_s"] == pytest.approx(clients * 102 / latency, rel=1e-9)
    assert "ttft_s" not in found.frame and found.curve.points.tolist() == [*range(1, 9)]


def test_cost_and_energy_by_hand_and_the_cheaper_one_leads() -> None:
    found = tc.compare(
        {"hw": "h100-sxm", "price_per_hour": 4.0}, {"hw": "h200-sxm", "price_per_hour": 1.0},
        model=SMALL["model"], metric="cost_per_million_tokens", values="1:8",
    )  # fmt: skip
    for each, price in zip(found.alternatives, (4.0, 1.0), strict=True):
        rate = each.work["tokens_per_s_per_device"]
        assert each.work["cost_per_million_tokens"] == pytest.approx(1e6 / (rate * 3600) * price)
        assert each.work["joules_per_token"] == pytest.approx(hardware(each.options["hw"]).tdp_w / rate)
    assert [(s.first, s.last, s.best) for s in found.curve.leads] == [(1, 8, (1,))]
    assert found.to_dict()["alternatives"][1]["options"]["price_per_hour"] == 1.0
    assert found.names == ["h100-sxm price 4.0", "h200-sxm price 1.0"]


def test_a_refused_alternative_is_a_row_with_its_reason() -> None:
    found = tc.compare(**SMALL, tp=[3, 1, 2], values="1:4", batch=2)
    refused, *good = found.to_dict()["alternatives"]
    assert refused["reason"] == simulated(**SMALL, tp=3)["reason"] != "" and refused["figures"] == {}
    assert [row["reason"] for row in good] == ["", ""]
    assert found.base == 1 and good[0]["ratios"]["ttft_s"] == 1 and refused["ratios"] == {}
    standing = found.curve.standings(0)
    assert [(each.first, each.last, each.state) for each in standing] == [(1, 4, "refused")]
    assert "tp" in standing[0].reason and found.table["reason"].tolist()[1:] == ["", ""]
    assert all(0 not in each.best for each in found.curve.leads)


def test_refused_at_the_asked_work_alone() -> None:
    found = tc.compare(**SMALL, dp=2, tp=[1, 2], values="1:4")
    assert all("--dp 2" in each.work["reason"] for each in found.alternatives) and not found.fit
    assert [(s.first, s.last, len(s.among)) for s in found.curve.pairs[0].stretches] == [(1, 1, 0), (2, 4, 2)]


def test_batches_that_cannot_be_priced_together_are_compared_at_the_values_given() -> None:
    found = tc.compare(**SMALL, overlap=["none", "streams"], tp=2, values="1:8:x2")
    assert found.curve.points.tolist() == [1, 2, 4, 8] and not found.curve.every_number
    assert found.to_dict()["curve"]["every_number"] is False


def test_what_all_have_is_in_no_name_and_equal_texts_are_numbered() -> None:
    found = tc.compare({"layers": 2}, {"layers": 2, "quant": "fp8"}, {}, **SMALL, along=None)
    assert found.names == ["layers 2 quant auto", "layers 2 quant fp8", "quant auto"]
    other = {**SMALL["model"], "vocab_size": 640}
    assert tc.compare(model=[SMALL["model"], other], hw="h100-sxm", along=None).names == [
        "LlamaForCausalLM (1)", "LlamaForCausalLM (2)",
    ]  # fmt: skip


def test_work_that_is_not_the_same_is_said() -> None:
    longer = {**SMALL["model"], "max_position_embeddings": 1024}
    found = tc.compare(model=[SMALL["model"], longer], hw="h100-sxm", values="1:2")
    assert [each.work["input_len"] for each in found.alternatives] == [410, 820]
    assert found.warnings[-1].startswith("the work is not the same in all alternatives: --input-len, --output-len;")
    assert tc.compare(**SMALL, tp=[1, 2], along=None).warnings == []


def test_the_comparison_is_plain_json_and_a_short_text() -> None:
    found = tc.compare(**SMALL, tp=[1, 2], values="1:4")
    again = json.loads(json.dumps(found.to_dict()))
    assert again["curve"]["pairs"][0]["alternatives"] == ["tp 1", "tp 2"] and again["schema"] == 1
    assert repr(found) == "Comparison(tp 1, tp 2, tokens_per_s_per_device along batch)"
    cell = found._repr_html_()
    for text in ("<b>2 alternatives", "  - A  tp 1 · 1 device", "Who leads (every batch from 1 to 4)"):
        assert text in cell, text
    figure = found.plot_curve()
    assert figure.layout.title.text == "tokens_per_s_per_device along batch"
    assert figure.layout.xaxis.dtick == 1, "no ticks between whole numbers"
    assert list(figure.data[0].y) == pytest.approx(found.frame.tokens_per_s_per_device[:4].tolist(), rel=1e-5)
    with pytest.raises(tc.InputError, match="there is no curve with along=None"):
        tc.compare(**SMALL, tp=[1, 2], along=None).plot_curve()


WRONG = [
    ({}, "one alternative only; give an option several values"),
    ({"tp": [1, 2, 4], "pp": [1, 2, 4]}, "9 alternatives; compare takes at most 8, `sweep` any number"),
    ({"tp": [1, 2], "metric": "tpot"}, "--metric 'tpot': no such figure; there is tpot_s"),
    ({"tp": [1, 2], "metric": "image_latency_s"}, "--metric image_latency_s: no alternative has it along batch; there"),
    ({"tp": [1, 2], "along": "tp"}, "--along 'tp': one of batch, input-len, output-len, concurrency, none"),
    ({"tp": [1, 2], "values": "8:1"}, "--values: '8:1' is empty: it starts above its end"),
    ({"tp": [1, 2], "values": [1.5]}, "--values 1.5: a whole number"),
    ({"tp": [1, 2], "values": [None, 1]}, "--values: none is no value of a curve"),
    ({"tp": [1, 2], "values": [-1, 0]}, "--along batch: at all values every alternative is refused: --batch -1"),
    ({"tp": [1, 2], "along": None, "values": 3}, "--values is about the curve, and --along none asks for no curve"),
    ({"tp": [1, 2], "along": None, "metric": "ttft_s"}, "--metric is about the curve"),
    ({"tp": [1, 2], "price_per_hour": 0}, "--price 0: what a device costs an hour, above 0"),
    ({"tp": [1, 2], "price_per_hour": []}, "price_per_hour: an empty list"),
    ({"batch": [1, 2]}, "--batch: several values, but the curve runs along it; give its range as --values"),
    ({"tp": [3, 5]}, "every alternative is refused: --tp 3"),
    ({"tp": [1, 2], "pt": 3}, "unknown option 'pt'; nearest: tp"),
    ({"tp": [1, 2], "hw": None}, "no machine; give hw (--hw)"),
    (
        {"tp": [1, 2], "input_len": 64, "output_len": 9, "prefix_len": 8, "along": "concurrency"},
        "--along concurrency: at all values every alternative is",
    ),
]


@pytest.mark.parametrize(("options", "line"), WRONG, ids=[str(each[0]) for each in WRONG])
def test_wrong_arguments_are_one_line(options: dict, line: str) -> None:
    with pytest.raises(tc.TensorcastError) as caught:
        tc.compare(**{**SMALL, **options})
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_an_alternative_given_twice_or_as_no_mapping() -> None:
    with pytest.raises(tc.InputError, match="alternatives 1 and 2 are the same"):
        tc.compare({"tp": 1}, {}, **SMALL)
    with pytest.raises(tc.InputError, match="'tp 2': an alternative is a mapping of options"):
        tc.compare("tp 2", {"tp": 1}, **SMALL)
