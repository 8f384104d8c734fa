"""One forward of a deployed model on meta, traced."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tensorcast.layers.attention import InterceptAttention
from tensorcast.layers.mtp import run_drafts
from tensorcast.layers.patching import Replacement, patched, replacements
from tensorcast.models.recipes import Step
from tensorcast.trace.context import Context, entered
from tensorcast.trace.faults import said_in_one_line
from tensorcast.trace.liveness import Liveness, storages, tensors_in
from tensorcast.trace.tracer import Tracer
from tensorcast.transformer_model import TransformerModel


def trace_step(
    model: TransformerModel,
    phase: str,
    batch: int,
    tokens: int,
    past: int,
    lengths: tuple[tuple[int, int], ...] = (),
) -> Tracer:
    """Run `tokens` new tokens of `batch` sequences that have `past` tokens in their cache; returns what was recorded.

    `lengths` makes the batch ragged, for models that take packed tokens: (new, in cache) of every sequence.
    """
    step = Step(phase, batch, tokens, past, lengths)
    frame = frame_of(model)
    tracer = Tracer(paths=frame.paths, memory=Liveness(frame.resident))
    context = Context(step=step, model=model, tracer=tracer)
    with torch.no_grad(), torch.device("meta"), entered(context), patched(frame.functions):
        inputs = model.blueprint.inputs(model, step)
        tracer.memory.resident(tensors_in(inputs))
        hidden = _Capture(model.final_norm) if model.drafts is not None else None
        with InterceptAttention(), tracer:
            with said_in_one_line(model):
                result = model.module(**inputs)
            if hidden is not None:
                run_drafts(model, hidden.taken(), inputs["input_ids"], context.block_options)
        del result
    return tracer


@dataclass(frozen=True)
class Frame:
    """What every trace of one deployed model needs to know about it; deployed models do not change."""

    paths: dict[int, str]  # id(module) → path
    resident: frozenset[int]  # storages of parameters and buffers
    functions: list[Replacement]  # of the model's own code, replaced while it runs


def frame_of(model: TransformerModel) -> Frame:
    """The model's frame, made on first use."""
    if "_frame" not in model.__dict__:
        module = model.module
        model.__dict__["_frame"] = Frame(
            paths={id(m): path for path, m in module.named_modules()},
            resident=storages([*module.parameters(), *module.buffers()]),
            functions=replacements(module, model.patches),
        )
    return model.__dict__["_frame"]


class _Capture:
    """The output of one module during one forward."""

    def __init__(self, module) -> None:
        self._value = None
        self._hook = module.register_forward_hook(self._keep)

    def _keep(self, module, args, result) -> None:
        self._value = result

    def taken(self):
        self._hook.remove()
        return self._value
