"""Colours that mean something, the same in every chart; told apart by people with any colour vision (Okabe and Ito)."""

from __future__ import annotations

BOUND = {
    "matrix": "#0072B2",
    "vector": "#56B4E9",
    "memory": "#E69F00",
    "communication": "#CC79A7",
    "overhead": "#999999",
}
"""By what an operator's time is bound."""

MEMORY = {
    "weights_bytes": "#0072B2",
    "kv_cache_bytes": "#E69F00",
    "activation_peak_bytes": "#009E73",
    "workspace_bytes": "#56B4E9",
    "reserved_bytes": "#999999",
}
"""What the memory of a device is used for."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Kinds without a meaning of their own: machines, plans, models."""
