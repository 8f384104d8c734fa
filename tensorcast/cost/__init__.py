"""Work → seconds, on NumPy arrays: one file per family of operators. `predict` prices tables of measured kernels."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("predict", "matches"):
        from tensorcast.cost import frames

        return getattr(frames, name)
    raise AttributeError(f"module 'tensorcast.cost' has no attribute {name!r}")
