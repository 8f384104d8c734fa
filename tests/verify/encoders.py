"""Encoders and encoder-decoders one after the other: do they trace, and are their FLOPs and parameters the library's?

Every class of the tables is made from its configuration class's defaults, with None repaired
(models/default_config.py). An encoder-decoder's prefill is compared: its encoder, and the decoder's first token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode

from tensorcast.errors import TensorcastError
from tensorcast.models import native
from tensorcast.models.build import count_parameters
from tensorcast.models.recipes import Step
from tensorcast.models.recipes.encoders import encoder_inputs, sequence_start
from tensorcast.models.reference import ModelSource, from_mapping
from tensorcast.models.roles import FORWARD
from tensorcast.plan import ParallelPlan
from tensorcast.trace.run import trace_step
from tests.verify import stock
from tests.verify.deployed import ALL_PAIRS, deploy, has_slot, matrix_flops

TABLES = (
    "MASKED_LM", "TEXT_ENCODING", "IMAGE", "IMAGE_CLASSIFICATION", "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "VIDEO_CLASSIFICATION", "AUDIO_CLASSIFICATION", "CTC", "SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ",
)  # fmt: skip
PAST = 5
"""Tokens of a decoder whose next step is traced."""


@dataclass
class Row:
    """What was found of one class. `reason`: why it does not trace. `flops`: equal, a ratio ours / theirs, or why the
    stock class cannot be counted on the meta device. `tp`: modules that two ranks share, or why they cannot."""

    table: str
    kind: str
    architecture: str
    reason: str = ""
    parameters: int = 0
    library_parameters: int = 0
    flops: str = ""
    uncosted: tuple[str, ...] = ()
    tp: str = ""
    seconds: float = 0.0
    phases: tuple[str, ...] = field(default_factory=tuple)


def classes(tables=TABLES) -> Iterator[tuple[str, str, str]]:
    """(table, model type, class) of the first class that a table lists for a type."""
    for table in tables:
        for kind, names in native.classes_of(table).items():
            yield table, kind, names[0]


def source_of(kind: str, architecture: str) -> ModelSource:
    """The default configuration of a type, made whole."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tensorcast.models.default_config import default_config

    return from_mapping({**default_config(CONFIG_MAPPING[kind]).to_dict(), "architectures": [architecture]})


def survey(table: str, kind: str, architecture: str, *, flops: bool = True, tp: bool = True) -> Row:
    """Everything there is to know of one class; nothing is raised."""
    row, began = Row(table, kind, architecture), perf_counter()
    try:
        model = deploy(source_of(kind, architecture))
        row.parameters, row.library_parameters = model.parameters, _library_parameters(model)
        row.phases = model.blueprint.source.phases
        uncosted = [name for phase in row.phases for name in _traced(model, phase).uncosted]
        row.uncosted = tuple(dict.fromkeys(uncosted))
    except Exception as reason:
        row.reason = _said(reason)
        return row
    if flops and (row.phases == FORWARD or model.blueprint.source.reading.encoder):  # survey.py compares decoders
        row.flops = _reason_of(lambda: _compared(kind, architecture, model))
    if tp:
        row.tp = _reason_of(lambda: _cut(kind, architecture, row.phases))
    row.seconds = perf_counter() - began
    return row


def _traced(model, phase: str):
    batch, length, _ = model.probe
    encoder = model.blueprint.source.reading.encoder
    if phase != "decode":
        return trace_step(model, phase, batch, length, 0)
    return trace_step(model, phase, batch, length if encoder else 1, PAST if encoder else length)


def _library_parameters(model) -> int:
    """What the class counts when it is made of the same configuration, tied parameters once."""
    code, config = type(model.module), model.blueprint.config
    with torch.device("meta"), torch.no_grad():
        module = code(type(config).from_dict(config.to_dict()))
        module.tie_weights()
    return count_parameters(module)


def _cut(kind: str, architecture: str, phases: tuple[str, ...]) -> str:
    model = deploy(source_of(kind, architecture), plan=ParallelPlan(tp=2))
    for phase in phases:
        _traced(model, phase)
    return f"{sum(step.matched for step in model.steps if step.name == 'shard_model')} modules"


def _compared(kind: str, architecture: str, model) -> str:
    """Ours against FlopCounterMode on the stock class, all pairs computed on both sides."""
    kernels = [form for form in ALL_PAIRS if has_slot(model, form.partition("=")[0])]
    model, phase = deploy(source_of(kind, architecture), *kernels), model.blueprint.source.phases[0]
    ours, theirs = matrix_flops(_traced(model, phase).calls), counted(model, phase)
    return "equal" if ours == theirs else f"{ours / theirs:.4f}"


def counted(model, phase: str) -> int:
    """FLOPs that torch counts in a run of the stock class on meta. Code that wonders whether something is padded gets a
    mask that says what it wants to hear."""
    batch, length, _ = model.probe
    step, encoder = Step(phase, batch, length, 0), model.blueprint.source.reading.encoder
    first: Exception | None = None
    for mask in (None, (batch, length), (batch, 1, 1, length)):
        module = stock.build(source_of(model.blueprint.config.model_type, type(model.module).__name__))
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            inputs = sequence_start(model, step) if encoder else encoder_inputs(model, step)
            if mask is not None:
                inputs["attention_mask"] = torch.ones(mask)
            try:
                module(**inputs)
                return counter.get_total_flops()
            except Exception as reason:
                first = first or reason
    raise first


def _reason_of(run) -> str:
    try:
        return run()
    except Exception as reason:
        return _said(reason)


def _said(reason: Exception) -> str:
    text = " ".join(str(reason).split())
    return text if isinstance(reason, TensorcastError) else f"{type(reason).__name__}: {text}"


def totals(rows: list[Row]) -> Iterator[str]:
    """The figures at the top of the table, one line each."""
    traced = [row for row in rows if not row.reason]
    yield f"{len(traced)} of {len(rows)} classes of {len({row.table for row in rows})} tables trace in all their phases"
    same = sum(row.parameters == row.library_parameters for row in traced)
    yield f"{same} of {len(traced)} have transformers' parameter count"
    flops = [row.flops for row in traced if row.flops == "equal" or row.flops[:1].isdigit()]
    yield f"{flops.count('equal')} of {len(flops)} whose stock class runs on meta have FlopCounterMode's matrix FLOPs"
    yield f"{sum(row.tp.endswith('modules') for row in traced)} also with --tp 2"
    yield f"{sum(bool(row.uncosted) for row in traced)} use operators without a description of their cost"
