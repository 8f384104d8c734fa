"""What the tracer sees of a model on the meta device is what it sees of the same model running for real."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests.verify import stock
from tests.verify.deployed import record
from tests.verify.tiny import TINY, tiny


def traced(module, batch, tokens, past):
    """The record of one step, behind a cache of `past` tokens that the stock code filled itself."""
    device = next(module.parameters()).device
    with torch.device("meta") if device.type == "meta" else nullcontext():
        cache = None
        if past:
            with torch.no_grad():
                filled = module(**stock.step_inputs(batch, past, 0, torch.float32), use_cache=True)
            cache = filled.past_key_values
        inputs = stock.step_inputs(batch, tokens, past, torch.float32)
        return record(module, **inputs, past_key_values=cache, use_cache=bool(past), logits_to_keep=1)


def stream(tracer):
    return [(call.op, call.module, call.dims, call.attrs, call.live, call.before) for call in tracer.calls]


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("batch, tokens, past", [(2, 24, 0), (1, 7, 0), (3, 1, 12), (2, 4, 5)])
def test_meta_and_cpu_run_the_same_operators(name, tmp_path, batch, tokens, past):
    source = tiny(name, tmp_path)
    on_meta = traced(stock.build(source), batch, tokens, past)
    on_cpu = traced(stock.build_real(source), batch, tokens, past)
    assert len(on_meta.calls) > 150
    assert stream(on_meta) == stream(on_cpu)
    assert on_meta.uncosted == on_cpu.uncosted == {}
