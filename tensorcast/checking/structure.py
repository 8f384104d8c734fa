"""Checks of what a model is: its configuration, its module on meta, its forwards, and that steps keep all of it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tensorcast.checking.result import Failed, Skipped
from tensorcast.checking.subject import Subject, totals
from tensorcast.pipelines import PIPELINES
from tensorcast.trace.tracer import Tracer
from tensorcast.units import bytes_


def resolves(subject: Subject) -> str:
    """The reference means a model, and the user's files load."""
    source = subject.plain.source
    origin = source.custom.origin if source.custom is not None else source.origin
    return f"{source.name} from {origin}"


def config_round_trip(subject: Subject) -> str:
    """A configuration that is written to a file and read again says the same."""
    blueprint = subject.blueprint()
    config, module_class = blueprint.config, type(blueprint.module)
    if hasattr(config, "to_json_file"):
        written, again = _through_a_file(config)
    elif isinstance(config, Mapping) and hasattr(module_class, "from_config"):
        with torch.device("meta"):
            written, again = _as_json(config), _as_json(module_class.from_config(_as_json(config)).config)
    elif config is None:
        raise Skipped("the model has no configuration")
    else:
        raise Skipped(f"{type(config).__name__} is no configuration class: nothing writes or reads it")
    lost = sorted(key for key in {*written, *again} if written.get(key) != again.get(key))
    if lost:
        key, more = lost[0], f"; so do {', '.join(lost[1:4])}" if lost[1:] else ""
        what = f"{key} is {written.get(key)!r} and comes back as {again.get(key)!r}"
        raise Failed(f"{type(config).__name__}: {what}{more}")
    return f"{len(written)} fields of {type(config).__name__}"


def _through_a_file(config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the configuration's file says, and what the file of the configuration read from it says."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            file = Path(folder) / "config.json"
            config.to_json_file(file, use_diff=False)
            said.append(json.loads(file.read_text("utf-8")))
            config = type(config).from_pretrained(folder)
    return said[0], said[1]


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as its file says it; private entries are notes of the library."""
    return {key: value for key, value in json.loads(json.dumps(dict(config))).items() if not key.startswith("_")}


class _RealBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made outside of the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor) and x.device.type != "meta"]
        self.nbytes += sum(x.numel() * x.element_size() for x in made)
        return result


def build_on_meta(subject: Subject) -> str:
    """The module is made of meta tensors, and making it allocates no tensor of another device."""
    with _RealBytes() as real:
        blueprint = subject.blueprint()
    if real.nbytes:
        raise Failed(f"{blueprint.architecture} allocates {bytes_(real.nbytes)} outside of the meta device")
    count = sum(p.numel() for p in blueprint.module.parameters())
    return f"{count:,} parameters, 0 bytes allocated"


def forward(subject: Subject) -> str:
    """One pass of each phase runs and does something."""
    told = []
    for name, tracer in subject.traces().items():
        if not tracer.calls:
            raise Failed(f"{name}: no operator ran")
        told.append(f"{name} {sum(totals(tracer).values())} operators")
    return ", ".join(told)


def parameters_unchanged(subject: Subject) -> str:
    """The steps, on one device and not quantised, keep every parameter with its name, shape and dtype."""
    before, after = _parameters(subject.blueprint().module), _parameters(subject.deployed().module)
    if before == after:
        return f"{len(before)} tensors keep name, shape and dtype"
    gone, new = sorted(before.items() - after.items()), sorted(after.items() - before.items())
    text = f"{len(gone)} tensors are gone or changed, {len(new)} are new; first: {(gone or new)[0][0]}"
    key = PIPELINES.match(subject.deployed().blueprint.model_type)
    if _elements(before) == _elements(after):  # a list of experts became one stack, say
        return f"{text}; {_elements(after):,} elements as before"
    if key is not None:
        raise Skipped(f"the pipeline {key!r} replaces modules: {text}")
    raise Failed(text)


def _parameters(module: torch.nn.Module) -> dict[str, tuple]:
    return {name: (tuple(p.shape), str(p.dtype)) for name, p in module.named_parameters()}


def _elements(parameters: Mapping[str, tuple]) -> int:
    return sum(torch.Size(shape).numel() for shape, _ in parameters.values())


def reuse_changes_nothing(subject: Subject) -> str:
    """Tracing one of equal layers gives the operators that tracing all of them does."""
    with_reuse, without = subject.traces(), subject.traces(reuse=False)
    for name in with_reuse:
        _require_equal(name, with_reuse[name], without[name], "reuse")
    ran = sum(len(tracer.calls) for tracer in with_reuse.values())
    return f"{ran} calls traced stand for {sum(sum(totals(t).values()) for t in without.values())}"


def one_rank_is_no_plan(subject: Subject) -> str:
    """--tp 1 is the model without a plan: the same parameters and operators, and nothing is communicated."""
    plain, alone = subject.deployed(), subject.deployed(tp=1)
    if _parameters(plain.module) != _parameters(alone.module):
        raise Failed("--tp 1 changes parameters")
    for name, tracer in subject.traces(tp=1).items():
        _require_equal(name, subject.traces()[name], tracer, "--tp 1")
        sent = sorted({call.op for call in tracer.calls if "collective" in call.attrs})
        if sent:
            raise Failed(f"{name}: one device communicates: {', '.join(sent)}")
    return "same parameters and operators, no communication"


def _require_equal(name: str, first: Tracer, second: Tracer, what: str) -> None:
    """Equal operators, sizes and counts, or what differs first."""
    one, two = totals(first), totals(second)
    if one == two:
        return
    op, dims, _ = min(one.keys() ^ two.keys() or (key for key in one if one[key] != two[key]), key=str)
    sizes = ", ".join(f"{size} {value}" for size, value in dims)
    counts = [sum(n for key, n in found.items() if key[:2] == (op, dims)) for found in (one, two)]
    raise Failed(f"{name}: {what} changes {op} ({sizes}): {counts[0]} calls and {counts[1]}")


def nothing_uncosted(subject: Subject) -> str:
    """Every operator that runs has a cost."""
    found: Counter = Counter()
    for tracer in subject.traces().values():
        found.update(tracer.uncosted)
    if found:
        listed = ", ".join(f"{op} x{count}" for op, count in sorted(found.items()))
        raise Failed(f"{listed}; describe them with @tensorcast.register_op_cost")
    return "every operator has a cost"


def gradients(subject: Subject) -> str:
    raise Skipped("not applicable: inference only")
