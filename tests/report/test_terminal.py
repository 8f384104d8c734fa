"""The terminal report says the answer, fits its width, and survives pipes."""

from __future__ import annotations

import io

import pytest

from tensorcast.report.terminal.simulate import print_report, report_lines
from tests.report.sample import op, sample


def report(estimate, **options) -> str:
    stream = io.StringIO()
    print_report(estimate, file=stream, **options)
    return stream.getvalue()


def test_the_answer_comes_first() -> None:
    lines = report(sample()).splitlines()
    assert lines[0] == "deepseek-v3 on 8 x ascend-910b2 (asked for as ascend-910b)"
    assert "TTFT        1.00 s    time to first token" in lines
    assert "TPOT        50.0 ms   time per output token, mean over all output positions" in lines
    assert "throughput  19.6 tokens/s · 2.45 per device · 19.6 per user" in lines
    assert "Memory per device  48.0 GiB of 64.0 GiB, 75.0 %  FITS" in lines


def test_precision_and_kernels_are_told() -> None:
    lines = report(sample()).splitlines()
    assert "precision   w8a8 ×426 · asked (w8a8) · kv cache bf16 · attention bf16" in lines
    at = lines.index("kernels     attention/standard ×61 = flash (default)")
    assert lines[at + 1].strip() == "mla/decode ×61 = absorbed (asked)"
    plain = sample()
    plain["quant"] = {"source": "none", "modules": {}, "kv_cache": "bf16", "attention": "bf16"}
    assert "precision   weights not quantised · kv cache bf16 · attention bf16" in report(plain).splitlines()


def test_a_machine_that_cannot_hold_the_model_says_so() -> None:
    estimate = sample(fits=False)
    estimate["memory"]["suggestions"] = []
    assert "no plan with more of these devices fits" in report(estimate)


def test_what_does_not_fit_is_said_with_what_would() -> None:
    text = report(sample(fits=False))
    assert "144 GiB of 64.0 GiB, 225 %  DOES NOT FIT" in text
    assert "missing       80.0 GiB" in text
    assert "  - --tp 32 (4 nodes): 48.0 GiB per device" in text
    assert "largest batch" not in text


@pytest.mark.parametrize("width", [76, 80, 120, 140])
@pytest.mark.parametrize("fits", [True, False])
def test_no_line_is_wider_than_asked(width: int, fits: bool) -> None:
    estimate = sample(fits=fits)
    estimate["warnings"] = ["a remark of many words " * 20, "x" * 300]
    estimate["phases"]["decode"]["ops"].append(op("o" * 60, "m" * 200, 1e-9, "communication", comm_bytes=2**50))
    assert max(len(line.plain) for line in report_lines(estimate, width=width)) <= width


def test_shares_are_of_device_time_and_the_rest_is_counted() -> None:
    text = report(sample(), top=1)
    assert "600 ms 60.0 %   matrix 2.00 P  90.0 GiB" in text
    assert "2 more: 400 ms, 40.0 %" in text
    assert "rms_norm" not in text


def test_long_modules_keep_what_tells_them_apart() -> None:
    estimate = sample()
    estimate["phases"]["prefill"]["ops"].append(op("mla_attention", "model.layers.*.self_attn.q_a_proj", 2, "memory"))
    row = next(line for line in report(estimate, top=1).splitlines() if "mla_attention" in line)
    assert row.startswith("  mla_attention self_attn.q_a_proj")


def test_top_zero_hides_the_table() -> None:
    assert "count" not in report(sample(), top=0)


def test_steps_tell_their_reason() -> None:
    text = report(sample())
    assert "  - wrap_model: applied, 1 module\n" in text
    assert "  - maybe_enable_mtp: skipped (no --mtp)\n" in text


def test_a_phase_that_was_not_asked_for_shows_no_figure() -> None:
    estimate = sample()
    del estimate["phases"]["prefill"]
    estimate["metrics"] |= {"ttft_s": None, "request_latency_s": None}
    text = report(estimate)
    assert "TTFT" not in text and "Prefill" not in text and "TPOT" in text


def test_brackets_in_names_are_not_markup() -> None:
    estimate = sample()
    estimate["warnings"] = ["[bold]layers[0][/bold] :smile:"]
    assert "  - [bold]layers[0][/bold] :smile:" in report(estimate)


def test_no_colour_in_a_pipe() -> None:
    assert "\x1b" not in report(sample())


def test_no_colour_asked(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    coloured, plain = Terminal(), Terminal()
    print_report(sample(), file=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    print_report(sample(), file=plain)
    assert "\x1b[1;32m" in coloured.getvalue()
    assert "\x1b[1;32m" not in plain.getvalue() and "\x1b[3" not in plain.getvalue()


def test_an_ascii_stream_gets_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    figures = [f"gemm (int8) ±{error} %, product y[m, n] = x[m, k] · w[n, k]ᵀ → y" for error in range(10)]
    print_report(sample() | {"provenance": {"calibrated": ", ".join(figures)}}, file=stream)
    stream.flush()
    assert b"tp 8 | ep 1" in raw.getvalue()
    assert b"(int8) +-9 %" in raw.getvalue() and b"\\" not in raw.getvalue()
    assert max(map(len, raw.getvalue().splitlines())) <= 80


def test_a_ragged_batch_is_shown_and_unused_fields_are_not() -> None:
    estimate = sample()
    estimate["workload"] |= {"seq_lens": [128, 4096, 77], "chunk": 0, "acceptance_rate": 0.0}
    text = report(estimate)
    assert "seq lens 128, 4096, 77" in text and "acceptance rate 0.0" in text and "chunk" not in text
