"""Figures of the answer itself, beside its phases."""

from __future__ import annotations

import pytest

import tensorcast as tc
from tensorcast.memory import Memory

SHORT = {"model": "qwen3-0.6b", "hw": "h100-sxm", "layers": 2, "input_len": 16, "output_len": 12, "chunk": 2048}


@pytest.mark.parametrize("phase", ["auto", "prefill"])
def test_what_fits_does_not_depend_on_what_was_traced_before(own_folder, phase) -> None:
    """A prompt that one chunk holds takes no pass behind another, of which the longest context has many."""
    fresh = tc.simulate(**SHORT, phase=phase).memory
    tc.simulate(**SHORT | {"input_len": 6001}, phase=phase)
    assert tc.simulate(**SHORT, phase=phase).memory == fresh
    (row,) = tc.sweep(**SHORT, phase=phase, cache=False).to_dict("records")
    assert (row["max_context"], row["max_batch"]) == (fresh["max_context"], fresh["max_batch"])
    assert fresh["max_context"] > 2048


def test_whole_bytes_add_up() -> None:
    """Polynomials give 1846542335.9999998 for a whole number of bytes."""
    held = Memory(
        weights=811706777600, kv_cache=2642411520.0, activation_peak=1846542335.9999998, workspace=0.0,
        reserved=1073741824, capacity=24e9,
    ).to_dict()  # fmt: skip
    assert held["activation_peak_bytes"] == 1846542336
    parts = ("weights", "kv_cache", "activation_peak", "workspace", "reserved")
    assert sum(held[f"{part}_bytes"] for part in parts) == held["total_bytes"]
