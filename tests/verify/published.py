"""Published configurations: parameters beside the class's own count, and the share of them in every weight format.

`references` are the catalogue's models and pipelines, and the files of shared/model_configs where they are beside the
checkout. Of a pipeline each component is a row. The other count comes from the class alone: that of transformers or
diffusers, made from the same configuration without any of our steps.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tensorcast as tc
from tensorcast.layers.experts import experts_weights
from tensorcast.layers.state import has_state, state_of
from tensorcast.models import entries
from tensorcast.models.build import count_parameters
from tensorcast.models.parts import Part, parts_of_entry, parts_of_folder
from tensorcast.models.reference import DROPPED

CONFIGS = Path(__file__).resolve().parents[2].parent / "shared" / "model_configs"
MACHINE = "b200-sxm"
"""It computes every format that a checkpoint here is published in, so that none is widened."""
WIDE = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True)
class Published:
    """One configuration: what it is called, where it is from, what `tc.build_model` takes for it, and the parameters
    that the catalogue states (0: it states none)."""

    name: str
    group: str  # catalogue | pipeline | llm | llm_dirs | diffusers
    model: Any
    stated: int = 0


@dataclass
class Found:
    """What was found of one. `shares`: weight format → share of the parameters. `problem`: why it is wrong."""

    published: Published
    parameters: int = 0
    library: int | str = 0  # the class's own count, or why there is none
    method: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    problem: str = ""

    @property
    def quantised(self) -> float:
        """Share of the parameters that are stored in fewer than 16 bits."""
        return sum(share for label, share in self.shares.items() if label not in WIDE.values())


def references() -> Iterator[Published]:
    for entry in entries.all_entries():
        yield Published(entry.name, "catalogue", entry.name, entry.parameters)
    parts: dict[str, Part] = {}
    for entry in entries.all_pipelines():
        yield Published(entry.name, "pipeline", entry.config, entry.parameters)
        parts |= {part.where.partition(": ")[2]: part for part in parts_of_entry(entry)}
    for name, part in parts.items():
        if name:  # the others are denoisers once more
            yield Published(name, "pipeline", dict(part.config), part.parameters or 0)
    if CONFIGS.is_dir():
        yield from _files()


def _files() -> Iterator[Published]:
    for file in sorted((CONFIGS / "llm").glob("*_config.json")):
        if "hf_quant" not in file.name:
            yield Published(file.name.removesuffix("_config.json"), "llm", str(file))
    for folder in sorted((CONFIGS / "llm_dirs").iterdir()):
        yield Published(folder.name, "llm_dirs", str(folder))
    for folder in sorted((CONFIGS / "diffusers").iterdir()):
        denoiser = folder / "transformer"
        yield Published(f"{folder.name}/transformer", "diffusers", str(denoiser))
        config = json.loads((denoiser / "config.json").read_text("utf-8"))
        for part in parts_of_folder(folder, denoiser.name, _plain(config))[0]:
            yield Published(f"{folder.name}/{part.name}", "diffusers", dict(part.config), part.parameters or 0)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in DROPPED}


def look(published: Published) -> Found:
    """Build it as a user would, and count. Nothing is raised: what goes wrong is the `problem`."""
    found = Found(published)
    try:
        model = tc.build_model(published.model, hw=MACHINE)
        found.parameters = model.parameters
        found.shares = shares(model)
        found.method = model.quant.source if model.quant is not None else "none"
    except tc.TensorcastError as reason:
        found.problem = str(reason)
        return found
    found.library = library_count(model)
    found.problem = _problem(found, model)
    return found


def _problem(found: Found, model) -> str:
    if isinstance(found.library, int) and found.library != found.parameters:
        return f"{found.parameters - found.library:+,} parameters beside the class's own count"
    if found.published.stated not in (0, found.parameters):
        return f"the catalogue states {found.published.stated:,}"
    stated = "quantization_config" in json.dumps(model.blueprint.source.config) or model.blueprint.source.quant_side
    if stated and not found.quantised:
        return "the configuration states a quantisation, and no parameter is quantised"
    return ""


def shares(model) -> dict[str, float]:
    """Weight format → share of the parameters, tied ones once, most first."""
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    for module in model.module.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                counts[_format(module, name, parameter)] += parameter.numel()
    return {label: count / counts.total() for label, count in counts.most_common()}


def _format(module: nn.Module, name: str, parameter: torch.Tensor) -> str:
    spec = state_of(module).quant if has_state(module) else None
    experts = parameter.dim() == 3 and experts_weights(module) is not None
    if spec is not None and (experts or (parameter.dim() == 2 and name == "weight")):
        return spec.label
    return WIDE[parameter.dtype]


def library_count(model) -> int | str:
    """What the library's class counts for the published configuration; where none holds it, that it is ours."""
    source, code = model.blueprint.source, type(model.module)
    if code.__module__.startswith("diffusers."):
        with torch.device("meta"):
            return count_parameters(code.from_config(_taken(code, source.config)))
    if not code.__module__.startswith("transformers."):
        return f"{code.__name__} is ours"
    config = type(model.blueprint.config).from_dict(copy.deepcopy(dict(source.config)))
    own = getattr(code, "config_class", None)
    if own is not None and not isinstance(config, own):
        config = next(part for part in vars(config).values() if isinstance(part, own))
    with torch.device("meta"), torch.no_grad():
        module = code(config)
        module.tie_weights()
    return count_parameters(module)


def _taken(code: type, config: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(code.__init__).parameters
    return {name: value for name, value in config.items() if name in known}
