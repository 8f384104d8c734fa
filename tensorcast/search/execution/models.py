"""Models that were built once and are cut for one plan after the other, each in a process of its own."""

from __future__ import annotations

import json
from typing import Any

from tensorcast.errors import TensorcastError
from tensorcast.request import Request
from tensorcast.trace import cache as disk


class Models:
    """Whole models by everything they depend on but the plan."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._polynomial: set[str] = set()

    def shown(self, request: Request, polynomial: bool) -> None:
        """What the tables of the request's plan have shown of the model: that the sizes in them are polynomials."""
        if polynomial:
            self._polynomial.add(_but_the_plan(request))

    def whole_for(self, request: Request, cache: bool) -> Any:
        """`trace.deploy.whole_model`; None where the plan's tables are on disk, or the model cannot be made so."""
        if cache and disk.known(disk.key_of(request.cache_key(), request.sources.files())):
            return None
        key = _but_the_plan(request)
        if key not in self._known:
            from tensorcast.trace.deploy import whole_model

            try:
                self._known[key] = whole_model(
                    request.source, request.deployment(), sources=request.sources, dtype=request.dtype,
                    trust_remote_code=request.trust_remote_code,
                )  # fmt: skip
            except TensorcastError:  # who builds it for its own plan says why
                self._known[key] = None
        if self._known[key] is not None:
            self._known[key].polynomial = key in self._polynomial
        return self._known[key]


def _but_the_plan(request: Request) -> str:
    return json.dumps({**request.cache_key(), "plan": ""}, sort_keys=True, default=str)
