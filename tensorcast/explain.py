"""Why a name means what it means: the entry that it resolves to, by which rule, and what it passes over.

`explain(what, name)` gives the facts that `tensorcast list WHAT --explain NAME` prints. No torch.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tensorcast.catalog import Catalog, is_pattern, normalize_model_type, specificity
from tensorcast.errors import InputError, UnknownNameError


def explain(what: str, name: str, hw: Any = None) -> dict[str, Any]:
    """The facts about `name` among the entries of one kind; UnknownNameError when it means nothing there.

    `hw` (a HardwareProfile) is the machine that a kernel is chosen for.
    """
    if not name.strip():
        raise InputError(f"--explain needs a name; list them with `tensorcast list {what}`")
    return _kernel(name, hw) if what == "kernels" else _EXPLAINERS[what](name)


def _entry(catalog: Catalog, key: str) -> dict[str, Any]:
    """Where an entry comes from, and what it replaced."""
    entry = next(entry for entry in catalog.entries() if entry.key == key)
    return {"origin": entry.origin, "replaces": entry.replaces or "nothing"}


# -- profiles and pipelines --------------------------------------------------------------------------------------------


def _by_model_type(catalog: Catalog, name: str, nothing: str) -> dict[str, Any]:
    """The facts in a catalog of model types and patterns; `nothing` says what happens when no entry fits."""
    model_type, whose = _model_type(name)
    key = catalog.match(model_type)
    if key is None and not whose:
        known = [entry.key for entry in catalog.entries()]
        how = f"no model type is called so either; list them with `tensorcast list {catalog.noun.split()[-1]}s`"
        raise UnknownNameError(catalog.noun, name, known, how)
    facts = {"asked": name, "model_type": f"{model_type} ({whose})" if whose else model_type}
    if key is None:
        return {**facts, "resolves_to": "no entry", "why": f"none fits: {nothing}"}
    patterns = [entry.key for entry in catalog.entries() if is_pattern(entry.key) and entry.key != key]
    passed = sorted((other for other in patterns if fnmatchcase(model_type, other)), key=specificity)
    facts |= {"resolves_to": key, "why": _pattern(key) if is_pattern(key) else "the exact model type"}
    return {**facts, "rather_than": passed or "nothing else fits", **_entry(catalog, key)}


def _model_type(name: str) -> tuple[str, str]:
    """(model type, whose it is): of a model known by name, one of transformers, or registered; else the name itself."""
    from tensorcast.models.entries import find_entry
    from tensorcast.models.native import config_class_names
    from tensorcast.pipelines import PIPELINES, PROFILES

    kind = normalize_model_type(name)
    if kind in {normalize_model_type(known) for known in config_class_names()}:
        return kind, "a model type of transformers"
    entry = find_entry(name)
    if entry is not None:
        return normalize_model_type(entry.config["model_type"]), f"of the model {entry.name}"
    registered = {entry.key for catalog in (PROFILES, PIPELINES) for entry in catalog.entries()}
    return kind, "a registered model type" if kind in registered else ""


def _pattern(key: str) -> str:
    literal, stars, marks, brackets = specificity(key)
    wild = [f"{n} {what}" for n, what in ((stars, "*"), (marks, "?"), (brackets, "[…]")) if n]
    return f"the most specific pattern that fits: {-literal} literal characters, {', '.join(wild)}"


def _profile(name: str) -> dict[str, Any]:
    from tensorcast.pipelines import PROFILES, load_builtin

    load_builtin()
    return _by_model_type(PROFILES, name, "the structure of the modules says everything")


def _pipeline(name: str) -> dict[str, Any]:
    from tensorcast.pipelines import PIPELINES

    return _by_model_type(PIPELINES, name, "the nine standard steps run")


# -- models ------------------------------------------------------------------------------------------------------------


def _model(name: str) -> dict[str, Any]:
    """The places looked at in order, the one that had it, and what its type and architecture lead to."""
    from tensorcast.models.reference import resolve_model

    source = resolve_model(name)
    facts = {"asked": name, "resolves_to": source.name, "why": _place(name, source), "origin": source.origin}
    kind, names = source.config.get("model_type", ""), source.config.get("architectures") or ()
    return {
        **facts,
        "looked_in": "--custom with __model__, known models, folder or file, hub id; first hit counts",
        "architecture": ", ".join(names) or "not stated",
        "model_type": kind or "not stated",
        "built_by": _builder(names),
        "profile": _matched("profiles", kind),
        "pipeline": _matched("pipelines", kind),
        "notes": list(source.notes),
    }


def _place(name: str, source: Any) -> str:
    from tensorcast.models.entries import find_entry, normalise

    if source.origin != "catalogue":
        return "a hub id" if source.hub_id else "a folder or file"
    entry, wanted = find_entry(name), normalise(name)
    if normalise(entry.name) == wanted:
        return "the name of a known model"
    return f"{'the hub id' if normalise(entry.hub_id) == wanted else 'an alias'} of the known model {entry.name}"


def _builder(architectures: Any) -> str:
    """A class that somebody registered for the architecture, else transformers'."""
    from tensorcast.models.builders import BUILDERS

    for entry in BUILDERS.entries():
        if entry.key in architectures[:1]:
            replaces = f", replaces {entry.replaces}" if entry.replaces else ""
            return f"{entry.value.model_class.__name__} registered at {entry.origin}{replaces}"
    return "transformers, or the library of the class: nobody registered the architecture"


