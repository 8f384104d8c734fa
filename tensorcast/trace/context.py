"""What the installed layers may ask while a model runs: the phase, the plan, and who is listening.

One context per forward, held in a context variable: two models can be traced side by side.
"""

from __future__ import annotations

import weakref
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from tensorcast.models.recipes import Step
from tensorcast.trace.liveness import tensors_in

_CURRENT: ContextVar[Context] = ContextVar("tensorcast_context")


@dataclass
class Context:
    """State of one forward pass of a deployed model."""

    step: Step  # what runs
    model: Any = None  # TransformerModel
    tracer: Any = None  # Tracer, or None when nobody listens
    block_options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the last decoder layer
    quantised: dict[tuple[int, str], Any] = field(default_factory=dict)  # activations already quantised, by storage
    unread: dict[int, str] = field(default_factory=dict)  # keys that ranks share, by id → module that must attend them
    normed: dict[int, Any] = field(default_factory=dict)  # results of norms that can quantise them on their way

    @property
    def phase(self) -> str:
        """prefill, decode, chunked …"""
        return self.step.phase

    def fused(self):
        """While inside, torch's own operators are steps of kernels that our operators describe: only memory counts."""
        return self.tracer.fused() if self.tracer is not None else nullcontext()

    def note_normed(self, y) -> None:
        """`y` was just made by a norm that writes a quantised copy too, should a product want one."""
        self.normed[id(y)] = weakref.ref(y)

    def is_normed(self, x) -> bool:
        """Whether `x` is such a result."""
        found = self.normed.get(id(x))
        return found is not None and found() is x

    def note_read_with(self, x, *others) -> None:
        """Whatever reads `x` from now on reads `others` too: what an operator's arguments do not say."""
        if self.tracer is not None:
            self.tracer.flow.handed_on(tensors_in((x, others)), (x,))

    def note_paged(self, block: int) -> None:
        """The cache that was just written lies in blocks of `block` tokens."""
        if self.tracer is not None and self.tracer.caches:
            self.tracer.caches[-1].block = block

    def suspended(self):
        """While inside, operators run unseen: for shapes that original code works out."""
        return self.tracer.suspended() if self.tracer is not None else nullcontext()

    def scope(self, path: str):
        """While inside, operators are recorded under `path` instead of the running module's."""
        return self.tracer.scope(path) if self.tracer is not None else nullcontext()


def current() -> Context:
    """The context of the running forward."""
    try:
        return _CURRENT.get()
    except LookupError:
        raise RuntimeError("a deployed model runs through TransformerModel.forward only") from None


@contextmanager
def entered(context: Context):
    token = _CURRENT.set(context)
    try:
        yield context
    finally:
        _CURRENT.reset(token)
