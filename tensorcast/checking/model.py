"""The checks of a model, in the order they are made, and what the model turned out to be made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tensorcast.checking import prices, ranks, structure
from tensorcast.checking.result import Check, Failed, Report, run_checks
from tensorcast.checking.subject import Subject
from tensorcast.errors import TensorcastError
from tensorcast.layers.state import has_state, state_of
from tensorcast.pipelines import PIPELINES, PROFILES
from tensorcast.transformer_model import TransformerModel

FIRST = Check("model found", structure.resolves)
CHECKS: tuple[Check, ...] = (
    Check("config round trip", structure.config_round_trip),
    Check("build on meta", structure.build_on_meta),
    Check("forward", structure.forward),
    Check("parameters unchanged", structure.parameters_unchanged),
    Check("reuse on = reuse off", structure.reuse_changes_nothing),
    Check("tp 1 = no tp", structure.one_rank_is_no_plan),
    Check("ranks add up", ranks.ranks_add_up),
    Check("expert ranks add up", ranks.expert_ranks_add_up),
    Check("quantised bytes", prices.quantised_bytes),
    Check("every machine's latency", prices.machines_agree),
    Check("no uncosted operators", structure.nothing_uncosted),
    Check("gradient checks", structure.gradients),
)


def check_model(subject: Subject, weights: Path | None = None) -> Report:
    """Every check of a model; with `weights` also whether the checkpoint in that folder fits it."""
    checks = CHECKS if weights is None else (*CHECKS, Check("weights", lambda s: checkpoint_fits(s, weights)))
    results = run_checks(checks, subject, FIRST)
    name = subject.name if results[0].status == "pass" else _asked(subject)
    return Report("model", name, matched(subject), results)


def checkpoint_fits(subject: Subject, folder: Path) -> str:
    """Every parameter has its tensor in the checkpoint's headers, with its shape, and no tensor is left over."""
    from tensorcast.models.weights import check_weights

    report = check_weights(subject.deployed(), folder)
    if not report.fits:
        absent, extra = (f"missing {n}" for n in report.missing), (f"unexpected {n}" for n in report.unexpected)
        raise Failed(f"{report}; first: {(*report.mismatched, *absent, *extra)[0]}")
    return str(report)


def matched(subject: Subject) -> dict[str, Any]:
    """What the request resolved to: class and origin, profile, pipeline, steps, kernels, reuse, rules, formats.

    What does not build says nothing here: its check says why.
    """
    try:
        model = subject.deployed()
        tracer = next(iter(subject.traces().values()))
    except Exception:
        return {}
    blueprint = model.blueprint
    return {
        "class": f"{blueprint.architecture} ({blueprint.source.origin}; {blueprint.origin})",
        "profile": _entry(PROFILES, blueprint.model_type, "none"),
        "pipeline": _entry(PIPELINES, blueprint.model_type, "the nine standard steps"),
        "steps": [step.to_dict() for step in model.steps],
        "kernels": [dict(row) for row in model.kernels.summary()],
        "reuse": _reuse(tracer),
        "sharding rules": _rules(subject, model),
        "quantised": _schemes(subject),
        "notes": [*blueprint.notes, *model.notes],
    }


def _asked(subject: Subject) -> str:
    named = subject.model or subject.options.get("custom")
    return ", ".join(map(str, named)) if isinstance(named, (list, tuple)) else str(named)


def _entry(catalog: Any, model_type: str, nothing: str) -> str:
    """`qwen3_* (custom_model/my.py:3)`, with what it replaced."""
    key = catalog.match(model_type)
    if key is None:
        return nothing
    entry = next(entry for entry in catalog.entries() if entry.key == key)
    return f"{key} ({entry.origin}{f', replaces {entry.replaces}' if entry.replaces else ''})"


def _reuse(tracer: Any) -> list[dict[str, Any]]:
    """Groups of equal layers: the stack, and the layers of each group."""
    groups: dict[str, list[int]] = {}
    for key, seen in tracer.blocks.items():
        groups.setdefault(key[0], []).append(len(seen.layers))
    return [{"stack": stack, "layers": sum(n), "groups": len(n), "sizes": n} for stack, n in groups.items()]


def _rules(subject: Subject, whole: TransformerModel) -> list[dict[str, Any]]:
    """Rule that cut modules, over the smallest number of ranks, the way it cut them, and how many."""
    degree = next((n for n in whole.tp_values if n > 1), None)
    try:
        model = subject.deployed(tp=degree) if degree else whole
    except TensorcastError:
        return []
    shards = [state_of(m).shard for m in model.module.modules() if has_state(m) and state_of(m).shard.rule]
    counts = Counter((shard.rule, shard.style) for shard in shards)
    return [{"rule": rule, "style": style, "modules": count} for (rule, style), count in counts.items()]


def _schemes(subject: Subject) -> list[dict[str, Any]]:
    """Scheme that the checkpoint's own configuration asks for, and how many modules it covers."""
    try:
        counts = Counter(spec.label for spec in subject.deployed(quant="auto").quantised.values())
    except TensorcastError:
        return []
    return [{"scheme": scheme, "modules": count} for scheme, count in counts.items()]
