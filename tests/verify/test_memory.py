"""The activation peak from a trace without memory, beside what the CPU allocator hands out in a real run."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.verify import stock
from tests.verify.deployed import peak_bytes, record
from tests.verify.tiny import TINY, tiny


def allocator_peak(module, **inputs) -> tuple[int, int]:
    """(most bytes allocated at once during a forward, bytes left when its result is gone)."""
    with torch.no_grad():
        module(**inputs)  # whatever is allocated once is not part of a step
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            module(**inputs)
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak, live


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("batch, tokens", [(2, 24), (1, 200)])
def test_predicted_peak_is_the_allocators(name, tmp_path, batch, tokens):
    source = tiny(name, tmp_path)
    with torch.device("meta"):
        inputs = stock.step_inputs(batch, tokens, 0, torch.float32)
        predicted = peak_bytes(record(stock.build(source), **inputs, use_cache=False))
    real = stock.build_real(source)
    measured, left = allocator_peak(real, **stock.step_inputs(batch, tokens, 0, torch.float32), use_cache=False)
    assert left == 0
    assert measured > 50_000
    assert predicted == pytest.approx(measured, rel=0.01)


def test_the_peak_lies_between_operators_too(tmp_path):
    """Tensors that views and allocations make count before the next operator is seen."""

    class Doubling(torch.nn.Module):
        def forward(self, x):
            scratch = torch.empty(x.shape[0] * 100)
            del scratch
            return x + 1

    with torch.device("meta"):
        predicted = peak_bytes(record(Doubling(), x=torch.zeros(1000)))
    measured, _ = allocator_peak(Doubling(), x=torch.zeros(1000))
    assert predicted == measured == 400_000
