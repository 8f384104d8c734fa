"""How each kind of model is made on the meta device and run for one step: one file a kind.

A file has `recipe(source, wanted)`, which returns a Recipe, or None when the source is not of its kind. They are asked
in the order of `KINDS`; the first answer counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tensorcast.models.reference import TEXT_ENCODER
from tensorcast.models.roles import LANGUAGE, PLAIN, Reading, Role

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tensorcast.models.reference import ModelSource
    from tensorcast.transformer_model import TransformerModel

Kind = Literal["graph", "packed", "module", "diffusers", "transformers"]
VISION = "vision"
"""Phase of a vision-language model: its tower and projector over the images of a batch."""
KINDS: tuple[Kind, ...] = ("graph", "packed", "module", "diffusers", "transformers")


@dataclass(frozen=True)
class Wanted:
    """What a model is to be built with. The implementation names select functions registered with transformers."""

    dtype: torch.dtype
    trust_remote_code: bool = False
    attn_implementation: str = "eager"
    experts_implementation: str | None = None


@dataclass(frozen=True)
class Step:
    """One forward: `tokens` new tokens of `batch` sequences that have `past` tokens in their cache.

    `lengths` makes the batch ragged: (new tokens, tokens in cache) of every sequence.
    """

    phase: str  # prefill | decode | chunked | forward | denoise | vision
    batch: int
    tokens: int
    past: int
    lengths: tuple[tuple[int, int], ...] = ()

    @property
    def sequences(self) -> tuple[tuple[int, int], ...]:
        """(new tokens, tokens in cache) of every sequence."""
        return self.lengths or ((self.tokens, self.past),) * self.batch


@dataclass(frozen=True)
class Recipe:
    """How to make one model and run it.

    `make()` is called inside `torch.device("meta")` with the default dtype set to the one wanted, and returns the
    module. `inputs(model, step)` gives the keyword arguments of one forward, on meta, cache included. `finish(module)`
    is called on the tied module (kept dtypes …). `config` may be any object. `explain(reason)` says more about a
    failure to build than the reason itself does. `phases` are those the model can be run in, `reading` how it takes its
    input.
    """

    kind: Kind
    make: Callable[[], nn.Module]
    config: Any
    architecture: str
    model_type: str
    origin: str
    inputs: Callable[[TransformerModel, Step], dict[str, Any]]
    finish: Callable[[nn.Module], None] | None = None
    explain: Callable[[Exception], str] | None = None
    notes: tuple[str, ...] = ()
    phases: tuple[str, ...] = LANGUAGE
    reading: Reading = PLAIN


def recipe_for(source: ModelSource, wanted: Wanted) -> Recipe:
    """The recipe of a source; ModelError when no kind can hold it."""
    for kind in KINDS:
        found = importlib.import_module(f"{__name__}.{kind}").recipe(source, wanted)
        if found is not None:
            return _plain_forward(found) if source.phases == TEXT_ENCODER else found
    raise AssertionError("the last kind answers or raises")


def _plain_forward(found: Recipe) -> Recipe:
    """A text encoder of a pipeline: one pass over the prompt, nothing kept, whatever else its class can do."""
    inputs = found.inputs
    return replace(found, inputs=lambda m, step: inputs(m, replace(step, phase="forward")), phases=TEXT_ENCODER)


def role_of_class(source: ModelSource, trust_remote_code: bool = False) -> Role:
    """The phases of a source and how it reads, as its kind finds them in the model's own class."""
    import torch

    found = recipe_for(source, Wanted(torch.bfloat16, trust_remote_code))
    return Role(found.phases, found.reading)
