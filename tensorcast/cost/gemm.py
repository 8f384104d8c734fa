"""Dense and batched matrix products, and the quantisation of their inputs.

C[m, n] = A[m, k] · B[k, n], `b` of them at once. A product is cut into tiles TM × TN, a tile's k into s parts; the
cores work through the tiles in waves:

    w     = b ⌈m/TM⌉ ⌈n/TN⌉ s / cores                      waves; W = max(1, w + al (⌈w⌉ - w))
    unit  = ‖2 TM TN ks / (F/cores · ec), bytes streamed into the core / bsm, ks · kap‖₃ + bytes stored · ep
    mem   = (bytes of A, B, C) / (BW · em) · (1 - h + h/rl2)
    T     = t0 + min over tiles and s of ( ‖W · unit, mem‖₃ + [s > 1] (8 s m n / BW + ts) )
            + (2 + bytes of an A element) b m k / (BW · ew), where a quantisation of A is timed with the product

with ‖x, y‖₃ = (x³ + y³)^(1/3), F the dense peak (FLOP/s), BW the memory bandwidth (B/s) and h the weight of the
last-level cache (0 in real inference). `kap` is the latency of a step along k, `al` how far waves quantise. Seconds,
bytes. Valid for any size ≥ 1; fitted for m up to 32768 and n, k up to 65536. Source: own model, after the tiling every
GEMM library documents.

Of special kernels: `ev`, `tv` describe the one on the vector units for up to 15 rows; `few` is the least that 3 to 15
rows take beyond t0 where they are padded first; `large`, `pair` and `whole` say from or up to how many rows a library
uses large tiles only, hands full blocks to pairs of cores, or does not split k. `droop`: the matrix engine slows down
with the FLOP of a call beyond 10¹², as the clock gives way to the power limit, and no further beyond 2·10¹⁴: the
largest calls that were measured are of 1.7·10¹⁴.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tensorcast.cost.call import Call, soft_max
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work, item_bytes

_SHAPES = np.array([t for t in product((16, 32, 64, 128, 256), (32, 64, 128, 256)) if t != (256, 256)], dtype=float)
TILE_M, TILE_N = _SHAPES[:, :1], _SHAPES[:, 1:]
SPLITS = np.array([1, 2, 4, 8, 16, 32], dtype=float)[:, None]
CANDIDATES = len(_SHAPES) * len(SPLITS)
FEW_ROWS = 15
FULL_CLOCK, LEAST_CLOCK = 1e12, 2e14  # FLOP of a call
_BLOCK = 256  # configurations evaluated at once: candidates × block stay in the processor's cache


def product_format(attrs) -> str:
    """The format that a product's coefficients are kept under: bf16, fp8, fp8_block, int8, int8_wo, int4_wo, nvfp4 …"""
    if attrs.get("dequantize") and attrs["math"] in ("bf16", "fp16", "fp32"):
        return f"int{4 if attrs['weight_format'] in ('int4', 'mxfp4', 'nvfp4') else 8}_wo"
    return "fp8_block" if attrs.get("scheme") == "fp8-block" else attrs["math"]


def product_call(dims, work: Work, attrs) -> Call:
    """The call of a `linear` or `bmm` row."""
    m, n, k, b = dims["m"], dims["n"], dims["k"], dims.get("b", 1.0)
    a_format, b_format = (
        (attrs["act_format"], attrs["weight_format"])
        if "act_format" in attrs
        else (attrs["x_format"], attrs["y_format"])
    )
    out = item_bytes(attrs.get("out_format", a_format))
    sizes = {"b": b, "m": m, "n": n, "k": k, "ba": item_bytes(a_format), "bb": item_bytes(b_format), "bc": out}
    return Call(work, sizes, math=attrs["math"], vector="fp16")


