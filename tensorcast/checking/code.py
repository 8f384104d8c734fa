"""The checks of a file of user code: that it loads, what it adds, and the model that shows it at work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tensorcast.catalog import Entry, snapshot
from tensorcast.checking.result import Check, Failed, Report, Result, Skipped, run_check
from tensorcast.custom.sources import Sources
from tensorcast.errors import InputError
from tensorcast.kernels.registry import KernelSpec


@dataclass
class Code:
    """A file or package, loaded with the other sources of the request."""

    path: Path
    sources: Sources
    model: Any = None  # what `__model__` names, once loaded
    found: list[tuple[str, Entry]] = field(default_factory=list)

    def load(self) -> str:
        """Load the sources and see what this one added."""
        self.model = self.sources.load()
        entries = [(catalog.noun, entry) for catalog, own in snapshot().items() for entry in own.values()]
        self.found = [(noun, entry) for noun, entry in entries if self._is_here(entry)]
        return f"adds {', '.join(self.adds())}"

    @cached_property
    def root(self) -> str:
        return str(self.path.expanduser().absolute())

    def _is_here(self, entry: Entry) -> bool:
        file = entry.location.rpartition(":")[0]
        return file == self.root or Path(self.root) in Path(file).parents

    def configurations(self) -> list[type]:
        """Configuration classes that the code registered with transformers, or for an architecture."""
        auto = sys.modules.get("transformers.models.auto.configuration_auto")
        types = list(auto.CONFIG_MAPPING._extra_content.values()) if auto is not None else []
        named = [getattr(entry.value, "config_class", None) for noun, entry in self.found if noun == "architecture"]
        return list(dict.fromkeys(kind for kind in (*filter(self._defines, types), *named) if kind is not None))

    def _defines(self, kind: type) -> bool:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
        return file == self.root or Path(self.root) in Path(file).parents

    def adds(self) -> list[str]:
        """`pipeline qwen3`, `kernel rms_norm/standard=mine` …, and model types registered with transformers."""
        entries = [f"{noun} {entry.key}" for noun, entry in self.found]
        own = ["__model__"] if self.model is not None else []
        types = [f"model type {kind.model_type}" for kind in self.configurations() if self._defines(kind)]
        return entries + types + own


def kernels_load(code: Code) -> str:
    """The factory of every kernel that the code registers gives a function."""
    specs = [entry.value for noun, entry in code.found if isinstance(entry.value, KernelSpec)]
    if not specs:
        raise Skipped("the file registers no kernel")
    from tensorcast.trace.library import define_operators

    define_operators()  # a kernel may emit an operator that the file describes
    for spec in specs:
        try:
            made = spec.factory()
        except Exception as reason:
            raise Failed(f"kernel {spec.key}: {type(reason).__name__}: {' '.join(str(reason).split())}") from reason
        if not callable(made):
            raise Failed(f"kernel {spec.key}: its factory gives {type(made).__name__}, not a function")
    return f"{len(specs)} kernels"


def check_code(code: Code, model: Any, options: dict[str, Any], weights: Path | None = None) -> Report:
    """What the file adds, and the checks of a model with it: `model`, its own, or the smallest that it applies to."""
    loaded = run_check(Check("file loads", Code.load), code)
    if loaded.status == "fail":
        return Report("file", str(code.path), {}, (loaded,))
    own = (loaded, run_check(Check("kernels load", kernels_load), code))
    shown, why = (model, "as asked") if model is not None else _shown_with(code)
    if shown is None and why:
        missing = Result("model", "skip", f"{why}; give --model NAME to check one with it")
        return Report("file", str(code.path), {"adds": code.adds()}, (*own, missing))
    from tensorcast.checking.model import check_model
    from tensorcast.checking.subject import Subject

    report = check_model(Subject(shown, **options), weights)
    matched = {"adds": code.adds(), "checked with": why, **report.matched}
    return Report("model", report.name, matched, (*own, *report.results))


def subject_of(spec: Any, **options: Any) -> Any:
    """The subject that a model, a reference, or a file of user code means; InputError for code without a model."""
    from tensorcast.checking.subject import Subject
    from tensorcast.checking.target import target_of

    if not isinstance(spec, (str, Path)) or target_of(str(spec)).kind != "code":
        return Subject(spec, **options)
    custom = [str(spec)]
    code = Code(Path(spec), Sources.of(custom))
    code.load()
    shown, why = _shown_with(code)
    if shown is None and why:
        raise InputError(f"{spec}: {why}")
    return Subject(shown, custom=custom, **options)


def _shown_with(code: Code) -> tuple[Any, str]:
    """(model to check, why that one); (None, "") is the file's own `__model__`, (None, reason) that there is none."""
    if code.model is not None:
        return None, ""
    for kind in code.configurations():
        return kind(), f"the defaults of {kind.__name__}"
    for entry in _smallest_first():
        if key := _applies(code, entry.config["model_type"]):
            return entry.name, f"{entry.name}, the smallest known model of {key}"
    return None, "the file defines no model, and nothing it registers belongs to one"


def _smallest_first() -> Iterator[Any]:
    from tensorcast.models.entries import all_entries

    return iter(sorted(all_entries(), key=lambda entry: entry.parameters))


def _applies(code: Code, model_type: str) -> str:
    """The profile or pipeline of this code that a model type gets, or ""."""
    from tensorcast.pipelines import PIPELINES, PROFILES

    for catalog in (PROFILES, PIPELINES):
        keys = {entry.key for noun, entry in code.found if noun == catalog.noun}
        if (key := catalog.match(model_type)) in keys:
            return f"{catalog.noun} {key!r}"
    return ""
