"""Memory in use while a model runs: bytes of the storages that are alive.

Counts storages, not tensors: a view adds nothing and frees nothing. Agrees with the CPU allocator on tiny models.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

import torch


class Liveness:
    """`live` is the bytes alive now, `peak` the most so far. Parameters and the KV cache are declared resident.

    `alive` is the number of storages, `freed_by_others` of those that another thread let go of: see trace.undisturbed.
    """

    def __init__(self, resident: Iterable[int] = ()) -> None:
        self.live = 0
        self.peak = 0
        self.alive = 0
        self.freed_by_others = 0
        self._thread = threading.get_ident()
        self._known: set[int] = set(resident)

    def resident(self, tensors) -> None:
        """Storages that exist anyway: they count for nothing."""
        self._known.update(storages(tensors))

    def allocated(self, tensors, share: float = 1.0) -> bool:
        """Take note of an operator's results; True when one of them has a storage not seen before.

        `share`: the part of each that is really there, where ranks share a tensor.
        """
        new = False
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._known:
                continue
            self._known.add(key)
            size = storage.nbytes() * share if share < 1 else storage.nbytes()
            self.live += size
            self.alive += 1
            weakref.finalize(storage, self._free, key, size).atexit = False
            new = True
        self.peak = max(self.peak, self.live)
        return new

    def cache(self, tensors) -> None:
        """Results that stand for memory accounted elsewhere (the KV cache)."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known.add(storage._cdata)
            weakref.finalize(storage, self._known.discard, storage._cdata).atexit = False

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
        self.alive -= 1
        self.freed_by_others += threading.get_ident() != self._thread


def storages(tensors: Iterable[torch.Tensor]) -> frozenset[int]:
    """Identities of the tensors' storages."""
    return frozenset(tensor.untyped_storage()._cdata for tensor in tensors)


def tensors_in(tree) -> list[torch.Tensor]:
    """Every tensor in nested tuples, lists and dicts."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, (tuple, list)):
        return [t for item in tree for t in tensors_in(item)]
    if isinstance(tree, dict):
        return [t for item in tree.values() for t in tensors_in(item)]
    return []