def tiles_time(call: Call, p, hw) -> Time:
    """Seconds of the products of a call; see the module's docstring. sizes: b, m, n, k; ba, bb, bc bytes an element;
    quantized: whether the quantisation of A is timed too."""
    s = call.sizes
    arrays = np.broadcast_arrays(*(np.asarray(s[name], dtype=float) for name in ("b", "m", "n", "k")), call.hit(hw))
    shape = arrays[0].shape
    b, m, n, k, cached = (array.reshape(-1) for array in arrays)
    ba, bb, bc = s["ba"], s["bb"], s["bc"]
    memory = b * (ba * m * k + bb * n * k + bc * m * n) / (hw.memory_bw * p["em"]) * (1 - cached + cached / p["rl2"])
    body, compute = np.empty(m.size), np.empty(m.size)
    distinct, again = _distinct(b, m, n, k, cached)
    for at in range(0, distinct.size, _BLOCK):
        part = distinct[at : at + _BLOCK]
        body[part], compute[part] = _best(
            b[part], m[part], n[part], k[part], memory[part], (ba, bb, bc), hw.peak(call.math), p, hw
        )
    body, compute = body[again], compute[again]
    if p["ev"]:
        body = np.minimum(body, _dot_products(b, m, n, k, memory, p, hw))
    if p["few"]:
        body = np.where((m > 2) & (m < 16), np.maximum(body, p["few"]), body)
    if s.get("quantized"):
        body = body + (2 + ba) * b * m * k / (hw.memory_bw * p["ew"])
    return Time(p["t0"], matrix=compute.reshape(shape), memory=memory.reshape(shape), body=body.reshape(shape))


def _distinct(*sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(one position of every distinct call, for every call that position), where at most one size varies."""
    varying = [x for x in sizes if x.size and (x != x[0]).any()]
    positions = np.arange(sizes[0].size)
    if len(varying) > 1:
        return positions, positions
    if not varying:
        return positions[:1], np.zeros_like(positions)
    _, first, inverse = np.unique(varying[0], return_index=True, return_inverse=True)
    return first, first[inverse]


def _dot_products(b, m, n, k, memory, p, hw) -> np.ndarray:
    """Few rows go to a kernel on the vector units, which starts `tv` seconds sooner."""
    vector = 2 * b * m * n * k / (hw.vector_peak("fp16") * p["ev"])
    return np.where(m <= FEW_ROWS, np.maximum(soft_max(vector, memory) - p["tv"], memory), np.inf)


def _best(b, m, n, k, memory, item, peak, p, hw) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, seconds of the cores' work) with the fastest tiles. Arrays [tiles, splits, calls]."""
    ba, bb, bc = item
    rows, columns = np.minimum(TILE_M, 8 * np.ceil(m / 8)), np.minimum(TILE_N, n)
    droop = (FULL_CLOCK / np.clip(2 * b * m * n * k, FULL_CLOCK, LEAST_CLOCK)) ** p["droop"]
    math = 2 * TILE_M * TILE_N / (peak / hw.cores * p["ec"]) / droop
    load = (rows * ba + columns * bb) / p["bsm"]
    step = np.cbrt(math * math * math + load * load * load + p["kap"] ** 3)  # seconds along k, per element
    if p["large"]:  # kernels that choose their tile by m alone, not by time
        step[((TILE_M < 128) | (TILE_N < 128)) & (m > p["large"])] = np.inf
    step_k = 2.0 ** np.round(np.log2(128 / ba))  # elements of A in a line of the shared memory
    ks = step_k * np.ceil(k / (step_k * SPLITS))
    waves = (_blocks(b, m, n, p) / hw.cores)[:, None] * SPLITS
    work = np.ceil(waves)
    work *= p["al"]
    waves *= 1 - p["al"]
    work += waves
    np.maximum(work, 1.0, out=work)
    work *= step[:, None] * ks + (rows * columns * (bc * p["ep"]))[:, None]
    work = work.min(axis=0)
    total = np.cbrt(work * work * work + memory * memory * memory)
    total[1:] += 8 * b * m * n / hw.memory_bw * SPLITS[1:] + p["ts"]
    unsplit = (k < 64 * SPLITS[1:]) | (m < p["whole"]) | ((m > p["large"]) & (p["large"] > 0))
    total[1:][unsplit] = np.inf
    best = np.argmin(total, axis=0)[None]
    return np.take_along_axis(total, best, 0)[0], np.take_along_axis(work, best, 0)[0]


def _blocks(b, m, n, p) -> np.ndarray:
    """Tiles of the whole product: [tiles, calls]."""
    down = np.ceil(m / TILE_M)
    if p["pair"]:  # clusters of cores take full blocks of `pair` rows, whatever part of them is used
        down = np.where(m > p["pair"], np.ceil(m / p["pair"]) * np.maximum(p["pair"] / TILE_M, 1.0), down)
    return b * down * np.ceil(n / TILE_N)
