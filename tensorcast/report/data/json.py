"""Strict JSON: what is not a finite number becomes null, keys keep their order."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(estimate: Mapping[str, Any]) -> str:
    """The estimate as one JSON document, with a final newline."""
    return dumps(estimate)


def result_json(found: Any) -> str:
    """What an Optimum, a Comparison … says of itself, from Python as from the command line."""
    return dumps(found.to_dict())


def dumps(value: Any) -> str:
    """Any plain value as strict, indented ASCII JSON with a final newline; `TypeError` for what JSON cannot say."""
    return json.dumps(strict(value), indent=2, allow_nan=False) + "\n"


def strict(value: Any) -> Any:
    """`value` with NumPy scalars and arrays made plain, and NaN and infinities made None."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(strict(item) for item in value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if hasattr(value, "__fspath__"):
        return str(value)
    return value
