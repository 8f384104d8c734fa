"""A layer of routed experts on one rank: permute, two grouped products, activation and weighted sum.

Expert e of this rank gets c_e of the tokens (`tensorcast.cost.routing`): P = Σ c_e pairs, A experts with any. The
products have N = 2I columns (I without a gate) and K = H, then N = H and K = I; each is cut into tiles TM × TN that
never hold two experts:

    w     = Σ_e ⌈c_e/TM⌉ ⌈N/TN⌉ / cores                        waves; W = max(1, w + al (⌈w⌉ - w))
    unit  = ‖2 TM TN K / (F/cores · ec), bytes streamed into the core / bsm, K · kap‖₃ + bytes stored · ep
    mem   = (A N K · bytes of a weight + P (K · bytes of an activation + N · bytes of a result)) / (BW · em)
    T     = t0 + Σ over both products of min over tiles ‖W · unit, mem‖₃ + rest / (BW · ew) + te A + tl E + tr T

with ‖x, y‖₃ = (x³ + y³)^(1/3), F the dense peak (FLOP/s), BW the memory bandwidth (B/s), H the hidden and I the inner
size, E the experts of this rank, T its tokens before dispatch. `rest`: bytes of the permutation, the activation and the
sum. `te`, `tl` and `tr` are what an expert with work, an expert at all and a token cost beyond that (descriptors,
sorting). mem is multiplied by (1 - h + h/rl2), h the weight of the last-level cache, 0 in real inference. `rule` > 0:
the kernel takes the least tile that holds `rule` times the tokens an expert gets on average, instead of the fastest;
tiles are at least `low` and at most `high` rows high. `listed`: permutation, activation and sum pass over the pairs of
all ranks. Seconds, bytes. Valid for any size ≥ 1; fitted for up to 65536 tokens. Source: own model.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from tensorcast.cost import routing
from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.gemm import product_format
from tensorcast.cost.routing import Load
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work, item_bytes

HEIGHTS = (8, 16, 32, 64, 128, 256)
WIDTHS = (64, 128, 256)
LARGEST = 256 * 128  # elements of a tile: what a core's registers hold
TILES = np.array([(i, h, w) for (i, h), w in product(enumerate(HEIGHTS), WIDTHS) if h * w <= LARGEST], dtype=float)
_BLOCK = 512  # calls evaluated at once: candidates × block stay in the processor's cache


def experts_format(attrs) -> str:
    """The format that the coefficients of a layer of experts are kept under."""
    if attrs["weight_format"] != "mxfp4":
        return product_format(attrs)
    return "mxfp4" if attrs.get("dequantize") else "mxfp4_mxfp8"


def experts_call(dims, work: Work, attrs, alpha: float | None = None) -> Call:
    """The call of a `moe_experts` row. alpha: exponent of the power law the experts' popularity follows; None: every
    token chooses any expert with the same probability."""
    tokens = np.atleast_1d(np.asarray(dims["tokens"], dtype=float)) * attrs["groups"]
    chosen = attrs["top_k"], attrs["experts"], attrs["ep"], HEIGHTS
    load = routing.uniform(tokens, *chosen)
    if alpha is not None:
        even, load = load.pairs, routing.power_law(np.maximum(np.ceil(tokens), 1), *chosen, alpha)
        work = replace(work, matrix_flops=work.matrix_flops * np.maximum(load.pairs / even, 1.0))
    up = dims["inter"] * (2 if attrs["gated"] else 1)
    item = (
        item_bytes(attrs["weight_format"]) * (1 + attrs["scale_overhead"]),
        item_bytes(attrs["act_format"]),
        item_bytes(attrs["out_format"]),
    )
    sizes = experts_sizes(load, np.minimum(tokens, load.pairs), dims["hidden"], dims["inter"], up, item)
    sizes |= {"mean": tokens * attrs["top_k"] / attrs["experts"], "local": attrs["experts"] / attrs["ep"]}
    return Call(work, sizes, math=attrs["math"], vector="fp16")


def experts_sizes(load: Load, tokens, hidden, inter, up, item) -> dict:
    """What `experts_time` wants to know; item: bytes of a weight, an activation and a result. `mean` and `local` are
    still missing: tokens of an expert on average over all ranks, and experts of this rank."""
    weight, act, out = item
    return {
        "tokens": tokens,
        "hidden": hidden,
        "inter": inter,
        "up": up,
        "pairs": load.pairs,
        "listed": load.pairs,
        "active": load.active,
        "tiles": load.tiles,
        "weight": weight,
        "act": act,
        "out": out,
    }


def experts_time(call: Call, p, hw) -> Time:
    """Seconds of the layers of a call; see the module's docstring and `experts_sizes`."""
    s = call.sizes
    names = ("tokens", "hidden", "inter", "up", "pairs", "listed", "active", "mean", "local")
    arrays = np.broadcast_arrays(*(np.asarray(s[n], dtype=float) for n in names), call.hit(hw))
    shape = arrays[0].shape
    *parts, cached = (a.reshape(-1) for a in arrays)
    v = dict(zip(names, parts, strict=True)) | {"warm": 1 - cached + cached / p["rl2"]}
    tiles = np.asarray(s["tiles"], dtype=float).reshape(len(HEIGHTS), -1)
    item = s["weight"], s["act"], s["out"]
    body, compute, memory = np.empty((3, v["pairs"].size))
    for at in range(0, body.size, _BLOCK):
        here = slice(at, at + _BLOCK)
        block = {name: array[here] for name, array in v.items()}
        found = [
            _product(block, tiles[:, here], block[n], block[k], item, hw.peak(call.math), p, hw)
            for n, k in (("up", "hidden"), ("hidden", "inter"))
        ]
        body[here], compute[here], memory[here] = (sum(x) for x in zip(*found, strict=True))
    body += _rest(v, item, p, hw) + p["te"] * v["active"] + p["tl"] * v["local"] + p["tr"] * v["tokens"]
    return Time(p["t0"], matrix=compute.reshape(shape), memory=memory.reshape(shape), body=body.reshape(shape))


