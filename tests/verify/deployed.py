"""Models as this library deploys them, traced; and what their traces add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from tensorcast.errors import KernelError
from tensorcast.kernels.choice import KernelRequest
from tensorcast.layers.attention import INTERFACE, register_interface
from tensorcast.models.build import build_blueprint
from tensorcast.models.reference import ModelSource
from tensorcast.ops import operator_named
from tensorcast.trace.run import trace_step
from tensorcast.trace.tracer import Call, Tracer
from tensorcast.transformer_model import Deployment, TransformerModel

ALL_PAIRS = ("attention=eager",)


def deploy(source: ModelSource, *kernels: str, dtype: str | None = None, **deployment) -> TransformerModel:
    """The model after the nine steps, with `kernels` as on the command line."""
    register_interface()
    blueprint = build_blueprint(source, dtype=dtype, attn_implementation=INTERFACE)
    requests = tuple(KernelRequest.parse(text) for text in kernels)
    return TransformerModel(blueprint, Deployment(kernels=requests, **deployment))


def has_slot(model: TransformerModel, op: str) -> bool:
    return any(slot.op == op for slot in model.kernels.slots)


def as_stock(make: Callable[..., TransformerModel]) -> TransformerModel:
    """`make(*kernels)` with all pairs computed, and keys and values expanded where attention is latent, as the stock
    code does; what attention knows one kernel of keeps that."""
    plain = make()
    kernels = [form for form in (*ALL_PAIRS, "mla=expanded") if has_slot(plain, form.partition("=")[0])]
    model = make(*kernels)
    try:
        trace_step(model, "prefill", 1, 8, 0)
    except KernelError:
        return plain
    return model


def matrix_flops(calls: Iterable[Call], without: Iterable[str] = ()) -> float:
    """FLOPs of matrix products over all layers that the calls stand for."""
    return sum(
        float(operator_named(c.op).work(c.dims, c.attrs).matrix_flops) * len(c.layers or [0])
        for c in calls
        if c.op not in set(without)
    )


def peak_bytes(tracer: Tracer) -> int:
    """Most bytes in use at any moment of the trace."""
    return max(tracer.memory.peak, *(max(call.live, call.before) for call in tracer.calls))


def record(module: torch.nn.Module, **inputs) -> Tracer:
    """What any module runs for `inputs`, on whatever device they are."""
    tracer = Tracer(paths={id(m): path for path, m in module.named_modules()})
    tracer.memory.resident((*module.parameters(), *module.buffers()))
    tracer.memory.resident(v for v in inputs.values() if isinstance(v, torch.Tensor))
    with torch.no_grad(), tracer:
        result = module(**inputs)
    del result
    return tracer
