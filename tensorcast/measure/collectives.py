"""Collectives between the devices of one machine, through torch.distributed: one process a device."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tensorcast.measure.machine import Machine
from tensorcast.measure.store import Store

TABLE = "collective"
KEY = ("op", "dtype", "n_ranks", "bytes", "kind")
LIBRARY = {"cuda": "nccl", "npu": "hccl", "cpu": "gloo"}
OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
PIECES = ("all_gather", "reduce_scatter")  # of which tables of an NPU count one rank's piece
SIZES = [2**power for power in range(10, 31)]  # bytes of the full buffer
WARM_UP, CALLS = 10, 40


def measure_collectives(machine: Machine, hw, store: Store) -> str:
    """Add what is missing for groups of 2, 4 … devices; says what was done."""
    groups = [n for n in (2, 4, 8, 16) if n <= machine.count]
    if not groups:
        return "needs two devices or more"
    library, measured = LIBRARY[machine.kind], 0
    facts = {"device": hw.name, "backend": "torch", "version": torch.__version__, "kernel": library}
    facts |= {"kind": library, "dtype": "half"}
    try:
        for ranks in groups:
            rows = [_row(machine.kind, op, ranks, size) | facts for op in OPS for size in SIZES]
            left = [
                (row, (row["op"], size)) for row, size in zip(rows, SIZES * len(OPS), strict=True) if row not in store
            ]
            for (row, _), seconds in zip(left, timed(machine.kind, ranks, [call for _, call in left]), strict=True):
                store.add({**row, "latency_s": seconds, "n_rep": CALLS})
                measured += 1
    finally:
        store.save()
    return f"{measured} sizes measured on {', '.join(map(str, groups))} devices"


def _row(kind: str, op: str, ranks: int, size: int) -> dict[str, Any]:
    piece = kind == "npu" and op in PIECES
    return {"op": op, "n_ranks": ranks, "bytes": size // ranks if piece else size}


def timed(kind: str, ranks: int, asked: list[tuple[str, int]]) -> list[float]:
    """Mean seconds of every (op, bytes), on the slowest rank."""
    if not asked:
        return []
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        result = os.path.join(folder, "result")
        mp.spawn(_rank, (kind, ranks, asked, os.path.join(folder, "meeting"), result), nprocs=ranks)
        return torch.load(result, weights_only=True)


def _rank(rank: int, kind: str, ranks: int, asked, meeting: str, result: str) -> None:
    api: Any = None if kind == "cpu" else getattr(torch, kind)
    if kind == "npu":
        import torch_npu  # noqa: F401
    if api is not None:
        api.set_device(rank)
    dist.init_process_group(LIBRARY[kind], init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    device = torch.device(kind if api is None else f"{kind}:{rank}")
    seconds = []
    for op, size in asked:
        call = _call(op, size, ranks, device)
        spent = torch.tensor([_seconds(call, api)], dtype=torch.float32, device=device)
        dist.all_reduce(spent, op=dist.ReduceOp.MAX)
        seconds.append(float(spent))
    if rank == 0:
        torch.save(seconds, result)
    dist.destroy_process_group()


def _call(op: str, size: int, ranks: int, device) -> Callable[[], Any]:
    """One collective; `size` is the full buffer: reduced, gathered, scattered or sent."""
    whole = torch.randn(max(size // 2, ranks), device=device).half()
    piece = whole[: len(whole) // ranks].clone()
    whole = whole[: len(piece) * ranks].contiguous()
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # their name before torch 2.13
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    match op:
        case "all_reduce":
            return lambda: dist.all_reduce(whole)
        case "all_gather":
            return lambda: gather(whole, piece)
        case "reduce_scatter":
            return lambda: scatter(piece, whole)
    into = torch.empty_like(whole)
    return lambda: dist.all_to_all_single(into, whole)


def _seconds(call, api) -> float:
    for _ in range(WARM_UP):
        call()
    if api is None:
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        return (time.perf_counter() - start) / CALLS
    marks = [api.Event(enable_timing=True) for _ in range(2)]
    api.synchronize()
    marks[0].record()
    for _ in range(CALLS):
        call()
    marks[1].record()
    api.synchronize()
    return marks[0].elapsed_time(marks[1]) / 1e3 / CALLS
