"""Every model class of diffusers, built from its default configuration, traced, and counted against torch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.diffusion.canvas import Canvas, ratios
from tensorcast.diffusion.families import denoiser
from tensorcast.diffusion.pipelines import ratios_of
from tensorcast.diffusion.work import denoise_work
from tensorcast.errors import TensorcastError
from tensorcast.layers.attention import INTERFACE, register_interface
from tensorcast.layers.patching import patched, without_autocast
from tensorcast.models.build import build_blueprint
from tensorcast.models.recipes import Step
from tensorcast.models.reference import VAE, ModelSource, resolve_model
from tensorcast.ops import operator_named
from tensorcast.plan import ParallelPlan
from tensorcast.trace.context import Context, entered
from tensorcast.trace.run import known_values, trace_step
from tensorcast.transformer_model import Deployment, TransformerModel, deployed_model

SIDE = 512
"""Pixels of one side of the surveyed picture; a multiple of what every class joins into a token."""
ROOMS = ("transformers", "unets", "controlnets", "autoencoders")


@dataclass
class Finding:
    """What became of one class. `reason`: why it was not traced. `counted` FLOP of the untouched model by torch's own
    counter, attention by its formula; None where it does not run so, with the cause in `uncounted`."""

    name: str
    room: str
    reason: str = ""
    parameters: int = 0
    frames: int = 1
    flops: float = 0.0
    counted: float | None = None
    uncounted: str = ""
    operators: int = 0
    seconds: float = 0.0
    unknown: tuple[str, ...] = ()
    split: dict[str, str] = field(default_factory=dict)  # "tp" and "sp" with two ranks: "yes", or why not


def model_classes() -> dict[str, type]:
    """Every model class that diffusers ships, by name."""
    import diffusers.models as library
    from diffusers.models.modeling_utils import ModelMixin

    found = {name: getattr(library, name, None) for name in sorted(dir(library))}
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, ModelMixin) and c is not ModelMixin}


def default_source(name: str) -> ModelSource:
    """The source that a class's own default configuration makes, fields left open filled in by its family."""
    parameters = inspect.signature(model_classes()[name].__init__).parameters.values()
    stated = {p.name: p.default for p in parameters if p.default is not p.empty}
    stated = {field: list(v) if isinstance(v, tuple) else v for field, v in stated.items()}  # as JSON has them
    source = resolve_model({"_class_name": name, **stated, **denoiser(name).defaults})
    return replace(source, phases=VAE) if room_of(model_classes()[name]) == "autoencoders" else source


def room_of(code: type) -> str:
    """The folder of diffusers that a class lies in."""
    return next((part for part in code.__module__.split(".") if part in ROOMS), "others")


def look_at(name: str, *, kinds: Iterable[str] = ("tp", "sp")) -> Finding:
    """Build, deploy, trace and count one class; `kinds` of plans that two ranks may share it by."""
    found = Finding(name, room_of(model_classes()[name]))
    register_interface()
    if denoiser(name).alone:
        found.reason = f"not run by itself: {denoiser(name).alone}"
        return found
    try:
        source = default_source(name)
        canvas = canvas_of(source, found.room)
        step = _step(source, canvas)
        model = _deployed(source, canvas)
        began = time.process_time()
        tracer = trace_step(model, step.phase, step.batch, step.tokens, 0)
    except Exception as cause:
        if not isinstance(cause, TensorcastError):
            found.reason = f"{type(cause).__name__}: "
        found.reason += " ".join(str(cause).split())
        return found
    found.seconds = time.process_time() - began
    found.parameters, found.frames = model.parameters, canvas.frames
    found.operators, found.unknown = len(tracer.calls), tuple(sorted(tracer.uncosted))
    found.flops = matrix_flops(tracer.calls)
    try:
        found.counted = counted(source, canvas, step)
    except Exception as cause:
        found.uncounted = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
    if source.phases != VAE:
        found.split = {kind: _splits(source, canvas, kind, tracer.calls) for kind in kinds}
    return found


