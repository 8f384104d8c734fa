"""Attention of many queries: prefill, encoders, prefill over latents.

Queries are cut into tiles of `tq` rows, their keys into blocks of `tk`; what causality, windows and chunks hide from
all rows of a tile is skipped. Where a kernel packs, the heads that share a key head share tiles. With U tiles of N key
blocks together, n in the longest one, and D = (d + dv) / 2 after padding both to `pad`:

    block = 4 tq tk ‖D, x‖_ov / (F/cores · ec)                  x: the softmax, in widths of the products
    u     = max(block, lat)
    work  = (U tf (fill + (1 - fill) rows/tq) + N block) / cores + al · tail
    chain = min(n u, n u / s + ts)                              keys over s = cores/U cores, where tiles are few
    mem   = bytes / (BW · em) · L                               L = 1 - h + h/rl2, h: weight of the last-level cache
    T     = t0 + [rows > tq/2 or d padded] t1 + ‖work, chain, mem‖₃ + cast + write

with ‖x, y‖ₙ = (xⁿ + yⁿ)^(1/n), F the dense 16-bit peak (FLOP/s) and BW the memory bandwidth (B/s). F is the 16-bit
peak in every format: softmax and conversions keep narrow formats far from theirs; `ec` says how far. `tail`: unequal
tiles leave cores waiting for a long one, n block (1 - cores/U); equal ones fill waves, ⌈w⌉ - w tiles with w = U/cores.

    cast  = 3 b q heads d / (BW · eq) · L                       queries to one byte, as the cache, on machines with fp8
    write = ‖bytes written / (BW · ew) · L, b q (wt min(1, row/512) + wh heads written)‖₃

`write` is the separate kernel that some tables time with the attention: a thread block a token, `row` elements of a key
row in it; in a model it is an operator of its own. Seconds, bytes. Valid for any size ≥ 1 and any past; fitted for
1 to 65536 tokens, 1 to 96 heads of 64 to 512. Source: own model, after the tiling of FlashAttention (arXiv 2205.14135,
2407.08608) and split keys (Flash-Decoding).
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work, item_bytes

COPY_THREADS = 512  # most threads of a block that writes one token into the cache
RULE = {"causal": True, "window": 0, "chunk": 0, "topk": 0, "ahead": 0}
FLAGS = ("causal", "cast", "eager")
NEVER, ALWAYS, ONE_QUERY = 0, 1, 2  # when a kernel packs the heads of a group into one tile


def attention_key(attrs) -> tuple[str, str]:
    """(family, format) of an attention row's coefficients; attention that hides no key is that of encoders.

    One new token sees all there is, hidden or not: a decoder's step over what its encoder read is decoding.
    """
    phase = attrs["phase"] if attrs.get("causal", True) or attrs["phase"] == "decode" else "encoder"
    return f"attention_{phase}", attrs["kv_format"]


def attention_call(dims, work: Work, attrs) -> Call:
    """The call of an attention row. Softmax runs beside the products; what it slows them down is in their figures."""
    products = Work(work.matrix_flops, 0, work.read_bytes, work.write_bytes)
    rule = {name: attrs.get(name, default) for name, default in RULE.items()}
    cast = "out_format" in attrs and item_bytes(attrs["kv_format"]) < min(2, item_bytes(attrs["out_format"]))
    sizes = {"kv_heads": 1, "dv": 0} | dict(dims) | rule | {"cast": bool(cast)}
    return Call(products, sizes, math=attrs["math"])


def flash_time(call: Call, p, hw) -> Time:
    """Seconds of the attention of a call; see the module's docstring.

    sizes: b, q new tokens at the end of kv, heads, kv_heads, d, dv; causal, window, chunk, topk, ahead as in
    `tensorcast.ops.attention`; cast: whether queries are converted first; cache_bytes, cache_row,
    cache_heads: of a write that is timed too; eager: whether a host launched the kernels of a table one by one, which
    takes it `th` seconds that no model needs.
    """
    s = {name: np.asarray(value, dtype=float) for name, value in call.sizes.items() if name not in FLAGS}
    causal = call.sizes.get("causal", True)
    tiles, blocks, longest, rows = _cut(s, causal, p)
    width = soft_max_of(p["ov"], (_padded(s["d"], p) + _padded(s["dv"], p)) / 2, p["x"])
    rate = hw.peak("bf16" if hw.has("bf16") else "fp16") / hw.cores * p["ec"]
    used = np.minimum(1.0, rows / p["tq"])
    block = 4 * p["tq"] * p["tk"] * width / rate
    if not causal:  # encoders have heads of 72, for which some libraries keep a slower kernel
        block = block * np.where(s["d"] % 16, np.maximum(1.0, p["odd"] * used), 1.0)
    block = block * np.where(s["topk"] > 0, np.minimum(1.0, 16 * np.ceil(rows / 16) / p["tq"]), 1.0)
    start = p["tf"] * (p["fill"] + (1 - p["fill"]) * used)
    work = (tiles * start + blocks * block) / hw.cores
    tail = _tail(tiles, blocks, longest, block, start, hw.cores, causal)
    unit = longest * np.maximum(block, p["lat"])
    chain = np.minimum(unit, unit / np.clip(hw.cores / tiles, 1.0, longest) + p["ts"])
    cached = call.hit(hw)
    reuse = 1 - cached + cached / p["rl2"]
    memory = (call.work.read_bytes + call.work.write_bytes) / (hw.memory_bw * p["em"]) * reuse
    general = (2 * rows > p["tq"]) | (s["d"] % 32 > 0)  # few queries of a plain width have a lighter kernel
    body = soft_max(work + p["al"] * tail, chain, memory) + np.where(general, p["t1"], 0.0)
    body = body + _around(call, s, p, hw, reuse)
    return Time(p["t0"], matrix=work, memory=memory, body=body).at_least(p["th"] if call.sizes.get("eager") else 0.0)


def soft_max_of(order: float, *values) -> np.ndarray:
    """(Σ xᵢⁿ)^(1/n): the sum of work done one after the other (n = 1) to the longest of work side by side."""
    return sum(value**order for value in values) ** (1 / order)


def _padded(width, p):
    return p["pad"] * np.ceil(width / p["pad"])


def _tail(tiles, blocks, longest, block, start, cores, causal):
    """Seconds at the end in which cores wait, before the share `al` that a kernel does not hide."""
    if causal:
        return np.maximum(0.0, 1 - cores / tiles) * longest * block
    waves = tiles / cores
    return np.where(waves > 1, np.ceil(waves) - waves, 0.0) * (start + blocks / tiles * block)


def _around(call: Call, s, p, hw, reuse):
    """Seconds of what runs before and after the attention kernel and is timed with it."""
    seconds = 0.0
    tokens = s["b"] * s["q"]
    if call.sizes.get("cast") and hw.has("fp8"):
        seconds = seconds + 3 * tokens * s["heads"] * s["d"] / (hw.memory_bw * p["eq"]) * reuse
    if "cache_bytes" in s:
        slot = p["wt"] * np.minimum(1.0, s["cache_row"] / COPY_THREADS) + p["wh"] * s["cache_heads"]
        seconds = seconds + soft_max(s["cache_bytes"] / (hw.memory_bw * p["ew"]) * reuse, tokens * slot)
    if p["packed"] == ONE_QUERY:  # turning the queries of a group into rows and back takes copies
        copies = (s["q"] == 1) & (s["heads"] > s["kv_heads"]) & (s["kv_heads"] > 1) & (s["b"] > 1)
        seconds = seconds + np.where(copies, p["tx"], 0.0)
    return seconds


def _cut(s, causal, p):
    """(tiles, key blocks of all tiles, key blocks of the longest tile, query rows of a full-grown tile's head)."""
    group = s["heads"] / s["kv_heads"]
    alone = _grid(s["b"] * s["heads"], np.asarray(float(p["tq"])), s, causal, p)
    together = _grid(s["b"] * s["kv_heads"], p["tq"] / group, s, causal, p)
    wanted = together[0] < alone[0] if p["packed"] == ALWAYS else (p["packed"] == ONE_QUERY) & (s["q"] == 1)
    picks = s["topk"] > 0  # every query has keys of its own, which only its heads share
    tiles, blocks, longest = (np.where(wanted, a, b) for a, b in zip(together, alone, strict=True))
    if picks.any():
        chosen = _chosen(s, group, p)
        tiles, blocks, longest = (np.where(picks, a, b) for a, b in zip(chosen, (tiles, blocks, longest), strict=True))
    rows = np.where(picks, group, np.where(wanted, s["q"] * group, s["q"]))
    return np.maximum(tiles, 1.0), np.maximum(blocks, 1.0), np.maximum(longest, 1.0), rows


def _grid(copies, step, s, causal, p):
    """(tiles, key blocks, key blocks of the longest tile) of `copies` heads whose tiles hold `step` positions."""
    q, kv, tk = s["q"], s["kv"], p["tk"]
    count, past, whole = np.ceil(q / step), kv - q, np.ceil(kv / tk)
    if not causal:  # a window reaches as far ahead of a tile as behind it
        seen = np.where(s["window"] > 0, np.ceil((np.minimum(step, q) + 2 * (s["window"] - 1)) / tk) + 1, whole)
        seen = np.minimum(seen, whole)
        return copies * count, copies * count * seen, seen + 0 * count
    seen = ceil_sum(past, step, count - 1, tk) + whole
    skipped, longest = 0.0, whole + 0 * count
    for limit in ("window", "chunk"):
        keys = np.where(s[limit] > 0, s[limit], kv)
        if limit == "window":
            passed = floor_sum(past - keys + 1, step, count, tk)
        else:
            passed = floor_sum(past, step, count, keys) * keys / tk
        skipped = np.where(s[limit] > 0, np.maximum(skipped, passed), skipped)
        longest = np.minimum(longest, np.ceil((np.minimum(step, q) + keys - 1) / tk) + 1)
    ahead = s.get("ahead", 0.0) / (step * tk)  # pairs in which tokens of an image see those behind them
    return copies * count, copies * (np.maximum(seen - skipped, count) + ahead), longest


def _chosen(s, group, p):
    """The same where every query picks `topk` of the keys it sees: a tile holds the heads of one query."""
    limit = np.minimum(s["topk"], s["kv"])
    below = np.clip(limit, s["kv"] - s["q"], s["kv"])  # queries up to this position see fewer keys than they may pick
    of_one = np.ceil(group / p["tq"]) * s["b"] * s["kv_heads"]
    blocks = ceil_sum(s["kv"] - s["q"], 1.0, below - (s["kv"] - s["q"]), p["tk"])
    blocks = blocks + (s["kv"] - below) * np.ceil(limit / p["tk"])
    return of_one * s["q"], of_one * blocks, np.ceil(limit / p["tk"])


def ceil_sum(start, step, count, unit):
    """Σ ⌈(start + i step) / unit⌉, i = 1 … count. Exact where unit/step or step/unit is whole, close elsewhere."""
    ratio = unit / step
    first = np.ceil(start / step)
    fine = _staircase(first + count, ratio) - _staircase(first, ratio)
    coarse = count * np.ceil(start / unit) + count * (count + 1) / 2 / ratio
    return np.where(ratio >= 1, fine, coarse)


def floor_sum(start, step, count, unit):
    """Σ max(0, ⌊(start + i step) / unit⌋), i = 0 … count - 1; as exact as `ceil_sum`."""
    ratio = unit / step
    first = np.floor(start / step)
    fine = _steps_below(first + count, ratio) - _steps_below(first, ratio)
    lowest = np.floor(start / unit)
    from_ = np.clip(np.ceil(-lowest * ratio), 0.0, count)
    coarse = (count - from_) * lowest + (count * (count - 1) - from_ * (from_ - 1)) / 2 / ratio
    return np.where(ratio >= 1, fine, coarse)


def _staircase(n, ratio):
    """Σ ⌈i / ratio⌉, i = 1 … n, for whole ratios; the area under the staircase for others."""
    full = np.floor(n / ratio)
    return ratio * full * (full + 1) / 2 + (n - full * ratio) * (full + 1)


def _steps_below(n, ratio):
    """Σ ⌊i / ratio⌋, i = 0 … n - 1; nothing for negative n."""
    n = np.maximum(n, 0.0)
    full = np.floor(n / ratio)
    return ratio * full * (full - 1) / 2 + (n - full * ratio) * full
