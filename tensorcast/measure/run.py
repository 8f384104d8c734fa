"""Measure every kernel of a machine that is not in the tables yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from tensorcast.errors import InputError, UnknownNameError
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.measure import collectives
from tensorcast.measure.kernels import Kernel, kernels
from tensorcast.measure.machine import Machine, find
from tensorcast.measure.store import Store

SHAPES = {"quick": 60, "normal": 150, "full": 400}
LONGEST_S = {"cpu": 0.02}  # calls that must take longer than this are left out; elsewhere:
LONGEST = 0.1
BUDGET_S = {"quick": 0.01, "normal": 0.05, "full": 0.1}  # seconds of timed calls for one shape
GIVE_UP = 5  # failures in a row, none of them for want of memory, after which a kernel is left
EXTRA = ("device", "backend", "version", "kernel", "cache_state")
Told = Callable[[str], None]


@dataclass
class Tally:
    """What became of a kernel's shapes."""

    measured: int = 0
    there: int = 0
    too_large: int = 0
    failed: int = 0
    why: str = ""

    def __str__(self) -> str:
        parts = [f"{self.measured} shapes measured"]
        parts += [f"{self.there} there before"] if self.there else []
        parts += [f"{self.too_large} too large"] if self.too_large else []
        parts += [f"{self.failed} failed ({self.why})"] if self.failed else []
        return ", ".join(parts)


def measure(
    hw: HardwareProfile,
    folder: str | Path,
    *,
    device: str | None = None,
    size: str = "normal",
    families: Collection[str] = (),
    told: Told | None = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> None:
    """Fill the tables in `folder` with kernels measured here, as rows of the machine `hw`.

    Shapes that are there already are passed over, so that a run that was broken off goes on where it stopped.
    size: quick, normal or full. InputError where the device is not here.
    """
    kind = find(device)
    machine = Machine(kind, hw.l2_bytes, BUDGET_S[size])
    asked = _chosen(kernels(machine), families)
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
    if told and machine.cores and hw.cores and machine.cores != hw.cores:
        told(f"note: this device has {machine.cores} cores, {hw.name} has {hw.cores}; is it the right machine?")
    torch.manual_seed(0)
    clock = _Clock(len(asked) * SHAPES[size], progress)
    for kernel in asked:
        name = " ".join(dict.fromkeys(filter(None, (kernel.table, kernel.fixed["dtype"], kernel.name))))
        if not hw.has(kernel.needs):
            clock.passed(SHAPES[size])
            if told:
                told(f"{name}: {hw.name} does not compute {kernel.needs}")
            continue
        tally = _measured(kernel, machine, hw, root, size, lambda name=name: clock.step(name))
        if told:
            told(f"{name}: {tally}")
    if not families or collectives.TABLE in families:
        store = Store(root, collectives.TABLE, (*collectives.KEY, *EXTRA[:-1]))
        said = collectives.measure_collectives(machine, hw, store)
        if told:
            told(f"{collectives.TABLE}: {said}")


def _chosen(found: list[Kernel], families: Collection[str]) -> list[Kernel]:
    known = [*dict.fromkeys(kernel.table for kernel in found), collectives.TABLE]
    for name in families:
        if name not in known:
            raise UnknownNameError("family to measure", name, known, f"known: {', '.join(known)}")
    return [kernel for kernel in found if not families or kernel.table in families]


def _measured(kernel: Kernel, machine: Machine, hw, root: Path, size: str, step) -> Tally:
    shapes = kernel.shapes(SHAPES[size], machine.kind == "cpu")
    store = Store(root, kernel.table, (*kernel.fixed, *shapes[0], *EXTRA))
    facts = {"device": hw.name, "backend": "torch", "version": torch.__version__, "kernel": kernel.name}
    facts |= {**kernel.fixed, "cache_state": "cold"}
    tally, in_a_row = Tally(), 0
    try:
        for shape in shapes:
            step()
            row = {**facts, **shape}
            if row in store:
                tally.there += 1
                continue
            if not _fits(kernel, shape, machine, hw):
                tally.too_large += 1
                continue
            try:
                seconds, calls = machine.seconds(kernel.build(machine, shape))
            except (RuntimeError, NotImplementedError) as cause:  # of torch: no such kernel, no memory
                tally.failed, tally.why = tally.failed + 1, tally.why or _first_line(cause)
                in_a_row += not isinstance(cause, torch.OutOfMemoryError)
                if in_a_row == GIVE_UP:
                    break
                continue
            finally:
                machine.release()
            store.add({**row, "latency_s": seconds, "n_rep": calls, "clock_hz": machine.clock_hz()})
            tally.measured, in_a_row = tally.measured + 1, 0
    finally:
        store.save()
    return tally


def _fits(kernel: Kernel, shape, machine: Machine, hw) -> bool:
    flop, nbytes = kernel.work(shape)
    long = LONGEST_S.get(machine.kind, LONGEST)
    return flop / hw.peak(kernel.needs if flop else next(iter(hw.peaks))) < long and nbytes < machine.free_bytes / 3


def _first_line(cause: Exception) -> str:
    return (str(cause).splitlines() or [type(cause).__name__])[0][:100]


class _Clock:
    """Tells how far a run is and how long it will still take."""

    def __init__(self, total: int, progress) -> None:
        self.total, self.done, self.progress, self.start = total, 0, progress, time.monotonic()

    def passed(self, steps: int) -> None:
        self.total -= steps

    def step(self, name: str) -> None:
        self.done += 1
        if self.progress is None:
            return
        spent, share = time.monotonic() - self.start, min(self.done / self.total, 1.0)
        left = spent * (1 - share) / share
        self.progress(f"{name}, {left:.0f} s left" if left < 120 else f"{name}, {left / 60:.0f} min left", share)
