"""One model under check: deployed, traced and priced once for each way of running it that a check asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from tensorcast.build import ANY_MACHINE, blueprint_of, build_model
from tensorcast.deployed import DeployedModel
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.models.blueprint import Blueprint
from tensorcast.models.reference import LANGUAGE
from tensorcast.models.roles import FORWARD, TOKENS
from tensorcast.request import Request
from tensorcast.steps import steps_of
from tensorcast.trace.deploy import deploy
from tensorcast.trace.run import trace_step
from tensorcast.trace.tracer import Tracer
from tensorcast.transformer_model import TransformerModel

WORK: Mapping[str, int] = {"batch": 2, "input_len": 96, "output_len": 3}
"""Work that every language model takes, however few positions it has."""


class Subject:
    """A model reference or object with what it is to be run with; options are those of `simulate`.

    `hw` is the machine it is deployed for; without one, the machine that `build_model` takes stands for any.
    """

    def __init__(self, model: Any = None, *, hw: Any = None, **options: Any) -> None:
        self.model, self.hw, self.options = model, ANY_MACHINE if hw is None else hw, options
        self.named_machine = hw is not None
        self._models: dict[tuple, TransformerModel] = {}
        self._tables: dict[tuple, DeployedModel] = {}
        self._traces: dict[tuple, Tracer] = {}

    def request(self, hw: Any = None, **changes: Any) -> Request:
        """The request with `changes`; not quantised unless they say so."""
        options = {"quant": "none", **self._work, **self.options, **changes}
        return Request.of(model=self.model, hw=self.hw if hw is None else hw, **options)

    @cached_property
    def _work(self) -> Mapping[str, int]:
        """The model's own default work where it is not about tokens, or not of any length."""
        source = Request.of(model=self.model, hw=self.hw, idle=True, **self.options).source
        if source.phases == LANGUAGE and source.reading.unit == TOKENS:
            return WORK
        return {"batch": WORK["batch"]} if source.phases in (LANGUAGE, FORWARD) else {}

    @cached_property
    def plain(self) -> Request:
        """The model on one device, not quantised."""
        return self.request()

    @property
    def name(self) -> str:
        return self.plain.source.name

    def blueprint(self) -> Blueprint:
        """The model before any step, built anew."""
        return blueprint_of(self.plain)

    def deployed(self, **changes: Any) -> TransformerModel:
        """The deployed model, built once for each set of `changes`."""
        key = tuple(sorted(changes.items()))
        if key not in self._models:
            self._models[key] = build_model(self.model, self.hw, **{"quant": "none", **self.options, **changes})
        return self._models[key]

    def points(self) -> dict[str, tuple[int, int, int]]:
        """Table → (batch, new tokens, tokens in cache) of its first pass."""
        parts = [part for parts in steps_of(self.plain.work, self.plain.plan).values() for part in parts]
        return {name: (steps.batch, steps.tokens[0], steps.past[0]) for name, steps in parts}

    def traces(self, **changes: Any) -> dict[str, Tracer]:
        """Table → the trace of one pass of the model deployed with `changes`."""
        model, found = self.deployed(**changes), {}
        for name, point in self.points().items():
            key = (name, *sorted(changes.items()))
            if key not in self._traces:
                self._traces[key] = trace_step(model, name, *point)
            found[name] = self._traces[key]
        return found

    def tables(self, request: Request) -> DeployedModel:
        """Facts and tables for a request; machines with equal default kernels and formats share them."""
        key = (request.dtype, repr(request.quant), tuple(sorted(request.hw.kernels.items())))
        if key not in self._tables:
            self._tables[key] = deploy(
                request.source,
                request.deployment(),
                list(self.points().items()),
                sources=request.sources,
                dtype=request.dtype,
                trust_remote_code=request.trust_remote_code,
            )
        return self._tables[key]

    def machines(self) -> list[HardwareProfile]:
        """Every machine that is known, and the one named."""
        from tensorcast.hardware.load import hardware, load_file, names

        own = [hardware(self.hw)] if self.named_machine else []
        known = [load_file(path) for path in names().values()]
        return [*(machine for machine in known if machine.name not in {own.name for own in own}), *own]


def totals(tracer: Tracer) -> Counter:
    """(operator, sizes, attributes) → how often it runs, layers that were counted but not run included."""
    counts: Counter = Counter()
    for call in tracer.calls:
        key = call.op, tuple(sorted(call.dims.items())), tuple(sorted(call.attrs.items(), key=str))
        counts[key] += len(call.layers) if call.layers else 1
    return counts
