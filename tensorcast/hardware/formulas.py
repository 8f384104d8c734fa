"""The parameters of every cost formula: their legal range, and how they move to another device.

The formulas themselves are in `tensorcast.cost`. A parameter that is a share or a ratio holds for any device; one in
seconds shrinks with a faster clock, one in bytes/s (per core) grows with it: `clock` is the power of the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorcast.errors import HardwareError
from tensorcast.hardware.checks import number, one_of


@dataclass(frozen=True)
class Parameter:
    """One figure of a formula: where it may lie, where a fit starts, and the power of the clock it goes with.

    `choices`: a figure a fit tries out instead of bending it (tile sizes, switches). `default`: what a row that does
    not state it means; None = it must be stated.
    """

    low: float
    high: float
    start: float
    clock: int = 0
    choices: tuple[float, ...] = ()
    default: float | None = None


@dataclass(frozen=True)
class Formula:
    """A named set of parameters, and the chip figures without which it cannot be used.

    `idle`: choice → parameters that mean nothing while it is 0, and are then kept at their defaults.
    """

    name: str
    parameters: Mapping[str, Parameter]
    needs: tuple[str, ...] = ()
    idle: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def check(self, values: Mapping[str, float]) -> dict[str, float]:
        """The values, validated and complete; HardwareError naming the parameter."""
        for name in values:
            one_of(name, self.parameters, f"{self.name}: parameter")
        complete = {}
        for name, parameter in self.parameters.items():
            value = values.get(name, parameter.default)
            if value is None:
                raise HardwareError(f"{name} is missing; {self.name} takes {', '.join(self.parameters)}")
            value = number(value, name, zero=parameter.low == 0 or bool(parameter.choices), at_most=parameter.high)
            if value < parameter.low:
                raise HardwareError(f"{name} must be at least {parameter.low:g}, not {value:g}")
            complete[name] = value
        unused = [name for choice, names in self.idle.items() if not complete[choice] for name in names]
        return complete | {name: self.parameters[name].default for name in unused}

    def moved(self, values: Mapping[str, float], clock_ratio: float) -> dict[str, float]:
        """The values on a device whose clock is `clock_ratio` times as fast."""
        return {
            name: min(max(value * clock_ratio**p.clock, p.low), p.high)
            for name, value in values.items()
            for p in (self.parameters[name],)
        }


def _seconds(high: float, start: float, low: float = 1e-12, **more) -> Parameter:
    return Parameter(low, high, start, clock=-1, **more)


def _share(start: float, low: float = 0.02, high: float = 1.0) -> Parameter:
    return Parameter(low, high, start)


def _ratio(start: float, low: float = 1.0, high: float = 20.0) -> Parameter:
    """How much faster a second read comes out of the last-level cache."""
    return Parameter(low, high, start)


_T0 = _seconds(5e-4, 4e-6, low=0.0)

# Effective figures of a kernel, not facts about the silicon, may exceed what the data sheet says of the chip; no time
# drops below its physical bound for that (`tensorcast.cost.pricing`).
_EC = _share(0.7, high=1.5)
_EM = _share(0.8, high=1.3)

FORMULAS: Mapping[str, Formula] = {
    f.name: f
    for f in (
        # t0 + max(FLOP / (peak compute), bytes / (bandwidth share))
        Formula("roofline", {"t0": _T0, "compute": _share(0.7), "bandwidth": _share(0.8)}),
        # cost/memory.py: elementwise streams
        Formula("stream", {"t0": _T0, "em": _EM, "rl2": _ratio(2.0), "c": Parameter(0, 0.1, 1e-4)}, ("l2_bytes",)),
        # cost/gemm.py: tiles in waves
        Formula(
            "tiles",
            {
                "t0": _T0,
                "ec": _EC,
                "em": _EM,
                "kap": _seconds(5e-8, 1.4e-9),
                "ts": _seconds(3e-5, 2.3e-6),
                "bsm": Parameter(1e9, 5e12, 3e11, clock=1),
                "ep": _seconds(1e-9, 2e-11),
                "al": Parameter(0.01, 1.0, 0.3),
                "rl2": _ratio(1.2),
                "ew": Parameter(0.02, 4.0, 0.7, default=1.0),
                "droop": Parameter(1e-4, 0.1, 0.02, default=1e-4),
                "ev": Parameter(0.0, 2.0, 0.05, default=0.0),
                "tv": _seconds(1e-5, 1e-7, low=0.0, default=0.0),
                "few": _seconds(3e-5, 1e-6, low=0.0, default=0.0),
                "large": Parameter(0, 1024, 0, choices=(0, 128, 256), default=0),
                "pair": Parameter(0, 1024, 0, choices=(0, 256), default=0),
                "whole": Parameter(0, 64, 0, choices=(0, 16), default=0),
            },
            ("cores", "l2_bytes"),
        ),
        # cost/attention.py: many queries against keys
        Formula(
            "flash",
            {
                "t0": _seconds(5e-4, 1e-5, low=0.0),
                "ec": _share(0.7, high=2.5),
                "em": _EM,
                "x": Parameter(0.1, 500.0, 40.0),
                "ov": Parameter(1.0, 6.0, 1.5),
                "tf": _seconds(1e-4, 2.5e-6),
                "fill": Parameter(0.001, 1.0, 0.5),
                "lat": _seconds(1e-4, 5e-7),
                "al": Parameter(1e-4, 2.0, 0.3),
                "ts": _seconds(1e-2, 8e-6),
                "t1": _seconds(1e-4, 1e-6),
                "rl2": _ratio(1.2),
                "ew": Parameter(0.02, 4.0, 0.5, default=0.5),
                "wt": _seconds(1e-6, 3e-9, default=3e-9),
                "wh": _seconds(1e-7, 1e-10, default=1e-10),
                "eq": Parameter(0.05, 100.0, 0.8, default=0.8),
                "tx": _seconds(1e-4, 5e-6, default=5e-6),
                "th": _seconds(1e-2, 2e-4, default=2e-4),
                "odd": Parameter(1, 20, 1, choices=(1, 2, 4), default=1),
                "packed": Parameter(0, 2, 0, choices=(0, 1, 2)),
                "tq": Parameter(16, 512, 128, choices=(64, 128, 192, 256)),
                "tk": Parameter(16, 512, 128, choices=(64, 128, 192)),
                "pad": Parameter(8, 128, 64, choices=(16, 32, 64), default=16),
            },
            ("cores", "l2_bytes"),
        ),
        # cost/decode.py: one or few queries against a long cache, split over the cores
        Formula(
            "splitkv",
            {
                "t0": _T0,
                "em": _share(0.85),
                "rl2": Parameter(0.3, 20.0, 1.5),
                "fill": Parameter(1e-3, 500.0, 2.0),
                "fd": Parameter(0.05, 2.0, 0.3),
                "wd": Parameter(0.01, 2.0, 0.1),
                "ec": _share(0.6, high=1.5),
                "al": Parameter(0.01, 1.0, 0.3),
                "eo": Parameter(0.02, 2.0, 0.5),
                "ts": _seconds(1e-4, 1.5e-6, low=1e-9),
                "tsp": _seconds(2e-6, 5e-8),
                "plan": _seconds(1e-6, 1e-8),
                "wt": _seconds(1e-6, 5e-9, default=1e-12),
                "tx": _seconds(5e-5, 1e-7, low=0.0, default=0.0),
                "th": _seconds(1e-2, 1e-4, low=0.0, default=0.0),
                "tf1": _seconds(1e-4, 3e-6, low=0.0, default=0.0),
                "lat1": _seconds(1e-6, 2e-8, low=0.0, default=0.0),
                "ld1": Parameter(0.05, 3.0, 1.0, default=1.0),
                "occ": Parameter(0.2, 64.0, 2.0, default=2.0),
                "dirty": Parameter(0.0, 2.0, 0.5, default=0.0),
                "tq": Parameter(8, 512, 64, choices=(16, 32, 64, 128)),
                "tk": Parameter(16, 512, 128, choices=(64, 128, 256)),
                "most": Parameter(1, 256, 32, choices=(1, 32, 128)),
                "blind": Parameter(0, 1, 0, choices=(0, 1), default=0),
                "narrow": Parameter(0, 1, 0, choices=(0, 1), default=0),
                "solo": Parameter(0, 256, 0, choices=(0, 48), default=0),
            },
            ("cores", "l2_bytes"),
            {"solo": ("tf1", "lat1", "ld1", "occ")},
        ),
        # cost/scan.py: a state passed along chains of tokens
        Formula(
            "scan",
            {
                "t0": _seconds(5e-3, 4e-6, low=0.0),
                "ec": _share(1.0, 1e-3, 50.0),
                "em": _share(0.5),
                "es": _share(0.7),
                "lat": _seconds(1e-4, 5e-7),
                "al": Parameter(0.01, 1.0, 0.3),
                "row": _seconds(5e-6, 1e-8, default=1e-12),
                "rl2": _ratio(2.0),
                "held": Parameter(0.1, 64, 1, choices=(1, 2, 4), default=1),
                "fused": Parameter(0, 1, 0, choices=(0, 1), default=0),
            },
            ("cores",),
        ),
        # cost/all_to_all.py: dispatch and combine of experts
        Formula(
            "exchange",
            {
                "t0": _T0,
                "te": _seconds(1e-6, 1e-8),
                "e": _share(0.6),
                "bs": Parameter(1e8, 5e12, 1e10, clock=1),
                "bl": Parameter(1e8, 5e12, 3e10, clock=1),
                "tt": _seconds(1e-4, 5e-7),
                "tb": _seconds(1e-8, 1e-10),
            },
        ),
        # cost/moe.py: a layer of routed experts
        Formula(
            "experts",
            {
                "t0": _T0,
                "ec": _EC,
                "em": _EM,
                "kap": _seconds(5e-8, 1e-10),
                "bsm": Parameter(1e9, 5e12, 1e11, clock=1),
                "ep": _seconds(1e-9, 1e-11),
                "al": Parameter(0.01, 1.0, 0.3),
                "ew": Parameter(0.02, 4.0, 0.6),
                "rl2": _ratio(1.3),
                "te": _seconds(1e-5, 5e-8, default=1e-12),
                "tl": _seconds(1e-5, 5e-8, default=1e-12),
                "tr": _seconds(1e-6, 1e-9, default=1e-12),
                "rule": Parameter(0, 8, 0, choices=(0, 0.5, 1), default=0),
                "low": Parameter(0, 256, 8, choices=(8, 16), default=8),
                "high": Parameter(0, 256, 256, choices=(64, 256), default=256),
                "listed": Parameter(0, 1, 0, choices=(0, 1), default=0),
            },
            ("cores", "l2_bytes"),
        ),
    )
}
