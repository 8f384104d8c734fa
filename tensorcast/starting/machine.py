"""A starting hardware file: another machine's figures, all of them marked as assumed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorcast.errors import InputError, UnknownNameError
from tensorcast.hardware.load import hardware, names, normalize, resolve
from tensorcast.starting import rendered

FOLDER = Path("hardware_profiles")
PLAIN = ("vendor", "kind", "compute_capability", "features", "kernels")
SECTIONS = ("peaks", "vector", "memory", "reserved", "chip", "host")
TIER_FIGURES = ("devices", "bandwidth", "latency_s", "efficiency")


def machine_files(asked: str, like: str) -> tuple[dict[Path, str], str]:
    """({file: text}, what is inherited) of the machine `asked`, made like `like`."""
    name = normalize(asked)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise InputError(f"{asked!r} is no name for a machine; use letters, digits and hyphens, such as my-chip")
    target, source = FOLDER / f"{name}.yaml", resolve(like)
    _require_new(name, target)
    if source not in names().values():
        raise InputError(f"--like {like}: give a name of `tensorcast list hardware`, not a file elsewhere")
    data, other = _content(source), hardware(source).name
    fields = {"name": name, "aliases": [], "description": f"{name}, made like {other}"}
    fields |= {key: data[key] for key in PLAIN if data.get(key) is not None}
    fields |= {key: {**data[key], "source": "like"} for key in SECTIONS if data.get(key)}
    tiers = [{**tier, "source": "like"} for tier in data["topology"]["tiers"]]
    figures = [f"{key}.{figure}" for key in SECTIONS for figure in data.get(key) or () if figure != "source"]
    figures += [f"topology.{tier['name']}.{key}" for tier in tiers for key in TIER_FIGURES if key in tier]
    text = rendered(
        "hardware.yaml",
        name=name,
        like=other,
        fields=[(key, _flow(value)) for key, value in fields.items()],
        tiers=[_flow(tier) for tier in tiers],
        assumed=figures,
    )
    inherited = f"{len(figures)} figures are {other}'s until you change them: {', '.join(figures)}"
    return {target: text}, f"{inherited}; kernels and collectives are as fast as its own"


def _require_new(name: str, target: Path) -> None:
    """A name that means another machine would hide it."""
    try:
        known = resolve(name)
    except UnknownNameError:
        return
    if known.resolve() != target.resolve():
        raise InputError(f"{name} is the known machine {known.stem} already; choose another name")


def _content(path: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(path.read_text("utf-8"))


def _flow(value: Any) -> str:
    """One line of YAML; floats keep a form that YAML reads as a number."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.15e}".partition("e")
        short = f"{mantissa.rstrip('0').rstrip('.')}"
        short = f"{short if '.' in short else short + '.0'}e{exponent}"
        return repr(value) if 1e-3 <= value < 1e6 else short
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w-]*", value) else json.dumps(value)
