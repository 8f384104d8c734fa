"""What every step of a pipeline did: its name, which modules it changed, how long it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from time import perf_counter
from typing import Any

from tensorcast.errors import TransformationError

Change = tuple[str, str, str]
"""(module path, what it was, what it is): class, forward, kernels, format and split where it has them."""


@dataclass
class StepReport:
    """What one transformation step did. `matched`: how many things it was about. `seconds`: wall clock."""

    name: str
    status: str  # applied | skipped
    reason: str
    matched: int = 0
    changes: list[Change] = field(default_factory=list, repr=False)
    seconds: float = 0.0

    def to_dict(self) -> dict:
        """For reports; without `changes`, which are as many as modules, and `seconds`, which no two runs share."""
        return {"name": self.name, "status": self.status, "reason": self.reason, "matched": self.matched}


def step(function: Callable) -> Callable:
    """Decorator of a function of a model: it becomes a step, reported under its name, that returns the model."""

    @wraps(function)
    def run(model: Any, *args: Any, **kwargs: Any) -> Any:
        return model.recorder.run(function, args, kwargs)

    return run


class Recorder:
    """Appends a StepReport to `model.steps` for every step, and one called `custom` for changes between steps."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._seen = self._look()
        self._open: list[list[Change]] = []  # changes of the steps that are running, outermost first

    def run(self, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Run one step; TransformationError when it returns anything but the model or None."""
        model, name, started = self._model, function.__name__, perf_counter()
        if self._open:
            self._open[-1] += self._changes()
        else:
            self.unnamed()
        self._open.append([])
        first = len(model.steps)
        try:
            require_model(model, function(model, *args, **kwargs), f"step {name}")
        finally:
            changes = self._open.pop()
        changes += self._changes()
        report = next((r for r in model.steps[first:] if r.name == name), None)
        if report is None:
            report = StepReport(name, "applied", f"own step: {len(changes)} modules changed", len(changes))
            model.steps.append(report)
        report.changes, report.seconds = changes, perf_counter() - started
        return model

    def unnamed(self) -> None:
        """Report what changed since the last step: a pipeline's own code that is no step."""
        changes = self._changes()
        if changes:
            reason = f"code of the pipeline itself: {len(changes)} modules changed"
            self._model.steps.append(StepReport("custom", "applied", reason, len(changes), changes))

    def _look(self) -> dict[str, tuple]:
        return {path: _state(module) for path, module in self._model.module.named_modules()}

    def _changes(self) -> list[Change]:
        before, self._seen = self._seen, self._look()
        now = self._seen
        changed = [p for p, state in now.items() if p not in before or state != before[p]]
        changed += [p for p in before if p not in now]
        return [(p, _words(before.get(p)), _words(now.get(p))) for p in changed]


def require_model(model: Any, result: Any, who: str) -> None:
    """Steps change the model in place: they return it or nothing."""
    if result is not None and result is not model:
        raise TransformationError(f"{who} returned {type(result).__name__}; it must return the model or None")


def _state(module: Any) -> tuple:
    deployed = module.__dict__.get("_tensorcast")
    forward = getattr(module.__dict__.get("forward"), "__func__", None)
    if deployed is None:
        return module, forward
    return module, forward, deployed.quant, deployed.shard, tuple(deployed.slots.items())


def _words(state: tuple | None) -> str:
    if state is None:
        return ""
    module, forward, *deployed = state
    words = [type(module).__name__]
    if forward is not None:
        words.append(forward.__qualname__.partition(".")[0].strip("_"))
    if deployed:
        quant, shard, slots = deployed
        words += [f"{op}={slot.name}" for op, slot in slots]
        words += [quant.label] if quant is not None else []
        words += [f"{shard.style} by {shard.rule}"] if shard.group.size > 1 else []
    return ", ".join(words)
