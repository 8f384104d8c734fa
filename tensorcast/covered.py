"""A request and the deployed model that covers it: from the cache, from a model that is at hand, or traced now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tensorcast.cost.footprint import Footprints
from tensorcast.cost.imbalance import skewed_tables
from tensorcast.cost.passes import Steps
from tensorcast.deployed import DeployedModel, ModelFacts
from tensorcast.errors import InputError
from tensorcast.optable import OpTable
from tensorcast.plan import skew_of
from tensorcast.request import Request
from tensorcast.steps import Parts, steps_of
from tensorcast.trace import cache as disk
from tensorcast.vision.work import check_together
from tensorcast.work import check_work

Point = tuple[int, int, int]


class Covered:
    """The passes of a request, `steps`, and the model `deployed` with tables that reach all of them."""

    def __init__(
        self,
        request: Request,
        *,
        cache: bool = True,
        progress: Callable | None = None,
        steps: Mapping[str, Parts] | None = None,
        ready: Any = None,
    ) -> None:
        """`steps`: the passes whose tables are wanted, in place of the request's own.

        `ready`: the DeployedModel of a request with the same cache key, or a model to cut, of `deploy.whole_model`.
        """
        self.request, self.work, self.plan, self.hw = request, request.work, request.plan, request.hw
        self.notes: list[str] = list(request.notes)
        self.steps = steps or steps_of(self.work, self.plan)
        self._progress, self._ready = progress, ready
        self._key = disk.key_of(request.cache_key(), request.sources.files()) if cache and request.source.digest else ""
        self._use(self._deployed())
        if self.work.seq_lens and self.facts.one_length:
            raise InputError(
                f"--seq-lens: {self.facts.model_type} mixes tokens of one row, so its sequences must be of one length "
                f"(profile at {self.facts.one_length}: packed=False); give --batch and --input-len"
            )

    def _use(self, traced: DeployedModel) -> None:
        self.traced = traced
        self.deployed = replace(traced, tables=skewed_tables(traced.tables, skew_of(self.work.moe_imbalance)))
        self.facts = self.deployed.facts
        self.footprints = Footprints(self.deployed.tables)

    def _deployed(self) -> DeployedModel:
        found, note = None, ""
        if isinstance(self._ready, DeployedModel):
            found, self._ready = self._ready, None
        elif self._key:
            found, note = disk.load(self._key)
        if note:
            self.notes.append(note)
        missing = self._points(found, found.facts) if found is not None else ()
        if found is not None and not missing:
            if found.own_operators:
                self.request.sources.load()
            return found
        return self._kept(
            self._trace(found, partial(self._points, found) if self.work.images else self._missing(found))
        )

    def cover(self, points: Iterable[tuple[str, Point]]) -> None:
        """Trace (table, point)s that no table reaches."""
        self._use(self._kept(self._trace(self.traced, list(points))))

    def _kept(self, deployed: DeployedModel) -> DeployedModel:
        """The model, which the cache has now too."""
        if self._key and (note := disk.save(self._key, deployed)):
            self.notes.append(note)
        return deployed

    def _points(self, found: DeployedModel | None, facts: ModelFacts) -> list[tuple[str, Point]]:
        """What `found` does not cover of the work, whose prompts are known when it is known what images become."""
        if self.work.images:
            self.work = self.work.with_image_tokens(facts.image_tokens)
            check_together(facts.name, facts.together, self.work.chunk, self.work)
            check_work(self.work, self.plan, self.request.source, self.request.max_model_len)
            self.steps = steps_of(self.work, self.plan)
        return self._missing(found)

    def _missing(self, found: DeployedModel | None) -> list[tuple[str, Point]]:
        """(table, point) that no piece covers: one a table where there is no table yet, else every such point."""
        out: dict[tuple[str, Point], None] = {}
        for name, steps in self._wanted():
            table = found.tables.get(name) if found is not None else None
            for batch in dict.fromkeys((steps.batch, *(side.batch for side in steps.sides))):
                ends = ((batch, end(steps.tokens), end(steps.past)) for end in (min, max))
                if table is not None and table.covers_between(*ends):
                    continue
                points = [(batch, t, p) for t, p in zip(steps.tokens, steps.past, strict=True)]
                uncovered = [p for p in points if table is None or table.piece_for(*p) is None]
                out.update(dict.fromkeys((name, p) for p in uncovered))
        return list(out)

    def _wanted(self) -> list[tuple[str, Steps]]:
        """(table, passes) that the answer is made of."""
        wanted = [part for parts in self.steps.values() for part in parts]
        if self.request.concurrency is not None:
            from tensorcast.serving.steps import points

            wanted += [part for parts in points(self.work.mtp).values() for part in parts]
        return wanted

    def _trace(self, found: DeployedModel | None, points: Any) -> DeployedModel:
        from tensorcast.trace.deploy import deploy

        whole, self._ready = self._ready, None
        return deploy(
            self.request.source,
            self.request.deployment(),
            points,
            found,
            sources=self.request.sources,
            dtype=self.request.dtype,
            trust_remote_code=self.request.trust_remote_code,
            progress=self._progress,
            whole=whole,
        )

    @property
    def tables(self) -> list[OpTable]:
        """The tables that the phases are priced with."""
        return [self.deployed.tables[table] for parts in self.steps.values() for table, _ in parts]
