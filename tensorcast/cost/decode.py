"""Attention of one or a few queries against a long cache, over keys and values or over latents.

The query heads that share a key head fill tiles of `tq` rows; a tile reads its keys in blocks of `tk`. Where there are
fewer tiles than cores, the keys of each are split over several units of work, whose results a second kernel combines:

    tiles = b kv_heads ⌈q heads / (kv_heads tq)⌉ ;  N = blocks of `tk` keys that one sequence sees
    s     = clip(⌈N / ⌈1.1 tiles N / cores⌉⌉, 1, min(N, most))                             parts of the keys
    key   = 4 tq D w^wd / (F/cores · ec)                                                   seconds a key, w = D/128
    unit  = fill w^fd · 4 tq 128² / (F/cores) + ⌈N/s⌉ tk key                               `fill`: in blocks at the peak
    W     = max(1, u + al (⌈u⌉ - u)),  u = tiles s / cores                                 waves
    mem   = cache bytes / (BW · em) · (1 - h + h/rl2)                                      h = 1/(1 + r⁸)
    T     = t0 + ‖mem, W unit‖₃ + (bytes of queries and results) / (BW · eo)
            + [s > 1] (ts + tsp s) + [b ≤ 992] plan b + [copies] tx

with ‖x, y‖₃ = (x³ + y³)^(1/3), D = (d + dv)/2 the mean width of keys and values, F the dense 16-bit peak (FLOP/s) in
every format, BW the memory bandwidth (B/s), r = bytes between two reads of a key / bytes of the last-level cache (h = 0
in real inference). `blind`: parts are planned as if no window hid keys, and the empty ones are combined too. `narrow`:
blocks shrink with heads wider than 128. `plan`: work on the device to plan the parts, a sequence. `tx`: the copies that
turn heads into rows where a kernel cannot read them in place, counted where groups, key heads and sequences are more
than one (0 = never).

`solo` > 0: groups of one head, or of at least `solo`, go to a kernel with a unit for every query head, `occ` of which
share a core:  unit = tf1 + keys/s · lat1 w^ld1,  W = max(1, b heads s / (cores occ)).

Timed with the kernel in some tables, operators of their own in a model: `wt` seconds a token written to the cache
(sizes["appended"]); `th` seconds the host takes to launch the kernels one by one (sizes["eager"]), a lower bound;
`dirty`: the part of the last-level cache that a loop leaves to be written back, once the keys fill it
(sizes["flushed"]: the loop wrote over the cache before every call).

Seconds, bytes. Valid for any size ≥ 1; fitted for 1 to 2048 sequences of 2 to 131072 keys, 1 to 128 heads of 64 to 576
and groups of 1 to 128; more than one query a sequence is untested. Source: own model, after split keys (Flash-Decoding)
and the packing of grouped heads (FlashAttention-2 and -3, arXiv 2307.08691, 2407.08608).
"""

from __future__ import annotations

import numpy as np

from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.time import Time
from tensorcast.ops.attention import visible_keys
from tensorcast.ops.base import Work, item_bytes

REFERENCE = 128  # width of heads at which figures are stated, and keys of the block that fill counts
SHARPNESS = 8  # a cache that is read round and round falls out of the last-level cache at once
MARGIN = 1.1  # parts are cut so that the cores are a tenth more than busy
PLANNED = 992  # sequences that one planning kernel takes
FLAGS = ("appended", "eager", "flushed")


def decode_call(dims, work: Work, attrs) -> Call:
    """The call of a decode row; sizes as `splitkv_time` wants them."""
    queries = dims["b"] * dims["heads"] * dims["q"]
    io = item_bytes(attrs["out_format"]) * queries * (dims["d"] + dims["dv"])
    rule, shards = (attrs["causal"], attrs["window"], attrs.get("chunk", 0)), attrs.get("shards", 1)
    sizes = dict(dims) | {
        "kv": np.ceil(dims["kv"] / shards),
        "keys": visible_keys(dims["q"], dims["kv"], *rule, shards=shards),
        "topk": attrs["topk"],
        "cache": work.read_bytes + work.write_bytes - io,
        "io": io,
    }
    products = Work(work.matrix_flops, 0, work.read_bytes, work.write_bytes)
    return Call(products, sizes, math=attrs["math"])


