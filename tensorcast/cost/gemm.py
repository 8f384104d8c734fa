"""Dense and batched matrix products, and the quantisation of their inputs.

C[m, n] = A[m, k] · B[k, n], `b` of them at once. A product is cut into tiles TM × TN, a tile's k into s parts; the
cores work through the tiles in waves:

    w     = b ⌈m/TM⌉ ⌈n/TN⌉ s / cores                      waves; W = max(1, w + al (⌈w⌉ - w))
    unit  = ‖2 TM TN ks / (F/cores · ec), bytes streamed into the core / bsm, ks · kap‖₃ + bytes stored · ep
    mem   = (bytes of A, B, C) / (BW · em) · (1 - h + h/rl2)
    T     = t0 + min over tiles and s of ( ‖W · unit, mem‖₃ + [s > 1] (8 s m n / BW + ts) )
            + (2 + bytes of A's element) m k / (BW · ew), where a quantisation of A is timed with the product

with ‖x, y‖₃ = (x³ + y³)^(1/3), F the dense peak (FLOP/s), BW the memory bandwidth (B/s) and h the weight of the
last-level cache (0 in real inference). `kap` is the latency of a step along k, `al` how far waves quantise. Seconds,
bytes. Valid for any size ≥ 1; fitted for m up to 32768 and n, k up to 65536. Source: own model, after the tiling every
GEMM library documents.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from tensorcast.cost.call import Call
from tensorcast.cost.time import Time
from tensorcast.ops.base import Work, item_bytes

TILE_M, TILE_N = (16, 32, 64, 128, 256), (32, 64, 128, 256)
SPLITS = (1, 2, 4, 8, 16, 32)
TILES = np.array([(tm, tn, s) for tm, tn, s in product(TILE_M, TILE_N, SPLITS) if (tm, tn) != (256, 256)], dtype=float)
_BLOCK = 512  # configurations evaluated at once: candidates × block stay in the processor's cache


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
    for at in range(0, m.size, _BLOCK):
        part = slice(at, at + _BLOCK)
        body[part], compute[part] = _best(
            b[part], m[part], n[part], k[part], memory[part], (ba, bb, bc), hw.peak(call.math), p, hw
        )
    if s.get("quantized"):
        body = body + (2 + ba) * m * k / (hw.memory_bw * p["ew"])
    return Time(p["t0"], matrix=compute.reshape(shape), memory=memory.reshape(shape), body=body.reshape(shape))


def _best(b, m, n, k, memory, item, peak, p, hw) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, seconds of the cores' work) with the fastest tiles. Arrays [candidates, calls]."""
    ba, bb, bc = item
    tm, tn, s = (TILES[:, i, None] for i in range(3))
    rows, columns = np.minimum(tm, 8 * np.ceil(m / 8)), np.minimum(tn, n)
    ks = np.maximum(32.0, 32 * np.ceil(k / (32 * s)))
    waves = b * np.ceil(m / tm) * np.ceil(n / tn) * s / hw.cores
    waves = np.maximum(1.0, waves + p["al"] * (np.ceil(waves) - waves))
    math = ks * (2 * tm * tn / (peak / hw.cores * p["ec"]))
    load = (rows * ba + columns * bb) * ks / p["bsm"]
    step = ks * p["kap"]
    unit = np.cbrt(math * math * math + load * load * load + step * step * step) + rows * columns * (bc * p["ep"])
    work = waves * unit
    total = np.cbrt(work * work * work + memory**3)
    total += np.where(s > 1, 8 * s * b * m * n / hw.memory_bw + p["ts"], 0.0)
    total[(s > 1) & (k / s < 64)] = np.inf
    if p["large"]:  # kernels that choose their tile by m alone, not by time
        total[((tm < 128) | (tn < 128) | (s > 1)) & (m > p["large"])] = np.inf
    best = np.argmin(total, axis=0)[None]
    return np.take_along_axis(total, best, 0)[0], np.take_along_axis(work, best, 0)[0]
