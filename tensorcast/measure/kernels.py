"""The kernels that are measured: which table they fill, and what one call of them is.

`build(machine, shape)` makes the operands and returns the call; its result is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from tensorcast.measure import shapes
from tensorcast.measure.experts import experts_call, experts_kernel
from tensorcast.measure.machine import Machine

Call = Callable[[], Any]


@dataclass(frozen=True)
class Kernel:
    """fixed: columns all its rows share. work(shape) → (FLOP, bytes of the operands). needs: format of the machine."""

    table: str
    name: str
    fixed: Mapping[str, Any]
    shapes: Callable[[int, bool], list[dict[str, int]]]
    build: Callable[[Machine, Mapping[str, Any]], Call]
    work: Callable[[Mapping[str, Any]], tuple[float, float]]
    needs: str = field(default="bf16")


BF16 = {"dtype": "bfloat16"}
ATTENTION = {**BF16, "kv_dtype": "bfloat16", "window": 0}
FP8 = torch.float8_e4m3fn


def kernels(machine: Machine) -> list[Kernel]:
    """All kernels this torch has for the machine, table by table."""
    cuda = machine.kind == "cuda"
    library = {"cuda": "cublas" if torch.version.cuda else "hipblas", "npu": "cann", "cpu": "torch"}[machine.kind]
    sdpa, all_experts = "torch_sdpa", {**BF16, "moe_tp": 1, "moe_ep": 1, "distribution": "balanced", "gated": True}
    found = [Kernel("gemm", library, BF16, shapes.products, _product, _product_work)]
    if cuda and hasattr(torch, "_scaled_mm"):
        found.append(
            Kernel("gemm", "torch_scaled_mm", {"dtype": "fp8"}, shapes.products, _scaled, _product_work, "fp8")
        )
    found += [
        Kernel("attention_prefill", sdpa, ATTENTION, shapes.queries, _prefill, _prefill_work),
        Kernel("attention_decode", sdpa, ATTENTION, shapes.contexts, _decode, _decode_work),
        Kernel("attention_encoder", sdpa, BF16, shapes.images, _encoder, _encoder_work),
        Kernel("moe", experts_kernel(machine), all_experts, shapes.experts, experts_call, _experts_work),
        *(
            Kernel("memory", f"torch_{op}", {**BF16, "op": op}, shapes.matrices, build, _matrix_work)
            for op, build in MOVES.items()
        ),
    ]
    if machine.kind == "npu":
        found.append(
            Kernel(
                "quantize",
                "cann",
                {"op": "scale_matrix", "dtype": "int8"},
                shapes.quantised,
                _to_int8,
                _cast_work,
                "int8",
            )
        )
    else:
        found.append(
            Kernel(
                "quantize",
                "torch_cast",
                {"op": "scale_matrix", "dtype": "fp8"},
                shapes.quantised,
                _to_fp8,
                _cast_work,
                "fp8",
            )
        )
    return found


def _product(machine: Machine, s) -> Call:
    a, b = machine.random(s["m"], s["k"]), machine.random(s["n"], s["k"]).t()
    return lambda: torch.mm(a, b)


def _scaled(machine: Machine, s) -> Call:
    """The activation's cast and the product, as an engine runs them."""
    a, b = machine.random(s["m"], s["k"]), machine.random(s["n"], s["k"], dtype=FP8).t()
    one = torch.ones((), device=machine.device)
    return lambda: torch._scaled_mm(a.to(FP8), b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _product_work(s):
    return 2.0 * s["m"] * s["n"] * s["k"], 2.0 * (s["m"] * s["k"] + s["n"] * s["k"] + s["m"] * s["n"])


def _attention(machine: Machine, batch, queries, keys, heads, kv_heads, width, causal) -> Call:
    q = machine.random(batch, heads, queries, width)
    k, v = (machine.random(batch, kv_heads, keys, width) for _ in range(2))
    grouped = heads != kv_heads
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def _prefill(machine: Machine, s) -> Call:
    return _attention(machine, s["batch"], s["q_len"], s["kv_len"], s["heads"], s["kv_heads"], s["head_dim"], True)


def _decode(machine: Machine, s) -> Call:
    return _attention(machine, s["batch"], 1, s["kv_len"], s["heads"], s["kv_heads"], s["head_dim"], False)


def _encoder(machine: Machine, s) -> Call:
    return _attention(machine, s["batch"], s["seq"], s["seq"], s["heads"], s["heads"], s["head_dim"], False)


def _attention_work(batch, queries, keys, heads, kv_heads, width):
    # The scores count as bytes: where torch has no fused kernel it stores them.
    bytes_ = 2.0 * batch * width * (2 * heads * queries + 2 * kv_heads * keys) + 4.0 * batch * heads * queries * keys
    return 4.0 * batch * heads * queries * keys * width, bytes_


def _prefill_work(s):
    return _attention_work(s["batch"], s["q_len"], s["kv_len"], s["heads"], s["kv_heads"], s["head_dim"])


def _decode_work(s):
    return _attention_work(s["batch"], 1, s["kv_len"], s["heads"], s["kv_heads"], s["head_dim"])


def _encoder_work(s):
    return _attention_work(s["batch"], s["seq"], s["seq"], s["heads"], s["heads"], s["head_dim"])


def _experts_work(s):
    pairs = s["tokens"] * s["topk"]
    weights = 3.0 * s["experts"] * s["hidden"] * s["inter"]
    return 6.0 * pairs * s["hidden"] * s["inter"], 2.0 * (weights + pairs * (4 * s["hidden"] + 3 * s["inter"]))


def _copy(machine: Machine, s) -> Call:
    x = machine.random(s["rows"], s["columns"])
    y = torch.empty_like(x)
    return lambda: y.copy_(x)


def _add(machine: Machine, s) -> Call:
    x, y = (machine.random(s["rows"], s["columns"]) for _ in range(2))
    return lambda: x + y


def _silu_mul(machine: Machine, s) -> Call:
    x, y = (machine.random(s["rows"], s["columns"]) for _ in range(2))
    return lambda: F.silu(x) * y


def _rms_norm(machine: Machine, s) -> Call:
    x, w = machine.random(s["rows"], s["columns"]), machine.random(s["columns"])
    return lambda: F.rms_norm(x, (s["columns"],), w)


def _layer_norm(machine: Machine, s) -> Call:
    x, w, b = machine.random(s["rows"], s["columns"]), machine.random(s["columns"]), machine.random(s["columns"])
    return lambda: F.layer_norm(x, (s["columns"],), w, b)


def _softmax(machine: Machine, s) -> Call:
    x = machine.random(s["rows"], s["columns"])
    return lambda: torch.softmax(x, -1)


def _gather(machine: Machine, s) -> Call:
    table = machine.random(s["rows"], s["columns"])
    order = torch.randperm(s["rows"], device=machine.device)
    return lambda: F.embedding(order, table)


MOVES = {
    "copy": _copy, "add": _add, "silu_mul": _silu_mul, "rms_norm": _rms_norm, "layer_norm": _layer_norm,
    "softmax": _softmax, "gather": _gather,
}  # fmt: skip


def _matrix_work(s):
    return 0.0, 6.0 * s["rows"] * s["columns"]


def _to_fp8(machine: Machine, s) -> Call:
    x = machine.random(s["m"], s["k"])
    return lambda: x.to(FP8)


def _to_int8(machine: Machine, s) -> Call:
    import torch_npu

    x = machine.random(s["m"], s["k"])
    return lambda: torch_npu.npu_dynamic_quant(x)


def _cast_work(s):
    return 0.0, 3.0 * s["m"] * s["k"]
