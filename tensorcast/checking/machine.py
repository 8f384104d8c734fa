"""The checks of a hardware file: it loads, its figures have sources, and a model priced on it keeps within them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from tensorcast.answer import Answer
from tensorcast.checking.physics import check_phases
from tensorcast.checking.result import Check, Failed, Report, run_checks
from tensorcast.errors import TensorcastError
from tensorcast.hardware.coefficient import FAMILIES
from tensorcast.hardware.describe import figures, origin
from tensorcast.hardware.load import hardware, resolve
from tensorcast.hardware.profile import HardwareProfile
from tensorcast.request import Request
from tensorcast.units import bandwidth, bytes_, flops, seconds

REFERENCE = "qwen3-0.6b"
"""Model that is priced when none is named: small enough for every machine."""


@dataclass
class Machine:
    """A hardware file or name under check, and the model it is priced with."""

    reference: str
    model: str = REFERENCE

    @cached_property
    def profile(self) -> HardwareProfile:
        return hardware(self.reference)


def loads(machine: Machine) -> str:
    """The file is a valid profile."""
    hw = machine.profile
    return f"{hw.name} from {resolve(machine.reference)}"


def figures_told(machine: Machine) -> str:
    """Every figure has a source and a status."""
    statuses = Counter(figure["status"] for figure in figures(machine.profile).values())
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))


def every_family_priced(machine: Machine) -> str:
    """Every family of kernels has figures, the machine's own or others that stand in for them."""
    hw = machine.profile
    kinds: Counter = Counter()
    for family in FAMILIES:
        rows = [row for row in hw.coefficients.get(family, ()) if hw.can_use(row)]
        if not rows:
            raise Failed(f"no coefficients for {family}, nor has the universal set")
        kinds[rows[0].kind] += 1
    return f"{len(FAMILIES)} families: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def latency(machine: Machine) -> str:
    """A model has finite, positive step times that keep within the machine's own limits."""
    request = Request.of(model=machine.model, hw=machine.profile, quant="none", batch=2, input_len=512, output_len=8)
    answer = Answer(request)
    check_phases(answer.phases, machine.profile)
    told = ", ".join(f"{name} {seconds(phase.step_time_s)}" for name, phase in answer.phases.items())
    return f"{request.source.name}: {told}"


FIRST = Check("file loads", loads)
CHECKS = (
    Check("figures have sources", figures_told),
    Check("kernel families priced", every_family_priced),
    Check("latency", latency),
)


def check_machine(machine: Machine) -> Report:
    """Every check of a hardware file."""
    results = run_checks(CHECKS, machine, FIRST)
    return Report("hardware", machine.reference, _matched(machine), results)


def _matched(machine: Machine) -> dict:
    try:
        hw = machine.profile
    except TensorcastError:
        return {}
    return {
        "name": hw.name,
        "origin": origin(resolve(machine.reference)),
        "kind": f"{hw.kind}, {hw.vendor}",
        "peaks": [{"format": fmt, "rate": flops(rate)} for fmt, rate in hw.peaks.items()],
        "memory": f"{bytes_(hw.memory_bytes)} at {bandwidth(hw.memory_bw)}",
        "network": [
            {"tier": tier.name, "kind": tier.kind, "devices": tier.devices, "bandwidth": bandwidth(tier.bandwidth)}
            for tier in hw.topology.tiers
        ],
    }
