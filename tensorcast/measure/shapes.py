"""Which shapes are measured: spread evenly over the logarithm of every size, the first ones first.

A longer list starts with the shorter one, so that a quick run is the beginning of a full one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PRIMES = (2, 3, 5, 7, 11)


def spread(count: int, ranges: Mapping[str, tuple[int, int, int]]) -> list[dict[str, int]]:
    """`count` different shapes; ranges: name → (smallest, largest, multiple of)."""
    found: dict[tuple, dict[str, int]] = {}
    for at in range(1, 20 * count + 1):
        shape = {
            name: _between(low, high, step, _halton(at, base))
            for (name, (low, high, step)), base in zip(ranges.items(), PRIMES, strict=False)
        }
        found.setdefault(tuple(shape.values()), shape)
        if len(found) == count:
            break
    return list(found.values())


def _between(low: int, high: int, step: int, share: float) -> int:
    value = low * (high / low) ** share
    return min(max(round(value / step) * step, low), high)


def _halton(at: int, base: int) -> float:
    """The `at`-th number of the sequence that halves, thirds … the unit interval."""
    share, part = 0.0, 1.0
    while at:
        part /= base
        at, digit = divmod(at, base)
        share += digit * part
    return share


def products(count: int, small: bool) -> list[dict[str, int]]:
    """m, n, k of a dense product."""
    wide = (64, 1024, 16) if small else (256, 16384, 64)
    return spread(count, {"m": (1, 256, 1) if small else (1, 16384, 1), "n": wide, "k": wide})


def queries(count: int, small: bool) -> list[dict[str, int]]:
    """Prefill: as many queries as keys."""
    tokens = (16, 256, 8) if small else (16, 16384, 16)
    return [shape | {"kv_len": shape["q_len"]} for shape in _heads(count, small, {"q_len": tokens})]


def contexts(count: int, small: bool) -> list[dict[str, int]]:
    """Decode: one query against a context."""
    tokens = (16, 1024, 8) if small else (64, 131072, 16)
    return [shape | {"q_len": 1} for shape in _heads(count, small, {"kv_len": tokens})]


def images(count: int, small: bool) -> list[dict[str, int]]:
    """Encoders: every token sees every other."""
    shapes = _heads(count, small, {"seq": (16, 256, 8) if small else (16, 16384, 16)})
    return [{name: shape[name] for name in ("batch", "seq", "heads", "head_dim")} for shape in shapes]


def _heads(count: int, small: bool, tokens: Mapping[str, tuple[int, int, int]]) -> Iterator[dict[str, int]]:
    most = 4 if small else 64
    drawn = spread(count, {**tokens, "batch": (1, most, 1), "heads": (2, 8 if small else 64, 2)})
    for at, shape in enumerate(drawn):
        kv = max(1, shape["heads"] // (1, 4, 8)[at % 3])
        yield {**shape, "heads": kv * max(1, shape["heads"] // kv), "kv_heads": kv, "head_dim": (128, 64)[at // 3 % 2]}


def experts(count: int, small: bool) -> list[dict[str, int]]:
    """A layer of routed experts, the whole of it on one device."""
    wide = (64, 256, 16) if small else (1024, 7168, 256)
    drawn = spread(
        count,
        {
            "tokens": (1, 256, 1) if small else (1, 16384, 1),
            "hidden": wide,
            "inter": (64, 256, 16) if small else (256, 4096, 128),
        },
    )
    return [
        shape | {"experts": (8, 16)[at % 2] if small else (8, 32, 128)[at % 3], "topk": (2, 4, 8)[at % 3]}
        for at, shape in enumerate(drawn)
    ]


def matrices(count: int, small: bool) -> list[dict[str, int]]:
    """Rows × columns of what memory limits."""
    return spread(
        count,
        {"rows": (1, 2048, 1) if small else (1, 65536, 1), "columns": (64, 4096, 64) if small else (256, 16384, 64)},
    )


def quantised(count: int, small: bool) -> list[dict[str, int]]:
    return [{"m": shape["rows"], "k": shape["columns"]} for shape in matrices(count, small)]
