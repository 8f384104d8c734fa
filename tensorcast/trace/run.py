"""One forward of a deployed model on meta, traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from tensorcast.layers.attention import InterceptAttention
from tensorcast.layers.context_parallel import require_read
from tensorcast.layers.mtp import run_drafts
from tensorcast.layers.patching import Replacement, patched, replacements, without_autocast
from tensorcast.models.recipes import VISION, Step
from tensorcast.plan import TRAIN
from tensorcast.trace.context import Context, entered
from tensorcast.trace.faults import said_in_one_line
from tensorcast.trace.kept import Kept, logits_in_parts, run_loss
from tensorcast.trace.liveness import Liveness, storages, tensors_in
from tensorcast.trace.spread import Spread
from tensorcast.trace.tracer import Tracer
from tensorcast.transformer_model import TransformerModel
from tensorcast.vision.encode import encode_images, vision_inputs
from tensorcast.vision.host import HostNumbers, Literals
from tensorcast.vision.rules import all_together


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
    spread = Spread(model.plan.tp) if model.plan.sequence_parallel and phase != VISION else None
    tracer = Tracer(paths=frame.paths, memory=Liveness(frame.resident), spread=spread)
    context = Context(step=step, model=model, tracer=tracer)
    with torch.no_grad(), torch.device("meta"), entered(context), patched(frame.functions):
        inputs = vision_inputs(model, step) if phase == VISION else model.blueprint.inputs(model, step)
        tracer.memory.resident(tensors_in(inputs))
        drafts = model.drafts is not None and phase != VISION
        hidden = _Capture(model.final_norm) if drafts else None
        with InterceptAttention(), tracer, known_values(inputs):
            if phase == TRAIN:
                tracer.kept = Kept(frame.resident, inputs)
            with said_in_one_line(model), logits_in_parts(model) if phase == TRAIN else nullcontext() as parts:
                result = encode_images(model, inputs) if phase == VISION else model.module(**inputs)
            if phase == TRAIN:
                run_loss(model, result, batch, tokens, *parts)
            if hidden is not None:
                run_drafts(model, hidden.taken(), inputs["input_ids"], context.block_options)
        del result
    require_read(context)
    return tracer


def trace_images(model: TransformerModel) -> Tracer:
    """The pass over the images of one request, from which the model knows how many tokens they become."""
    if all_together(model) and not model.image_counts:
        counts = {size: _tokens_of(model, size) for size in {*model.deployment.images}}
        model.image_counts = tuple(counts[size] for size in model.deployment.images)
    return trace_step(model, VISION, 1, 1, 0)


def _tokens_of(model: TransformerModel, size: tuple[int, int]) -> int:
    """Tokens that one image becomes."""
    try:
        model.shown = (size,)
        trace_step(model, VISION, 1, 1, 0)
        return model.image_tokens
    finally:
        model.shown = model.deployment.images


@contextmanager
def known_values(inputs) -> Iterator[None]:
    """Where inputs have values (most have none), whole numbers keep them, and so do those written in the code."""
    if all(t.is_meta for t in tensors_in(inputs)):
        yield
    else:
        with HostNumbers(), Literals():
            yield


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
            functions=[*replacements(module, model.patches), without_autocast()],
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
