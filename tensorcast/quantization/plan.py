"""QuantPlan: which module gets which quantisation, and the formats of KV cache and attention.

`plan_from_request` makes one from flags and a checkpoint's own configuration; `QuantPlan.resolve` applies it to the
module paths of a built model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from tensorcast.errors import DeploymentError, near_names
from tensorcast.formats import FORMATS, format_named, machine_computes
from tensorcast.models.headers import has_checkpoint, read_headers
from tensorcast.quantization.checkpoint import CheckpointQuant, read_checkpoint
from tensorcast.quantization.patterns import (
    FUSED,
    GLOB,
    Matcher,
    canonical,
    checkpoint_names,
    layer_count,
    refuse_partial_experts,
)
from tensorcast.quantization.schemes import SCHEMES, QuantSpec, nearest, scheme_named, with_dtype

KINDS = ("linear", "experts", "router", "lm_head", "embedding")
ALL = "*"
EXPERTS = "kind:experts"
KV_FORMATS = ("fp32", "bf16", "fp16", "fp8", "fp8_e5m2", "int8")

KEPT = ("shared_expert_gate", "eh_proj", "weights_proj", "compressor*.kv_proj", "compressor*.gate_proj")
"""Ends of paths that engines keep in 16 bit whatever the scheme, unless listed: a gate of one output, the MTP input
projection, the DeepSeek indexer's head weights, DeepSeek-V4's KV compressors (vLLM builds each without a quantisation
config; the V4 reference code stores compressors in bf16)."""


@dataclass(frozen=True)
class QuantPlan:
    """What is quantised and how.

    `rules`: (pattern, spec or None), the first that matches a module decides; `"*"` is every linear and expert stack,
    `"kind:experts"` every expert stack; None keeps 16 bit. `skip`: a checkpoint's list of modules left alone, entries
    may match nothing (norms, absent MTP layers). `exclude`: the user's, every entry must match. `language_only`:
    towers beside a `language_model` are left alone. `kv_cache`, `attention`: format names; `attention` None computes
    attention in the model's own type. `source`: where the plan came from. `notes`: for the user to see. `dtype`:
    format of whatever is not quantised.
    """

    rules: tuple[tuple[str, QuantSpec | None], ...] = ()
    exclude: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    kv_cache: str = "bf16"
    attention: str | None = None
    quant_lm_head: bool = False
    language_only: bool = False
    source: str = "none"
    notes: tuple[str, ...] = ()
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        for name in ("kv_cache", "attention", "dtype"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, format_named(getattr(self, name)).name)

    @property
    def quantises(self) -> bool:
        """Whether any weight is quantised."""
        return any(spec is not None for _, spec in self.rules)

    def with_mx_activations(self) -> QuantPlan:
        """The same weights; where they are mxfp4 under 16-bit activations, these become mxfp8."""

        def narrowed(spec: QuantSpec | None) -> QuantSpec | None:
            wide = spec is not None and spec.weight == "mxfp4" and not format_named(spec.activation).is_quantised
            return replace(spec, activation="mxfp8") if wide else spec

        return replace(self, rules=tuple((pattern, narrowed(spec)) for pattern, spec in self.rules))

    @property
    def schemes(self) -> tuple[str, ...]:
        """Labels of the schemes in use, most general last, each once."""
        return tuple(dict.fromkeys(spec.label for _, spec in self.rules if spec is not None))

    def resolve(self, paths: Mapping[str, str]) -> dict[str, QuantSpec]:
        """Module path -> QuantSpec, for the modules that are quantised; `paths` gives each module's kind (see KINDS).

        lm_head is left alone unless `quant_lm_head`; routers, embeddings and KEPT always; a rule that names one of
        them overrides that. Raises DeploymentError when a user's exclude, a list of layers or the whole plan matches
        nothing.
        """
        for kind in set(paths.values()) - set(KINDS):
            raise DeploymentError(f"unknown module kind {kind!r}; one of {', '.join(KINDS)}")
        self._check_excludes(paths)
        if not self.quantises:
            return {}
        left = Matcher(self.exclude + self.skip)
        listed = _Listed([(p, s) for p, s in self.rules if p not in (ALL, EXPERTS)])
        general = [(p, s) for p, s in self.rules if p in (ALL, EXPERTS)]
        towers = self.language_only and any("language_model" in path.split(".") for path in paths)
        layers = layer_count(paths)
        decided: dict[str, QuantSpec] = {}
        for path, kind in paths.items():
            names = checkpoint_names(path, layers)
            found, spec = listed.find(names)
            if any(map(left, names)) or (towers and kind != "lm_head" and "language_model" not in path.split(".")):
                continue
            if not found and not self._kept(path, kind):
                spec = next((s for p, s in general if p == ALL or kind == "experts"), None)
            if spec is not None:
                decided[path] = spec
        listed.check(paths, self.source)
        if not decided:
            raise DeploymentError(
                f"quantisation ({self.source}) matches none of the {len(paths)} modules of this "
                f"model, such as {', '.join(list(paths)[:2])}; use --quant none or a scheme by name"
            )
        return decided

    def _kept(self, path: str, kind: str) -> bool:
        if kind == "lm_head":
            return not self.quant_lm_head
        return kind in ("router", "embedding") or any(fnmatchcase("." + path, f"*.{end}") for end in KEPT)

    def _check_excludes(self, paths: Mapping[str, str]) -> None:
        refuse_partial_experts(self.exclude, 0, "--exclude")
        for pattern in self.exclude:
            matcher = Matcher((pattern,))
            if not any(matcher(path) for path in paths):
                names = {segment for path in paths for segment in path.split(".") if not segment.isdigit()}
                near = near_names(pattern, names | set(paths)) or sorted(names)[:3]
                raise DeploymentError(
                    f"--exclude {pattern!r} matches no module; nearest: {', '.join(near)} "
                    "(a full-path glob, a whole segment, or re:REGEX)"
                )


class _Listed:
    """Rules that name modules: exact paths through a dictionary, everything else in order through a matcher."""

    def __init__(self, rules: Sequence[tuple[str, QuantSpec | None]]) -> None:
        self.exact: dict[str, tuple[str, QuantSpec | None]] = {}
        self.loose: list[tuple[Matcher, QuantSpec | None]] = []
        self.total, self.used = len(rules), set()
        by_spec: dict[QuantSpec | None, list[str]] = {}
        for pattern, spec in rules:
            if pattern.startswith("re:") or GLOB.search(pattern) or "." not in canonical(pattern):
                by_spec.setdefault(spec, []).append(pattern)
                continue
            bare = canonical(pattern)
            known = self.exact.setdefault(bare, (pattern, spec))
            if known[1] != spec:
                raise DeploymentError(f"{bare} is one module, but {known[0]} and {pattern} differ in format")
        self.loose = [(Matcher(tuple(patterns)), spec) for spec, patterns in by_spec.items()]
        self.fused = {
            spec: Matcher(tuple(p for p, s in self.exact.values() if s == spec))
            for spec in {s for _, s in self.exact.values()}
        }

    def find(self, names: Sequence[str]) -> tuple[bool, QuantSpec | None]:
        """(whether a rule names the module that checkpoints call by one of `names`, its spec)."""
        for name in names:
            if (bare := canonical(name)) in self.exact:
                self.used.add(bare)
                return True, self.exact[bare][1]
        for matcher, spec in (*((m, s) for s, m in self.fused.items()), *self.loose):
            if any(map(matcher, names)):
                self.used.add(names[0])
                return True, spec
        return False, None

    def check(self, paths: Mapping[str, str], source: str) -> None:
        """Raises DeploymentError when the rules name modules that are not there, though their layer is."""
        if self.total and not self.used:
            asked = next(iter(self.exact), None) or self.loose[0][0].patterns[0]
            near = near_names(asked, map(canonical, paths)) or list(paths)[:2]
            raise DeploymentError(
                f"the list of quantised layers ({source}) matches no module: it has {asked}, "
                f"the model has {', '.join(near)}"
            )
        here = {canonical(path) for path in paths}
        layers = {".".join(path.split(".")[:2]) for path in here if path.startswith("layers.")}
        for bare in self.exact:
            inside = any(path == bare or path.startswith(bare + ".") for path in here) or bare in here
            if not inside and ".".join(bare.split(".")[:2]) in layers and not _fused_into(bare, here):
                raise DeploymentError(
                    f"the list of quantised layers ({source}) has {self.exact[bare][0]}, which the "
                    f"model has not; nearest: {', '.join(near_names(bare, here)) or 'none'}"
                )


def _fused_into(bare: str, here: set[str]) -> bool:
    head, _, last = bare.rpartition(".")
    return any(f"{head}.{whole}" in here for whole, parts in FUSED.items() if last in parts)


def plan_from_request(
    quant: str = "auto",
    checkpoint: Mapping[str, object] | None = None,
    side: Mapping[str, object] | None = None,
    machine_formats: Callable[[str], bool] | None = None,
    kv_cache_dtype: str | None = None,
    attention_quant: str | None = None,
    exclude: Sequence[str] = (),
    quant_lm_head: bool = False,
    dtype: str = "bf16",
    folder: Path | None = None,
) -> QuantPlan:
    """The plan for the precision flags.

    `quant`: "auto" (what the checkpoint says of itself), "none", or a scheme's name. `checkpoint`: the model's
    config; `side`: its hf_quant_config.json; `folder`: where its tensors are, which are asked when neither says
    anything. `machine_formats(math)`: whether the machine has that matrix rate (None:
    do not ask). `kv_cache_dtype`: a format, or None / "auto": the checkpoint's where `quant` is auto, else `dtype`; a
    cache is only stored in its format, so any machine can hold it. `attention_quant`: format attention computes in,
    or None / "none".

    With "auto", formats the machine cannot compute become `dtype` with a note; asked by name they raise
    DeploymentError.
    """
    dtype = format_named(dtype).name
    has = machine_formats or (lambda math: True)
    key = str(quant).strip().lower()
    base = QuantPlan(exclude=tuple(exclude), quant_lm_head=quant_lm_head, dtype=dtype, kv_cache=dtype)
    kv = dtype
    if key == "auto":
        own = read_checkpoint(checkpoint or {}, side) or _stored(folder)
        if own is not None:
            kv = kv_cache_format(own.kv_cache or dtype)
            rules, notes = _as_machine_allows(tuple((p, s and with_dtype(s, dtype)) for p, s in own.rules), has, dtype)
            base = replace(
                base,
                rules=rules,
                skip=own.skip,
                source=f"checkpoint {own.source}",
                quant_lm_head=quant_lm_head or own.lm_head,
                language_only=own.language_only,
                notes=own.notes + notes,
            )
    elif key != "none":
        spec = scheme_named(key, dtype)
        if not spec.runs_on(has):
            raise DeploymentError(_lacking(key, spec, has, dtype))
        base = replace(base, rules=((ALL, spec),), source=f"asked ({key.replace('_', '-')})")
    if kv_cache_dtype not in (None, "auto"):
        kv = kv_cache_format(kv_cache_dtype)
    plan = replace(base, kv_cache=kv, attention=_attention_format(attention_quant, has))
    if exclude and not plan.quantises:
        raise DeploymentError(f"--exclude {exclude[0]!r}: nothing is quantised; choose a scheme with --quant")
    if quant_lm_head and not plan.quantises:
        raise DeploymentError("--quant-lm-head: nothing is quantised; choose a scheme with --quant")
    return plan


def _stored(folder: Path | None) -> CheckpointQuant | None:
    if not has_checkpoint(folder):
        return None
    from tensorcast.quantization.stored import read_stored

    return read_stored(read_headers(folder))


def kv_cache_format(name: str) -> str:
    """Format of a KV cache by name: those whose scales are a handful a layer (static, per tensor or per head).

    Raises DeploymentError for formats with a scale for every few elements (int4, mxfp4, nvfp4, mxfp8), whose bytes a
    cache does not count, and for tf32, in which nothing is stored.
    """
    fmt = format_named(name)
    if fmt.name not in KV_FORMATS:
        raise DeploymentError(f"a KV cache in {fmt.name} is not simulated; one of {', '.join(KV_FORMATS)}")
    return fmt.name


def _attention_format(name: str | None, has: Callable[[str], bool]) -> str | None:
    if name is None or str(name).lower() == "none":
        return None
    fmt = format_named(name)
    if not machine_computes(fmt, has):
        able = [f.name for f in FORMATS.values() if machine_computes(f, has)]
        raise DeploymentError(
            f"--attention-quant {name}: this machine does not compute {fmt.name}; it has {', '.join(able)}"
        )
    return fmt.name


def _as_machine_allows(rules, has, dtype):
    """The rules with 16 bit where the machine cannot compute, and one note for each scheme that changed."""
    notes = {}
    for _, spec in rules:
        if spec is not None and not spec.runs_on(has):
            best = nearest(spec, has, dtype)
            advice = f"; nearest format it runs: --quant {best}" if best else ""
            notes[spec.label] = (
                f"this machine does not compute {spec.math}: layers the checkpoint has as "
                f"{spec.label} are simulated with {dtype} weights{advice}"
            )
    kept = tuple((p, s if s is None or s.runs_on(has) else None) for p, s in rules)
    return kept, tuple(notes.values())


def _lacking(name: str, spec: QuantSpec, has: Callable[[str], bool], dtype: str) -> str:
    able = [key for key, other in SCHEMES.items() if with_dtype(other, dtype).runs_on(has)]
    best = nearest(spec, has, dtype)
    advice = f"nearest: {best}; it runs {', '.join(able)}" if able else "it runs no quantised format; use --quant none"
    return f"--quant {name}: this machine does not compute {spec.math}; {advice}"
