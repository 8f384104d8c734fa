"""What was simulated and what the answer is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tensorcast.report.tables.columns import shown
from tensorcast.search.evaluation.figures import FIGURES
from tensorcast.units import count, seconds


def facts_of(estimate: Mapping[str, Any]) -> dict[str, list[str]]:
    """Label → parts: model, components (of a pipeline), plan, precision, work, serving; what there is none of is left
    out.
    """
    model = estimate["model"]
    parameters = f"{count(model['parameters'])} parameters"
    if model.get("active_parameters") not in (None, model["parameters"]):
        parameters += f", {count(model['active_parameters'])} active per token"
    told = {
        "model": [model["architecture"] or model["model_type"], parameters, f"from {model['origin']}"],
        "components": [_component(part) for part in model.get("components", ())],
        "plan": pairs(estimate["plan"]),
        "precision": precision(estimate["quant"]),
        "work": pairs({name: value for name, value in estimate["workload"].items() if not _unused(value)}),
        "serving": _serving(estimate.get("serving", {})),
    }
    return {label: parts for label, parts in told.items() if parts}


def precision(quant: Mapping[str, Any]) -> list[str]:
    """Formats and how many modules have them, where that comes from, and the formats of KV cache and attention."""
    schemes = [f"{scheme} ×{count(modules)}" for scheme, modules in (quant.get("modules") or {}).items()]
    others = {name: value for name, value in quant.items() if name not in ("source", "modules")}
    if not schemes:
        return ["weights not quantised", *pairs(others)]
    return [*schemes, str(quant.get("source", "")), *pairs(others)]


def _component(part: Mapping[str, Any]) -> str:
    """One component of a pipeline: `vae AutoencoderKL 83.8 M fp32`."""
    return f"{part['name']} {part['architecture']} {count(part['parameters'])} {part['dtype']}"


def _serving(asked: Mapping[str, Any]) -> list[str]:
    """What was asked of the runtime, the engine with the time that it takes, and the rest."""
    adds = {"engine_prompt_s": "before the first token", "engine_step_s": "in every decode step"}
    told = pairs({name: value for name, value in asked.items() if name not in adds})
    return told + [f"the engine's own {seconds(asked[name])} {when}" for name, when in adds.items() if asked.get(name)]


def _unused(value: Any) -> bool:
    """Whether a workload field is a count of 0, that is, a feature nobody asked for (no chunk, no prefix)."""
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def pairs(mapping: Mapping[str, Any]) -> list[str]:
    """Each plain value of a mapping as "name value", and lists of plain values; None, empty and nested say nothing."""
    told = []
    for name, value in mapping.items():
        if isinstance(value, (list, tuple)) and not any(isinstance(item, (Mapping, list, tuple)) for item in value):
            value = shortened(value)
        if value is None or value == "" or isinstance(value, (Mapping, list, tuple)):
            continue
        if isinstance(value, bool):
            told.append(f"{name.replace('_', ' ')} {'yes' if value else 'no'}")
        elif isinstance(value, int):
            told.append(f"{name.replace('_', ' ')} {value:,}")
        else:
            told.append(f"{name.replace('_', ' ')} {value}")
    return told


def shortened(values: Sequence[Any], most: int = 8) -> str:
    """A list with commas; of a long one the first entries and the number of all.

    >>> shortened([128, 4096, 77]), shortened(range(100), most=3)
    ('128, 4096, 77', '0, 1, 2, … (100 in all)')
    """
    first = ", ".join(str(value) for value in values[:most])
    return first if len(values) <= most else f"{first}, … ({len(values)} in all)"


ACRONYMS = {"ttft": "TTFT", "tpot": "TPOT", "vae": "VAE", "flops": "FLOP", "mfu": "MFU", "mbu": "MBU", "kv": "KV"}
NAMES = {"total_bytes": "memory", "capacity_bytes": "memory there is"}
ENDINGS = {"s": "_s", "bytes": "_bytes"}
"""Unit → what a name in the JSON ends in that the figure's unit says again."""


def label(name: str, unit: str = "") -> str:
    """A figure's name in the JSON, without the unit that is written with it, in words.

    >>> label("ttft_s", "s"), label("tokens_per_s_per_user", "1/s"), label("kv_cache_bytes", "bytes")
    ('TTFT', 'tokens/s per user', 'KV cache')
    """
    if name in NAMES:
        return NAMES[name]
    words = name.removesuffix(ENDINGS.get(unit, "")).replace("_per_s", "/s").split("_")
    return " ".join(ACRONYMS.get(word, word) for word in words)


class Answer(NamedTuple):
    """A figure of the answer as people read it, and what it is."""

    name: str
    label: str
    text: str
    meaning: str


def answers(estimate: Mapping[str, Any]) -> list[Answer]:
    """Every metric that the estimate has, in its order."""
    told = []
    for name, value in estimate["metrics"].items():
        if value is not None:
            figure = FIGURES[name]
            told.append(Answer(name, label(name, figure.unit), shown(value, figure.unit), figure.meaning))
    return told
