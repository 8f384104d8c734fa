"""A small machine, and tables that look as if its kernels had been measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tensorcast.cost import predict

MACHINE = """
name: bench-1
aliases: [bench]
vendor: nobody
kind: gpu
peaks: {bf16: 1.0e+14, fp8: 2.0e+14, source: me}
vector: {fp32: 1.0e+13, source: me}
memory: {bytes: 16000000000, bandwidth: 1.0e+12, source: me}
reserved: {bytes: 0, source: me}
chip: {cores: 64, clock_hz: 1.5e+9, l2_bytes: 4194304, source: me}
host: {op_time_s: 1.0e-5, graph_launch_s: 1.0e-5, source: me}
topology:
  tiers:
    - {name: board, kind: switch, devices: 2, bandwidth: 1.0e+10, latency_s: 1.0e-5, efficiency: 0.8, source: me}
sources: {me: "made up for tests"}
"""
# How its kernels really run, which nobody knows before calibrating.
TRUTH = """coefficients:
  gemm:
    - {format: bf16, kernel: mine, formula: tiles, t0: 6.0e-6, ec: 0.6, em: 0.7, kap: 1.0e-9, ts: 3.0e-6, bsm: 4.0e+11, ep: 3.0e-11, al: 0.3, rl2: 1.2, source: me}
  copy:
    - {format: any, kernel: torch_copy, formula: stream, t0: 5.0e-6, em: 0.62, rl2: 1.0, c: 2.0e-4, source: me}
"""  # noqa: E501


def machine(folder: Path, *, truth: bool = False) -> str:
    """The machine's file, with or without the coefficients that its tables were made with."""
    path = folder / ("truth.yaml" if truth else "bench-1.yaml")
    path.write_text(MACHINE.replace("sources:", f"{TRUTH}sources:") if truth else MACHINE)
    return str(path)


def table(
    folder: Path, family: str = "memory", rows: int = 200, noise: float = 0.02, **columns: object
) -> pd.DataFrame:
    """A table of the machine: true times with noise. Every size differs from row to row."""
    generator = np.random.default_rng(0)

    def sizes(low: int, high: int) -> np.ndarray:
        return np.exp(generator.uniform(np.log(low), np.log(high), rows)).astype(int)

    frame = {
        "memory": lambda: {"op": "copy", "kernel": "torch_copy", "rows": sizes(1, 60000), "columns": sizes(64, 16000)},
        "gemm": lambda: {"kernel": "mine", "m": sizes(1, 8000), "n": sizes(64, 8000), "k": sizes(64, 8000)},
    }[family]()
    told = {"device": "bench-1", "backend": "torch", "version": "1", "dtype": "bfloat16", "cache_state": "cold"}
    made = pd.DataFrame({**told, **frame})
    made["latency_s"] = predict(family, made, machine(folder, truth=True)) * np.exp(generator.normal(0, noise, rows))
    return made.assign(**columns)


def folder_of(tmp_path: Path, **frames: pd.DataFrame) -> str:
    """A folder of tables: family → frame."""
    root = tmp_path / "tables"
    root.mkdir(exist_ok=True)
    for family, frame in frames.items():
        frame.to_parquet(root / f"{family}.parquet")
    return str(root)


def broken(frame: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """Ways for a table to be wrong → what the one line about it must say."""
    late = frame.copy()
    late.loc[3, "latency_s"] = -1.0
    return {
        "missing": (frame.drop(columns="rows"), "has no column rows"),
        "no latency": (frame.drop(columns="latency_s"), "has no column latency_s"),
        "negative": (late, "latency_s is -1 in row 3"),
        "zero": (frame.assign(latency_s=0.0), "latency_s is 0 in row 0"),
        "nan": (frame.assign(latency_s=float("nan")), "latency_s is nan in row 0"),
        "infinite": (frame.assign(latency_s=float("inf")), "latency_s is inf in row 0"),
        "text": (frame.assign(latency_s="fast"), "latency_s must hold numbers"),
        "empty": (frame.iloc[:0], "has no rows"),
        "format": (frame.assign(dtype="bfloat17"), "bfloat17"),
        "op": (frame.assign(op="copie"), "'copie' is no op"),
        "suspect": (frame.assign(suspect=True), "every row is marked"),
    }
