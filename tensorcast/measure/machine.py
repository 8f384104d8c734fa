"""The device that kernels are timed on: an accelerator of torch, or the processor."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any

import torch

from tensorcast.errors import InputError

DEVICES = ("cuda", "npu", "cpu")
WARM_UP = 3
FEWEST, MOST = 5, 50  # timed calls of one shape
UNKNOWN_CACHE = 128 * 2**20


def find(asked: str | None) -> str:
    """The kind of device to measure; InputError where it is not here."""
    here = [kind for kind in DEVICES if _available(kind)]
    if asked is None:
        if here[0] == "cpu":
            raise InputError(
                "torch sees no accelerator here (no CUDA, no torch_npu); --device cpu measures the processor"
            )
        return here[0]
    if asked not in here:
        raise InputError(f"--device {asked}: torch sees none here; it has {', '.join(here)}")
    return asked


def _available(kind: str) -> bool:
    if kind == "npu":
        try:
            import torch_npu  # noqa: F401  (it adds torch.npu)
        except ImportError:
            return False
        return torch.npu.is_available()
    return kind == "cpu" or torch.cuda.is_available()


class Machine:
    """One device: how to fill it with data, flush its cache, and time a call."""

    def __init__(self, kind: str, cache_bytes: int | None, budget_s: float) -> None:
        self.kind, self.budget_s = kind, budget_s
        self.device = torch.device(kind if kind == "cpu" else f"{kind}:0")
        self.api: Any = None if kind == "cpu" else getattr(torch, kind)
        # Larger than the cache, so that writing it drives out whatever a call left there.
        self._flush = torch.empty(2 * (cache_bytes or UNKNOWN_CACHE) // 4, dtype=torch.int32, device=self.device)
        self._clock: tuple[float, float | None] = (-1e9, None)

    def random(self, *shape: int, dtype=torch.bfloat16) -> torch.Tensor:
        """Normal numbers: constant data would draw less power, and flatter."""
        values = torch.randn(shape, device=self.device, dtype=torch.bfloat16)
        return values.to(dtype)

    @property
    def count(self) -> int:
        """Devices of this kind here; the processor is one."""
        return 1 if self.api is None else self.api.device_count()

    @property
    def cores(self) -> int | None:
        """Streaming multiprocessors, where torch tells."""
        return self.api.get_device_properties(0).multi_processor_count if self.kind == "cuda" else None

    @property
    def free_bytes(self) -> int:
        if self.api is not None:
            return self.api.mem_get_info()[0]
        import os

        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def seconds(self, call: Callable[[], Any]) -> tuple[float, int]:
        """(median seconds of a call with cold operands, calls timed)."""
        for _ in range(WARM_UP):
            call()
        self._wait()
        call = self._captured(call)
        once = self._timed(call, 1)[0]
        calls = int(min(max(self.budget_s / max(once, 1e-7), FEWEST), MOST))
        return median(self._timed(call, calls)), calls

    def _timed(self, call, calls: int) -> list[float]:
        if self.api is None:
            return [self._timed_here(call) for _ in range(calls)]
        marks = [[self.api.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for start, end in marks:
            self._flush.zero_()
            start.record()
            call()
            end.record()
        self._wait()
        return [start.elapsed_time(end) / 1e3 for start, end in marks]

    def _timed_here(self, call) -> float:
        self._flush.zero_()
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def _captured(self, call):
        """The call as a graph where the device has them, so that the host's time is not in it."""
        if self.kind != "cuda":
            return call
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                call()
        except RuntimeError:  # it asks the host something on its way
            torch.cuda.synchronize()
            return call
        graph.replay()
        return graph.replay

    def _wait(self) -> None:
        if self.api is not None:
            self.api.synchronize()

    def release(self) -> None:
        """Give memory back between shapes."""
        if self.api is not None:
            self.api.empty_cache()

    def clock_hz(self) -> float | None:
        """The clock of the cores, read at most once a second; None where nobody tells."""
        if self.kind != "cuda":
            return None
        if time.monotonic() - self._clock[0] > 1:
            self._clock = (time.monotonic(), _clock_hz())
        return self._clock[1]


def _clock_hz() -> float | None:
    with suppress(Exception):  # needs a library of its own
        return torch.cuda.clock_rate() * 1e6
    asked = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "--id=0"]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        return float(subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout) * 1e6
    return None
