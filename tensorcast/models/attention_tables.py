"""Model files that choose among attention classes of their own, by the name of the implementation.

They know nothing of ours: their attention is their eager code, costed operator by operator.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def _tables(model_class: type) -> list[dict[str, type]]:
    """A model file's own choice of attention classes by implementation name: its attention is its own code."""
    space = vars(sys.modules[model_class.__module__])
    return [v for k, v in space.items() if k.endswith("_ATTENTION_CLASSES") and isinstance(v, dict) and "eager" in v]


def own_attention(model_class: type) -> str:
    """A note about such a file; "" for any other."""
    tables = _tables(model_class)
    return "attention runs as the model's own eager code, operator by operator: no kernel is chosen" if tables else ""


@contextmanager
def attention_known(model_class: type, implementation: str) -> Iterator[None]:
    """While inside, such tables give the eager class for `implementation`."""
    added = [table for table in _tables(model_class) if implementation not in table]
    for table in added:
        table[implementation] = table["eager"]
    try:
        yield
    finally:
        for table in added:
            del table[implementation]