def _matched(what: str, model_type: str) -> str:
    found = _EXPLAINERS[what](model_type) if model_type else {"resolves_to": "no entry"}
    if "origin" not in found:
        return found.get("why", "no entry")
    return f"{found['resolves_to']} ({found['origin']})"


# -- kernels, operators, machines --------------------------------------------------------------------------------------


def _kernel(text: str, hw: Any) -> dict[str, Any]:
    """The kernel that fills the slots of an op: the one named, else what speaks for the op where no model is known."""
    from tensorcast.kernels import load_kernels
    from tensorcast.kernels.choice import KernelRequest
    from tensorcast.kernels.registry import EAGER, KERNELS

    load_kernels()
    named = "=" in text
    asked = KernelRequest.parse(text) if named else KernelRequest.of(text, EAGER, "asked", text)
    name, why = (asked.name, "named") if named else _speaks_for(asked, hw)
    spec = KERNELS.find(asked.op, asked.variant, name, origin=text if named else "")
    row = next(row for row in KERNELS.list(hw, spec.op_name, spec.variant) if row["name"] == name)
    facts = {"asked": text, "op": spec.op_name, "variant": spec.variant, "resolves_to": name, "why": why}
    facts["looked_in"] = "--kernel, tensorcast.toml, the model's profile, the machine's table, the op's default"
    if hw is not None:
        facts["available"] = f"yes, on {hw.name}" if row["available"] else f"no: {row['reason']}"
    others = [other for other in KERNELS.named(spec.op_name, spec.variant) if other != name]
    facts |= {"needs": row["needs"], "description": row["description"], "rather_than": others}
    return {**facts, "origin": row["origin"], "replaces": row["replaces"] or "nothing"}


def _speaks_for(op: Any, hw: Any) -> tuple[str, str]:
    """(kernel, why) of the slots of an op that no request names, whatever the model's profile says."""
    from tensorcast.config_file import NAME, kernels_of
    from tensorcast.kernels.registry import EAGER, KERNELS

    KERNELS.find(op.op, op.variant, EAGER)
    variant = op.variant or "standard"
    written = [r for r in kernels_of(None) if r.op == op.op and r.variant in (None, variant) and r.glob == "*"]
    if written:
        return written[0].name, f"./{NAME} asks for it"
    if hw is not None and op.op in hw.kernels:
        return hw.kernels[op.op], f"the table of {hw.name}"
    return KERNELS.default(op.op, variant), "the op's own default"


def _operator(name: str) -> dict[str, Any]:
    from tensorcast.ops import OPERATORS, list_ops

    known = {row["name"] for row in list_ops()}
    if name not in known and "::" in name:
        why = "nobody registered a cost: priced by its bytes alone, and listed under uncosted operators"
        return {"asked": name, "resolves_to": "no entry", "why": why}
    op = OPERATORS.get(name)
    facts = {"asked": name, "resolves_to": op.name, "why": "the exact name", "family": op.family, "schema": op.schema}
    return {**facts, "description": op.summary, **_entry(OPERATORS, name)}


def _machine(name: str) -> dict[str, Any]:
    from tensorcast.hardware.describe import origin
    from tensorcast.hardware.load import aliases, load_file, names, normalize, resolve

    path = resolve(name)
    hw, wanted = load_file(path), normalize(name)
    if names().get(path.stem) != path:
        why = "the path of a file"
    elif wanted in (normalize(path.stem), normalize(hw.name)):
        why = "the name of a known machine"
    else:
        why = f"an alias of {aliases()[wanted]}"
    hidden = [str(other) for other in _others(path)]
    facts = {"asked": name, "resolves_to": hw.name, "why": why, "file": str(path), "origin": origin(path)}
    return {**facts, "looked_in": "./hardware_profiles, then those that ship", "hides": hidden or "nothing"}


def _others(path: Path) -> list[Path]:
    """Files of the same name in folders that are looked in later."""
    from tensorcast.content import folder

    files = [place / path.name for place in folder("hardware_profiles")]
    return [file for file in files if file.is_file() and not file.samefile(path)]


_EXPLAINERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "models": _model,
    "profiles": _profile,
    "pipelines": _pipeline,
    "ops": _operator,
    "hardware": _machine,
}