def splitkv_time(call: Call, p, hw) -> Time:
    """Seconds of the attention of a call; see the module's docstring.

    sizes: b, q new tokens at the end of kv, heads, kv_heads, d, dv; keys that at least one query of a sequence sees
    (of them `topk` a query, chosen for each, unless that is 0); cache: bytes read of keys and values; io: bytes of
    queries and results.
    """
    s = {name: np.asarray(value, dtype=float) for name, value in call.sizes.items() if name not in FLAGS}
    width = (s["d"] + s["dv"]) / 2
    w = width / REFERENCE
    group = s["heads"] / s["kv_heads"]
    tk = p["tk"] * (np.minimum(1.0, 1 / w) if p["narrow"] else 1.0)
    parts, cut = _parts(s, group, tk, p, hw)
    rate = hw.peak("bf16" if hw.has("bf16") else "fp16") / hw.cores
    key = 4 * p["tq"] * width * w ** p["wd"] / (rate * p["ec"])
    start = p["fill"] * w ** p["fd"] * 4 * p["tq"] * REFERENCE**2 / rate
    units = cut["tiles"] * np.minimum(parts, cut["blocks"])
    waves = units / hw.cores
    waves = np.maximum(1.0, waves + p["al"] * (np.ceil(waves) - waves))
    cores = waves * (start + np.ceil(cut["blocks"] / parts) * tk * key)
    alone = _alone(group, p)
    if np.any(alone):
        unit = p["tf1"] + cut["keys"] / parts * p["lat1"] * w ** p["ld1"]
        own = np.maximum(1.0, s["b"] * s["q"] * s["heads"] * parts / (hw.cores * p["occ"])) * unit
        cores = np.where(alone, own, cores)
    cached = call.hit(hw, SHARPNESS)
    memory = s["cache"] / (hw.memory_bw * p["em"]) * (1 - cached + cached / p["rl2"])
    body = soft_max(memory, cores) + s["io"] / (hw.memory_bw * p["eo"]) + _around(call, s, group, parts, p, hw)
    return Time(p["t0"], matrix=cores, memory=memory, body=body).at_least(p["th"] if call.sizes.get("eager") else 0.0)


def _alone(group, p):
    """Which groups go to the kernel of one head a unit."""
    return (group >= p["solo"]) | (group == 1) if p["solo"] else np.zeros_like(group, dtype=bool)


def _parts(s, group, tk, p, hw):
    """(parts that the keys of a tile are split into, {tiles, keys and blocks of keys of a tile})."""
    picks = s["topk"] > 0  # every query has keys of its own, which only its heads share
    keys = np.where(picks, np.minimum(s["keys"], np.where(picks, s["topk"], 1)), s["keys"])
    rows = np.where(picks, group, group * s["q"])
    tiles = s["b"] * s["kv_heads"] * np.where(picks, s["q"], 1.0) * np.ceil(rows / p["tq"])
    tiles = np.where(_alone(group, p), s["b"] * s["q"] * s["heads"], tiles)
    end = np.where(picks, keys, s["kv"])
    blocks = np.maximum(1.0, np.ceil(end / tk) - np.floor((end - keys) / tk))
    planned = np.maximum(1.0, np.ceil(end / tk)) if p["blind"] else blocks
    share = np.ceil(MARGIN * tiles * planned / hw.cores)
    parts = np.clip(np.ceil(planned / share), 1.0, np.minimum(planned, p["most"]))
    return parts, {"tiles": tiles, "keys": keys, "blocks": blocks}


def _around(call: Call, s, group, parts, p, hw):
    """Seconds of what runs before and after the attention kernel and is timed with it."""
    seconds = np.where(parts > 1, p["ts"] + p["tsp"] * parts, 0.0) + np.where(
        s["b"] <= PLANNED, p["plan"] * s["b"], 0.0
    )
    if p["tx"]:
        seconds = seconds + np.where((group > 1) & (s["kv_heads"] > 1) & (s["b"] > 1), p["tx"], 0.0)
    if call.sizes.get("appended"):
        seconds = seconds + p["wt"] * s["b"] * s["q"]
    if call.sizes.get("flushed") and p["dirty"]:
        seconds = seconds + np.where(s["cache"] > hw.l2_bytes, p["dirty"] * hw.l2_bytes / hw.memory_bw, 0.0)
    return seconds
