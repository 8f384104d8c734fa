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
    "gradients_bytes": "#CC79A7",
    "optimizer_bytes": "#D55E00",
    "kv_cache_bytes": "#E69F00",
    "activation_peak_bytes": "#009E73",
    "workspace_bytes": "#56B4E9",
    "reserved_bytes": "#999999",
}
"""What the memory of a device is used for."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Kinds without a meaning of their own: machines, plans, models."""

MERIT = [[step / 7, colour] for step, colour in enumerate(
    ("#b5de2b", "#6ece58", "#35b779", "#1f9e89", "#26828e", "#31688e", "#3e4989", "#482878")
)]  # fmt: skip
"""A scale from worse to better: Viridis without its ends. On white the better is the darker; a dark page turns it."""

NEUTRAL = "#c3c9d0"
"""What only holds others: a module in a treemap."""
LIMIT = "#D55E00"
"""What cannot be passed: the end of memory."""

DARK_INK, LIGHT_INK = "#000000", "#ffffff"


def ink(colour: str) -> str:
    """The colour of text on one of these that is read best, by relative luminance (WCAG 2.1).

    >>> ink(BOUND["matrix"]), ink(BOUND["memory"])
    ('#ffffff', '#000000')
    """
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return DARK_INK if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else LIGHT_INK