def _product(v, tiles, n, k, item, peak, p, hw):
    """(seconds, of the cores' work, of the memory) of one grouped product. Arrays [candidates, calls]."""
    weight, act, out = item
    memory = v["active"] * n * k * weight + v["pairs"] * (k * act + n * out)
    memory = memory / (hw.memory_bw * p["em"]) * v["warm"]
    candidates = TILES[(TILES[:, 1] >= p["low"]) & (TILES[:, 1] <= p["high"])]
    index, height, width = (candidates[:, i, None] for i in range(3))
    rows = np.minimum(height, 8 * np.ceil(v["pairs"] / v["active"] / 8))
    columns = np.minimum(width, n)
    waves = tiles[index[:, 0].astype(int)] * np.ceil(n / width) / hw.cores
    waves = np.maximum(1.0, waves + p["al"] * (np.ceil(waves) - waves))
    ks = 32 * np.ceil(k / 32)
    math = 2 * height * width * ks / (peak / hw.cores * p["ec"])
    unit = soft_max(math, (rows * act + columns * weight) * ks / p["bsm"], ks * p["kap"])
    work = waves * (unit + rows * columns * (out * p["ep"]))
    total = soft_max(work, memory)
    if p["rule"]:
        fits = np.unique(height)
        wanted = fits[np.minimum(np.searchsorted(fits, v["mean"] * p["rule"]), len(fits) - 1)]
        total = np.where(height == wanted, total, np.inf)
    best = np.argmin(total, axis=0)[None]
    return np.take_along_axis(total, best, 0)[0], np.take_along_axis(work, best, 0)[0], memory


def _rest(v, item, p, hw):
    """Seconds of the kernels around the products: permutation, activation, weighted sum."""
    _, act, _ = item
    pairs = v["listed"] if p["listed"] else v["pairs"]
    nbytes = 4 * v["tokens"] * v["hidden"] + pairs * (v["hidden"] * (4 + act) + v["inter"] * (4 + act))
    return nbytes / (hw.memory_bw * p["ew"])


def no_faster(skewed: Time, even: Time) -> Time:
    """The time of a skewed load, which is never counted as a gain over an even one: a load that leaves experts without
    a token saves the reading of their weights, which no deployment can count on."""
    return replace(skewed, body=np.maximum(skewed.seconds, even.seconds) - skewed.overhead)
