"""Which calls wait for which: found by following storages from the operator that wrote them to those that read them.

Views share a storage, and what writes into a tensor reads it first, so both need no care. Operators that leave no call
hand on what they read. A call waits for calls of its own *run* only: those of one layer, or those outside of layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

OUTSIDE = -1  # the run of calls outside of layers


class Dataflow:
    """The calls behind every storage that is read. Calls are known by number, in the order they are recorded."""

    def __init__(self) -> None:
        self.run = OUTSIDE
        self._count = 0
        self._outside: set[int] = set()
        self._behind: dict[int, frozenset[int]] = {}

    def layer_begins(self) -> None:
        """Calls belong to a new run now."""
        self.run = self._count

    def layer_ends(self) -> None:
        """Calls belong to those outside of layers again."""
        self.run = OUTSIDE

    def recorded(self, call: Any, inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> None:
        """Number a call that has run, and tell it what it waits for."""
        sources = self._sources(inputs)
        outside = sources & self._outside
        call.number, call.run = self._count, self.run
        self._count += 1
        if self.run == OUTSIDE:
            call.after, behind = outside, frozenset({call.number})
            self._outside.add(call.number)
        else:
            call.after = frozenset(n for n in sources if n >= self.run)
            behind = outside | {call.number}
        self._set(outputs, behind)

    def handed_on(self, inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> None:
        """`outputs` were made of `inputs`, and no call tells how."""
        self._set(outputs, self._sources(inputs))

    def _sources(self, tensors: Iterable[torch.Tensor]) -> frozenset[int]:
        return frozenset().union(*(self._behind.get(_storage(t), ()) for t in tensors))

    def _set(self, tensors: Iterable[torch.Tensor], behind: frozenset[int]) -> None:
        for tensor in tensors:
            self._behind[_storage(tensor)] = behind


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def waits(calls: Iterable[Any]) -> dict[int, frozenset[int]]:
    """Number of a call → numbers of the calls it waits for.

    Where no call of the same run reads a result, code that is not seen may do so (an original forward that works out
    shapes, the next layer): whatever the run does later waits for it. No schedule is faster than the data allow.
    """
    ordered = sorted(calls, key=lambda call: call.number)
    read = frozenset().union(*(call.after for call in ordered))
    out, unread = {}, {}
    for call in ordered:
        out[call.number] = call.after | unread.get(call.run, frozenset())
        if call.number not in read:
            unread[call.run] = frozenset({call.number})
    return out
