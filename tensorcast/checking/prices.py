"""Checks of figures: bytes of quantised weights, and step times on every machine."""

from __future__ import annotations

from typing import Any

from tensorcast.checking.physics import check_phases
from tensorcast.checking.result import Failed, Skipped
from tensorcast.checking.subject import Subject
from tensorcast.cost.passes import Pipeline
from tensorcast.cost.phase import Phase, evaluate
from tensorcast.deployed import DeployedModel
from tensorcast.errors import DeploymentError, HardwareError
from tensorcast.formats import bytes_of, format_named
from tensorcast.layers.experts import ExpertSizes, experts_weights
from tensorcast.request import Request
from tensorcast.steps import steps_of
from tensorcast.trace.facts import facts_of
from tensorcast.transformer_model import TransformerModel
from tensorcast.units import bytes_, seconds

SCHEMES = ("auto", "w8a8", "fp8", "w8a16")
"""Asked in this order: what the checkpoint says, then the first that the machine computes."""


def quantised_bytes(subject: Subject) -> str:
    """Stored bytes are, parameter by parameter, the format's bits and its scales, or the dtype's."""
    scheme, model = _quantised(subject)
    first = next(iter(subject.traces(quant=scheme).values()))
    counted = sum(group.nbytes * max(len(group.layers), 1) for group in facts_of(model, first).weights)
    bits, scales, plain = _expected(model)
    if counted != bits + scales + plain:
        expected = f"{bits:,} of quantised weights + {scales:,} of scales + {plain:,} of all else"
        raise Failed(f"{scheme}: {counted:,} bytes stored, not {expected}")
    whole = sum(p.numel() * p.element_size() for p in model.module.parameters())
    return f"{scheme}: {len(model.quantised)} modules, {bytes_(whole)} become {bytes_(counted)}"


def _quantised(subject: Subject) -> tuple[str, TransformerModel]:
    reasons = []
    for scheme in SCHEMES:
        try:
            model = subject.deployed(quant=scheme)
        except DeploymentError as refused:
            reasons.append(str(refused))
            continue
        if model.quantised:
            return scheme, model
    raise Skipped(reasons[0] if reasons else "nothing to quantise: no product with weights")


def _expected(model: TransformerModel) -> tuple[int, int, int]:
    """(bytes of quantised weights, of their scales, of everything else), every distinct parameter once."""
    bits = scales = plain = 0
    seen: set[int] = set()
    for path, module in model.module.named_modules():
        spec = model.quantised.get(path)
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if spec is None or parameter.dim() < 2 or "bias" in name:
                plain += parameter.numel() * parameter.element_size()
                continue
            payload = bytes_of(parameter.numel(), format_named(spec.weight))
            bits += payload
            scales += _stored(spec, module, parameter) - payload
    return bits, scales, plain


def _stored(spec: Any, module: Any, parameter: Any) -> int:
    if parameter.dim() == 2:
        return spec.weight_bytes(*parameter.shape)
    count, rows, columns = parameter.shape
    if experts_weights(module) is not None and ExpertSizes.of(module).transposed:
        rows, columns = columns, rows
    return spec.weight_bytes(rows, columns, count)


def machines_agree(subject: Subject) -> str:
    """Every machine gives finite, positive times that keep within what the machine can do, or says why it cannot."""
    found: dict[str, float] = {}
    refused: dict[str, str] = {}
    for machine in subject.machines():
        try:
            request = subject.request(machine)
            found[machine.name] = check_phases(phases_of(request, subject.tables(request)), machine)
        except (DeploymentError, HardwareError) as reason:
            refused[machine.name] = str(reason)
    if not found:
        raise Failed(next(iter(refused.values())))
    fast, slow = min(found, key=found.get), max(found, key=found.get)
    span = f"{seconds(found[fast])} ({fast}) to {seconds(found[slow])} ({slow})"
    return "; ".join([f"{len(found)} machines, {span} in all phases", *refused.values()])


def phases_of(request: Request, deployed: DeployedModel) -> dict[str, Phase]:
    """The priced phases of a request on one device."""
    facts, tables = deployed.facts, deployed.tables
    return {
        name: evaluate(
            [(tables[table], steps) for table, steps in parts], request.hw, pipeline=Pipeline(layers=facts.layers),
            eager=request.eager, hidden=facts.hidden, item=facts.dtype,
        )
        for name, parts in steps_of(request.work, request.plan).items()
    }  # fmt: skip