def trace(source: ModelSource, canvas: Canvas, **plan: int) -> Any:
    """The trace of a step of two pictures, on one rank of a plan."""
    register_interface()
    step = _step(source, canvas)
    return trace_step(_deployed(source, canvas, **plan), step.phase, step.batch, step.tokens, 0)


def _step(source: ModelSource, canvas: Canvas) -> Step:
    return Step(source.phases[0], 2, canvas.text_tokens, 0)


def canvas_of(source: ModelSource, room: str) -> Canvas:
    """A small picture or video that the class takes: two groups of frames at most where it makes videos."""
    if room == "autoencoders":
        family, time = denoiser(str(source.config["_class_name"])), ratios_of(source.config)[1] or 1
        return Canvas(SIDE, SIDE, family.frames or 2 * time + 1, 1)
    work, _ = denoise_work({}, source)
    family, frames = denoiser(str(source.config["_class_name"])), work["frames"]
    along = ratios(source.config, source.beside)[0].time
    if frames > 1 and "l" not in family.axes and along > 1:
        frames = 2 * along + (0 if family.whole_groups else 1)
    return Canvas(SIDE, SIDE, frames, work["input_len"])


def matrix_flops(calls: Any) -> float:
    """FLOP of products over all layers that the calls stand for."""
    return sum(float(operator_named(c.op).work(c.dims, c.attrs).matrix_flops) * len(c.layers or [0]) for c in calls)


def counted(source: ModelSource, canvas: Canvas, step: Step) -> float:
    """FLOP of the untouched model on meta: torch's counter, and attention, which it leaves out, by its formula."""
    blueprint = build_blueprint(source, attn_implementation="eager")
    model = _Untouched(blueprint, canvas)
    attention = AttentionFormula()
    context = Context(step=step, model=model)
    with torch.no_grad(), torch.device("meta"), entered(context), patched([without_autocast()]):
        inputs = blueprint.inputs(model, step)
        with attention, FlopCounterMode(display=False) as counter, known_values(inputs):
            blueprint.module(**inputs)
    return counter.get_total_flops() + attention.flops


@dataclass(frozen=True)
class _Untouched:
    """As much of a deployed model as the inputs of a blueprint look at."""

    blueprint: Any
    canvas: Canvas

    @property
    def module(self) -> torch.nn.Module:
        return self.blueprint.module


class AttentionFormula(torch.overrides.TorchFunctionMode):
    """Counts the products of every fused attention, 2 · heads · queries · keys · (widths of key and value), unrun."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        functions = torch.nn.functional
        if func is functions.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if func is functions.multi_head_attention_forward:
            with _instead(functions, "scaled_dot_product_attention", self._attend):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(self, query, key, value, *_, **__):
        *batch, queries, width = query.shape
        self.flops += 2.0 * torch.Size(batch).numel() * queries * key.shape[-2] * (width + value.shape[-1])
        return query.new_zeros((*batch, queries, value.shape[-1]))


@contextmanager
def _instead(space: Any, name: str, stand_in: Any) -> Iterator[None]:
    original = getattr(space, name)
    setattr(space, name, stand_in)
    try:
        yield
    finally:
        setattr(space, name, original)


def _deployed(source: ModelSource, canvas: Canvas, **plan: int) -> TransformerModel:
    blueprint = build_blueprint(source, attn_implementation=INTERFACE)
    return deployed_model(blueprint, Deployment(canvas=canvas, plan=ParallelPlan(**plan)))


def _splits(source: ModelSource, canvas: Canvas, kind: str, whole: list) -> str:
    """Whether two ranks can share a step, or the reason."""
    try:
        tracer = trace(source, canvas, **{kind: 2})
    except Exception as reason:
        kind = "" if isinstance(reason, TensorcastError) else f"{type(reason).__name__}: "
        return kind + " ".join(str(reason).split())
    attention = [matrix_flops(c for c in calls if c.op == "attention") for calls in (whole, tracer.calls)]
    if kind == "tp" and 2 * attention[1] > 1.01 * attention[0]:  # attention that pools a prompt stays whole
        return f"{attention[1] / attention[0]:.1%} of the attention is left on a rank"
    return "yes"
